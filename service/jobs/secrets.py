"""Secrets that came with a request, encrypted at rest. Hub tokens are gone when the job ends."""

from typing import cast

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr
from redis import Redis

from loramend.contracts.errors import JobError, RequestError
from service.jobs.state import token_key

# A job that never ends does not keep its token for ever.
EXPIRY_SECONDS = 7 * 24 * 3600


class Sealer:
    """Encrypts with the server's secret key, where it has one."""

    def __init__(self, secret_key: SecretStr | None) -> None:
        self._fernet = Fernet(secret_key.get_secret_value()) if secret_key else None

    def seal(self, secret: SecretStr, what: str, where: str) -> str:
        """The secret, unreadable. RequestError `request_invalid` where the server has no secret key; `what`
        names such secrets, `where` points to this one."""
        if self._fernet is None:
            raise RequestError(
                "request_invalid",
                f"This server takes no {what}: it has no LORAMEND_SECRET_KEY to encrypt them with.",
                where=where,
            )
        return self._fernet.encrypt(secret.get_secret_value().encode()).decode()

    def unseal(self, sealed: str) -> SecretStr | None:
        """The secret; None where it was encrypted with another key."""
        try:
            return SecretStr(self._fernet.decrypt(sealed).decode()) if self._fernet else None
        except InvalidToken:
            return None


class TokenVault:
    """Tokens by job id. The job store deletes a job's token in the same write that ends the job."""

    def __init__(self, redis: "Redis", sealer: Sealer) -> None:
        self._redis = redis
        self._sealer = sealer

    def put(self, job_id: str, token: SecretStr) -> None:
        """Keep a token for a job. RequestError `request_invalid` where the server has no secret key."""
        sealed = self._sealer.seal(token, "Hub tokens", "/hub_token")
        self._redis.set(token_key(job_id), sealed, ex=EXPIRY_SECONDS)

    def get(self, job_id: str) -> SecretStr | None:
        """The job's token, if it came with one. Raises JobError `hub_forbidden` where decryption fails."""
        sealed = cast(str | None, self._redis.get(token_key(job_id)))
        if sealed is None:
            return None
        token = self._sealer.unseal(sealed)
        if token is None:
            raise JobError(
                "hub_forbidden",
                "The job's Hub token cannot be decrypted: service and worker need the same "
                "LORAMEND_SECRET_KEY.",
            )
        return token

    def delete(self, job_id: str) -> None:
        """Forget the job's token."""
        self._redis.delete(token_key(job_id))
