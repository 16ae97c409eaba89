"""`python -m service`: the HTTP server, with settings from the environment."""

import contextlib
import socket
import sys

import uvicorn
from pydantic import ValidationError

from service import logs
from service.api.guard import is_loopback
from service.api.state import Services
from service.app import create_app
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


def main() -> int:
    """Serve until TERM or INT. Returns 1 where the settings are wrong, saying so on stderr."""
    try:
        settings = ServiceSettings()
    except ValidationError as error:
        print(explain(error), file=sys.stderr)  # noqa: T201
        return 1
    if not settings.api_keys and not is_loopback(settings.host):
        print(  # noqa: T201
            f"Refusing to listen on {settings.host} without API keys: set LORAMEND_API_KEYS, "
            "or LORAMEND_HOST=127.0.0.1.",
            file=sys.stderr,
        )
        return 1
    logs.configure(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, app.state.services).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
