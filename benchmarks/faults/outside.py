"""What the service meets outside: a Hub that is slow and loses answers, and a receiver of webhooks that is
busy at times. Both are those of the tests, so the campaign runs from a checkout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.receiver import SECRET, Receiver, receiving
from tests.hub.faults import Fault
from tests.hub.local import LocalHub
from tests.hub.server import serving

USER = "someone"
# A repository of which nobody gets an answer.
SILENT = f"{USER}/silent"
# Seconds that a commit takes: long enough to be killed in, before it is done and after.
_COMMIT_SECONDS = 0.7
_BUSY_EVERY = 5
_MOST_MESSAGES = 5000


@dataclass(frozen=True)
class Outside:
    """The Hub with a token that may write there, the receiver, and the folder of local models."""

    hub: LocalHub
    token: str
    receiver: Receiver
    models: Path

    @property
    def webhook(self) -> dict[str, str]:
        """What every request names."""
        return {"url": self.receiver.url(), "secret": SECRET}

    def settings(self) -> dict[str, str]:
        """What the service must be told to get there."""
        return {
            "LORAMEND_HUB_ENDPOINT": self.hub.endpoint,
            "LORAMEND_MODEL_ROOTS": str(self.models),
            "LORAMEND_WEBHOOK_PRIVATE_HOSTS": "127.0.0.1",
            "LORAMEND_WEBHOOK_PAUSE_SECONDS": "0.5",
            "LORAMEND_WEBHOOK_SECONDS": "2",
            "HF_TOKEN": "",
        }

    def commits(self, repo_id: str, job_id: str) -> list[str]:
        """The commits for that job in the repository."""
        repo = self.hub.repo(repo_id)
        head = repo.resolve("main") if repo.exists() else None
        found = repo.commits(head) if head else []
        return [commit.sha for commit in found if job_id in f"{commit.title}\n{commit.message}"]


@contextmanager
def outside(root: Path) -> Iterator[Outside]:
    """All of it in that folder, for as long as the block runs."""
    models = root / "models"
    models.mkdir(parents=True)
    hub = LocalHub(root / "hub")
    hub.accounts.add_user(USER)
    hub.faults += [
        Fault(path=SILENT, hang=600),
        # Some commits are made and their answers lost.
        Fault(path="/commit/", method="POST", hang=_COMMIT_SECONDS, after=True, status=502, skip=1, times=3),
        Fault(path="/commit/", method="POST", hang=_COMMIT_SECONDS),
    ]
    busy = [503 if number % _BUSY_EVERY == 0 else 204 for number in range(_MOST_MESSAGES)]
    with serving(hub), receiving(answers=busy) as receiver:
        yield Outside(hub, hub.accounts.add_token(USER, "write"), receiver, models)
