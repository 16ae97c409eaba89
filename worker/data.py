"""The text a job learns from and is measured on: fetched from the Hub before, read for the work itself."""

from pathlib import Path

from loramend.contracts.data import DataRole
from loramend.data.examples import Corpus, Dataset
from loramend.data.jsonl import read_jsonl
from service.jobs.intake import check_data, store_data
from service.jobs.records import data_pointer
from worker.hub import fetch_dataset
from worker.job import Work


def fetch_data(work: Work) -> None:
    """Have every file of text that the job names in its storage, checked. Raises DataError, and what
    `fetch_dataset` raises."""
    record, settings = work.record, work.settings
    files: dict[DataRole, tuple[Path, str]] = {}
    for role, ref in record.data.items():
        if role in record.data_files:
            continue
        where = data_pointer(role)
        path, name = fetch_dataset(ref, work.token(), settings, work.keeper.on_progress, where=where)
        check_data(path, role, name, ref.fields, settings.data_limits(), where=where)
        files[role] = path, name
    if files:
        stored = store_data(files, job_id=record.id, storage=work.tools.storage, store=work.tools.store)
        work.update(data_files=record.data_files | stored)


def read_corpus(work: Work) -> Corpus:
    """The job's text, read. Raises DataError."""
    record = work.record
    read: dict[DataRole, Dataset] = {}
    for role, file in record.data_files.items():
        path = work.folder / "data" / f"{role}.jsonl"
        work.tools.storage.fetch(file, path)
        read[role] = read_jsonl(
            path, role, name=file.name, fields=record.data[role].fields, limits=work.settings.data_limits()
        )
    return Corpus(**read, validation_share=record.validation_share)
