"""Hub tokens that came with a request: encrypted at rest, gone when the job ends."""

from typing import cast

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr
from redis import Redis

from loramend.contracts.errors import JobError, RequestError
from service.jobs.state import token_key

# A job that never ends does not keep its token for ever.
EXPIRY_SECONDS = 7 * 24 * 3600


class TokenVault:
    """Tokens by job id. The job store deletes a job's token in the same write that ends the job."""

    def __init__(self, redis: "Redis", secret_key: SecretStr | None) -> None:
        self._redis = redis
        self._fernet = Fernet(secret_key.get_secret_value()) if secret_key else None

    def put(self, job_id: str, token: SecretStr) -> None:
        """Keep a token for a job. RequestError `request_invalid` where the server has no secret key."""
        if self._fernet is None:
            raise RequestError(
                "request_invalid",
                "This server takes no Hub tokens: it has no LORAMEND_SECRET_KEY to encrypt them with.",
                where="/hub_token",
            )
        sealed = self._fernet.encrypt(token.get_secret_value().encode()).decode()
        self._redis.set(token_key(job_id), sealed, ex=EXPIRY_SECONDS)

    def get(self, job_id: str) -> SecretStr | None:
        """The job's token, if it came with one. Raises JobError `hub_forbidden` where decryption fails."""
        sealed = cast(str | None, self._redis.get(token_key(job_id)))
        if sealed is None:
            return None
        if self._fernet is None:
            raise _unreadable()
        try:
            return SecretStr(self._fernet.decrypt(sealed).decode())
        except InvalidToken as error:
            raise _unreadable() from error

    def delete(self, job_id: str) -> None:
        """Forget the job's token."""
        self._redis.delete(token_key(job_id))


def _unreadable() -> JobError:
    return JobError(
        "hub_forbidden",
        "The job's Hub token cannot be decrypted: service and worker need the same LORAMEND_SECRET_KEY.",
    )
