"""Files of one commit brought over from a Hub, with progress in bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from huggingface_hub import HfApi, hf_hub_download

from loramend.cli.hub.client import Hub
from loramend.contracts.errors import JobError
from loramend.contracts.job import OnProgress, Progress

RepoType = Literal["model", "dataset"]


def transfer(
    hub: Hub,
    repo_id: str,
    commit: str,
    sizes: Mapping[str, int],
    on_progress: OnProgress,
    *,
    into: Path | None = None,
    repo_type: RepoType = "model",
    where: str | None = None,
) -> Path:
    """Fetch the files named in `sizes` (bytes as the Hub listed them); returns the folder they lie in.

    That is `into`, or a folder in the Hub's cache, where files that are there already are not fetched again.
    Raises JobError `hub_unavailable`, also where a file turns out larger than listed.
    """
    meter = _Meter(sum(sizes.values()), on_progress)
    paths = []
    for name, size in sizes.items():

        def get(api: HfApi, name: str = name, size: int = size) -> str:
            return hf_hub_download(
                repo_id,
                name,
                repo_type=repo_type,
                revision=commit,
                cache_dir=hub.cache_dir,
                local_dir=into,
                endpoint=api.endpoint,
                token=hub.token or False,
                etag_timeout=hub.seconds,
                library_name="loramend",
                tqdm_class=cast(Any, meter.bar(name, size)),  # stands in for tqdm without being one
            )

        # Once: huggingface_hub itself asks again, and goes on where a download broke off.
        paths.append(Path(hub.call(f"{name} of {repo_id}@{commit}", get, attempts=1, where=where)))
        meter.finish(size)
    return paths[0].parent


class _Meter:
    """Bytes done over all files of a download; files in the cache count at once."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._total = total
        self._finished = 0
        self._on_progress = on_progress

    def finish(self, size: int) -> None:
        self._finished += size
        self._report(0, "")

    def bar(self, name: str, size: int) -> type["_Bar"]:
        """The class of the progress bar for one file of that announced size."""

        class Bar(_Bar):
            def __init__(self, **_: object) -> None:
                self.n = 0

            def update(self, count: float | None = 1) -> None:
                self.n += int(count or 0)
                if self.n > size:
                    raise JobError("hub_unavailable", f"{name} is larger than the {size:,} bytes listed.")
                report(self.n, name)

        report = self._report
        report(0, name)
        return Bar

    def _report(self, current: int, name: str) -> None:
        done = self._finished + current
        self._on_progress(Progress(phase="fetch", done=done, total=self._total, unit="bytes", detail=name))


class _Bar:
    """What huggingface_hub asks of a progress bar beside `update`, over HTTP and Xet."""

    total: int | None = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update_transfer(self, count: float) -> None:
        """Xet's bytes on the wire, beside the file's own that `update` gets."""

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        pass

    def set_transfer_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        pass

    def close(self) -> None:
        pass
