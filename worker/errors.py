"""What went wrong, as the job's client is told."""

import errno
import sys

from loramend.contracts.errors import JobError, LoramendError
from service.jobs.disk import disk_full, is_disk_full


def as_loramend_error(error: BaseException) -> LoramendError | None:
    """The error with a code of the closed list; None where it is not one that may be told."""
    if isinstance(error, LoramendError):
        return error
    if _out_of_memory(error):
        return JobError(
            "out_of_memory", "The job ran out of memory on the worker. Try a smaller model, rank or batch."
        )
    return disk_full("The worker's") if is_disk_full(error) else None


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # Torch is not imported for this: where it was not, its errors cannot come.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # What torch's allocator for the CPU raises.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
