"""The phases on queue `io`, which wait for the network: fetching before a repair, publishing after it."""

from loramend.contracts.job import JobResult
from service.jobs.intake import take_folder
from service.jobs.records import Queue
from worker.data import fetch_data
from worker.hub import fetch_adapter
from worker.job import Work, adapter_config, materialise
from worker.models import download_models, wanted_models
from worker.permission import check_can_publish
from worker.publish import publish
from worker.result import result_of


def transfer(work: Work) -> "Queue | JobResult":
    """Fetch what the job needs and hand it on; or, where the repair is done, publish it and end the job."""
    return _publish(work) if work.record.output else _fetch(work)


def _fetch(work: Work) -> "Queue":
    record, settings = work.record, work.settings
    if record.publish is not None:
        check_can_publish(record.publish, work.token(), settings)
    folder = work.folder / "adapter"
    if not record.input:
        hub_id = record.source.hub_id
        assert hub_id is not None, "an upload's files were stored before the job was"
        folder.mkdir()
        commit = fetch_adapter(
            hub_id, record.source.revision, work.token(), folder, settings, work.keeper.on_progress
        )
        files = take_folder(
            folder,
            job_id=record.id,
            storage=work.tools.storage,
            store=work.tools.store,
            limits=settings.adapter_limits(),
        )
        work.update(input=files, source_resolved={"hub_id": hub_id, "revision": commit})
    else:
        materialise(record.input, folder, work.tools.storage)
    fetch_data(work)
    wanted = wanted_models(work.record, adapter_config(work.record, work.tools.storage), settings)
    if wanted:
        work.update(references=download_models(work, wanted, folder))
    return work.record.compute_queue


def _publish(work: Work) -> JobResult:
    record = work.record
    assert record.publish is not None, "only jobs that publish come back to this queue"
    folder = materialise(record.output, work.folder / "output", work.tools.storage)
    published = publish(
        record.publish,
        folder,
        job_id=record.id,
        token=work.token(),
        settings=work.settings,
        on_progress=work.keeper.on_progress,
    )
    return result_of(record).model_copy(update={"published": published})
