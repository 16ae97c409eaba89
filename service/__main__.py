"""`python -m service`: the HTTP server, with settings from the environment."""

import contextlib
import socket
import sys

import uvicorn
from pydantic import ValidationError
from redis.exceptions import RedisError

from service import logs
from service.api.guard import is_loopback
from service.api.state import Services
from service.app import create_app
from service.jobs.keys import KeyStore
from service.jobs.settings import explain
from service.settings import ServiceSettings


class Server(uvicorn.Server):
    """Ends event streams and waits when it is asked to stop, so that they do not hold it up."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.stopping.set()
        await super().shutdown(sockets)


def _refusal(settings: ServiceSettings, services: Services) -> str | None:
    """Why it will not listen: on other addresses than loopback's there have to be keys."""
    if settings.api_keys or is_loopback(settings.host):
        return None
    why = f"Refusing to listen on {settings.host} without API keys"
    try:
        if KeyStore(services.redis).any():
            return None
    except RedisError as error:
        return (
            f"{why}: LORAMEND_API_KEYS has none, and the job store, where there may be some, does not answer "
            f"({type(error).__name__}). Start it, or set LORAMEND_API_KEYS."
        )
    return (
        f"{why}: make one with `loramend keys create OWNER`, or set LORAMEND_API_KEYS, "
        "or LORAMEND_HOST=127.0.0.1."
    )


def main() -> int:
    """Serve until TERM or INT. Returns 1 where the settings are wrong, saying so on stderr."""
    try:
        settings = ServiceSettings()
    except ValidationError as error:
        print(explain(error), file=sys.stderr)  # noqa: T201
        return 1
    app = create_app(settings)
    refusal = _refusal(settings, app.state.services)
    if refusal is not None:
        print(refusal, file=sys.stderr)  # noqa: T201
        return 1
    logs.configure(settings.log_level)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, app.state.services).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
