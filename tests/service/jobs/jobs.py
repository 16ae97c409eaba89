"""Records for tests."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from loramend.contracts.request import Source
from service.jobs.records import BlobRef, JobRecord, new_job_id


def new_record(**fields: Any) -> JobRecord:
    """A queued repair of an upload."""
    given = {
        "id": new_job_id(),
        "kind": "repair",
        "status": "queued",
        "created_at": datetime.now(UTC),
        "source": Source(upload="0" * 64),
        "threat": "poisoned_adapter",
    }
    return JobRecord.model_validate(given | fields)


def blob(text: str) -> BlobRef:
    """The reference of a blob with that text."""
    return BlobRef(sha256=hashlib.sha256(text.encode()).hexdigest(), size=len(text.encode()))


def doubled(script: Callable[..., Any]) -> Callable[..., Any]:
    """The script as the client runs it where the connection breaks before the first answer."""

    def twice(**given: Any) -> Any:
        script(**given)
        return script(**given)

    return twice
