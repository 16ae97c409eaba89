"""The phase on queues `spectral` and `train`: the inspection or repair itself. Imports torch."""

from pathlib import Path

import torch

from loramend.adapter.archive import pack
from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.bank.file import OpenBank, read_bank
from loramend.contracts.files import REPORT, REPORT_HTML, REPORT_SARIF
from loramend.contracts.job import JobResult, Progress
from loramend.reference.models import References
from loramend.reference.open import open_references
from loramend.repair import inspect, repair
from loramend.result import write_report, write_result
from loramend.signing.sign import sign_folder
from service.jobs.intake import store_files
from service.jobs.records import Queue
from worker.checkpoints import StoredCheckpoints
from worker.data import read_corpus
from worker.job import Work, materialise
from worker.models import settle_models, steps_of
from worker.provenance import write_provenance
from worker.result import result_of


def measure_or_repair(work: Work) -> "Queue | JobResult":
    """Do the job's work and store what it leaves behind. Returns its result, or "io" where the Hub must be
    asked: for a model before, for publishing after."""
    if work.record.archive is not None:
        return _after_repair(work)
    if not settle_models(work):
        return "io"
    record = work.record
    source = materialise(record.input, work.folder / "input", work.tools.storage)
    adapter = read_adapter(source, work.settings.adapter_limits(), record.source.hub_id)
    base, aligned = record.references.get("base"), record.references.get("aligned")
    with open_references(
        Path(base.path) if base and base.path else None,
        Path(aligned.path) if aligned and aligned.path else None,
        base_name=base.name if base else None,
        aligned_name=aligned.name if aligned else None,
        cache_dir=work.settings.cache_dir,
        device=_device(work),
    ) as references:
        if record.kind == "inspect":
            return _inspect(work, adapter, references)
        _repair(work, adapter, references, source)
    return _after_repair(work)


def _inspect(work: Work, adapter: Adapter, references: References) -> JobResult:
    report = inspect(
        adapter,
        references,
        seed=work.record.seed,
        device=_device(work),
        on_progress=work.keeper.on_progress,
        source=work.record.source_resolved,
        bank=_bank(work),
    )
    write_report(report, work.folder)
    files = {name: work.folder / name for name in (REPORT, REPORT_HTML, REPORT_SARIF)}
    stored = store_files(files, job_id=work.record.id, storage=work.tools.storage, store=work.tools.store)
    work.update(report=stored[REPORT], report_html=stored[REPORT_HTML], report_sarif=stored[REPORT_SARIF])
    return result_of(work.record)


def _repair(work: Work, adapter: Adapter, references: References, source: Path) -> None:
    record = work.record
    base = record.references.get("base")
    repaired, report = repair(
        adapter,
        steps_of(record),
        references,
        threat=record.threat or "poisoned_adapter",
        seed=record.seed,
        device=_device(work),
        on_progress=work.keeper.on_progress,
        source=record.source_resolved,
        corpus=read_corpus(work),
        evaluation=record.evaluation,
        model=Path(base.path) if record.runs_model and base and base.path else None,
        checkpoints=StoredCheckpoints(work),
        bank=_bank(work),
    )
    out = work.folder / "output"
    report = write_result(repaired, report, source, out)
    if record.publish is not None:
        write_provenance(report, record.id, out)
    if work.settings.sign_key is not None:
        sign_folder(out, work.settings.sign_key, name=f"repaired/{record.id}")
    archive = work.folder / "adapter.tar.gz"
    pack(out, archive)
    work.keeper.check()
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    total = len(files) + 1
    work.keeper.on_progress(Progress(phase="write", done=0, total=total, unit="files"))
    stored = store_files(
        {**files, "": archive}, job_id=work.record.id, storage=work.tools.storage, store=work.tools.store
    )
    work.keeper.on_progress(Progress(phase="write", done=total, total=total, unit="files"))
    packed = stored.pop("")
    work.update(
        output=stored,
        archive=packed,
        report=stored[REPORT],
        report_html=stored[REPORT_HTML],
        report_sarif=stored[REPORT_SARIF],
        checkpoints={},
    )


def _after_repair(work: Work) -> "Queue | JobResult":
    return "io" if work.record.publish is not None else result_of(work.record)


def _bank(work: Work) -> OpenBank | None:
    return read_bank(work.settings.bank) if work.settings.bank is not None else None


def _device(work: Work) -> str:
    return work.settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
