"""What was read, as the report names it."""

from loramend.adapter.model import Adapter
from loramend.contracts.evidence import DataRead
from loramend.contracts.report import AdapterSummary, FileDigest
from loramend.data.examples import Corpus


def adapter_summary(adapter: Adapter) -> AdapterSummary:
    """The adapter's name, format, files with digests, features in use and what is passed through."""
    return AdapterSummary(
        name=adapter.name,
        format=adapter.format,
        base_model=adapter.base_model,
        files=[FileDigest(path=path, sha256=sha256, size=size) for path, sha256, size in adapter.files],
        features=list(adapter.features),
        passed_through=sorted(adapter.passthrough),
    )


def data_read(corpus: Corpus) -> list[DataRead]:
    """The text that was read, with digests."""
    return [
        DataRead(
            role=dataset.role,
            name=dataset.name,
            sha256=dataset.sha256,
            examples=len(dataset.examples),
            labelled=all(example.labelled for example in dataset.examples),
        )
        for dataset in corpus.datasets()
    ]
