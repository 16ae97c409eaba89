"""From an API key to its caller: is it one, has it any requests left, may it do that."""

import hmac
import re
from collections.abc import Iterable

from loramend.contracts.errors import RequestError
from loramend.contracts.keys import KEY, ApiKey, Scope
from service.api.caller import SETTINGS_OWNER, Caller
from service.api.problems import AnswerError
from service.jobs.buckets import Buckets, Rate
from service.jobs.keys import KeyStore, digest_of
from service.jobs.passes import Passes

READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
RESULTS_COOKIE = "loramend-results"
_PASS = re.compile(r"/jobs/[^/]+/pass")


def needed_scope(method: str, path: str) -> Scope:
    """What a key must be allowed; a pass lets a browser read, and changes nothing."""
    return "read" if method in READ_METHODS or _PASS.fullmatch(path) else "submit"


class Gate:
    """Admits callers. Every call may wait for the Redis server.

    settings_keys  keys from the settings, which are admins
    requests       how many requests a key may send
    received       how many bytes of bodies a key may send
    """

    def __init__(
        self,
        keys: KeyStore,
        passes: Passes,
        buckets: Buckets,
        *,
        settings_keys: Iterable[str],
        requests: Rate,
        received: Rate,
    ) -> None:
        self._keys = keys
        self._passes = passes
        self._buckets = buckets
        self._settings_keys = [digest_of(key) for key in settings_keys]
        self._requests = requests
        self._received = received

    def knows_form(self, token: str) -> bool:
        """Whether the token has the form of a stored key; whether it is one takes `admit`."""
        return KEY.fullmatch(token) is not None

    def admit(self, token: str, needed: Scope, has_body: bool) -> Caller:
        """The key's caller, one request poorer.

        Raises RequestError `unauthorized`, `rate_limited`, `forbidden` where the key lacks the scope, and
        `quota_exceeded` for a request with a body: a job can be canceled and deleted all the same.
        """
        caller = self._counted(self._caller(token), needed)
        if has_body and (wait := self._buckets.wait(f"received:{caller.key_id}", self._received)):
            raise AnswerError(
                "quota_exceeded",
                f"This key has sent its {self._received.amount:g} bytes a day. Try again in {wait} s.",
                {"Retry-After": str(wait)},
            )
        return caller

    def admit_pass(self, text: str, job_id: str) -> Caller:
        """The caller whose key took this pass to the job's results, one request poorer.

        Raises as `admit` does: a pass is good as long as its key is.
        """
        key_id = self._passes.key_of(text, job_id)
        caller = None if key_id is None else self._holder(key_id)
        if caller is None:
            raise RequestError(
                "unauthorized", "This way to the job's results is closed by now: open them from its page."
            )
        return self._counted(caller, "read")

    def _counted(self, caller: Caller, needed: Scope) -> Caller:
        wait = self._buckets.take(f"requests:{caller.key_id}", self._requests)
        if wait:
            raise AnswerError(
                "rate_limited",
                f"This key may send {self._requests.amount:g} requests a minute. Try again in {wait} s.",
                {"Retry-After": str(wait)},
            )
        if not caller.may(needed):
            raise AnswerError(
                "forbidden",
                f"That needs a key with the scope {needed}; this one has {', '.join(sorted(caller.scopes))}.",
                {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'},
            )
        return caller

    def received(self, caller: Caller, size: int) -> None:
        """Count the bytes of a body against the key's quota."""
        self._buckets.charge(f"received:{caller.key_id}", self._received, size)

    def _caller(self, token: str) -> Caller:
        digest = digest_of(token)
        # Every key is compared, so that the time taken does not tell which one nearly fits.
        if sum(hmac.compare_digest(digest, known) for known in self._settings_keys):
            return _of_settings(digest)
        found = self._keys.find(token)
        if found is None:
            known = "This API key is not known here, or was revoked." if token else "An API key is needed."
            raise RequestError(
                "unauthorized",
                f"{known} Send one as `Authorization: Bearer <key>`: loramend's commands take it from "
                "--key or LORAMEND_KEY, Hub clients from HF_TOKEN; a browser signs in on the page at /.",
            )
        return _of_store(found)

    def _holder(self, key_id: str) -> Caller | None:
        """The caller by a key's ID; None where there is no such key any more."""
        for known in map(_of_settings, self._settings_keys):
            if known.key_id == key_id:
                return known
        found = self._keys.named(key_id)
        return None if found is None else _of_store(found)


def _of_settings(digest: str) -> Caller:
    return Caller(f"{SETTINGS_OWNER}-{digest[:12]}", SETTINGS_OWNER, frozenset({"admin"}))


def _of_store(key: ApiKey) -> Caller:
    return Caller(key.id, key.owner, frozenset(key.scopes))
