"""What a record says about its own work."""

import pytest

from service.jobs.records import Queue
from tests.service.jobs.jobs import new_record

DATA = {"upload": "0" * 64}
SHRINK = [{"type": "shrink"}]


@pytest.mark.parametrize(
    ("fields", "queue"),
    [
        ({"steps": SHRINK}, "spectral"),
        ({"steps": SHRINK, "data": {"clean": DATA}}, "spectral"),
        ({"steps": [*SHRINK, {"type": "rora"}]}, "train"),
        ({"steps": [{"type": "clean_subspace"}]}, "train"),
        ({"steps": SHRINK, "evaluation": {}}, "train"),
        ({"steps": None}, "spectral"),
        ({"steps": None, "data": {"unlabelled": DATA}}, "train"),
        ({"steps": None, "data": {"evaluation": DATA}}, "spectral"),
        ({"kind": "inspect", "steps": None}, "spectral"),
    ],
)
def test_a_job_that_runs_the_model_belongs_to_the_train_queue(
    fields: dict[str, object], queue: Queue
) -> None:
    assert new_record(**fields).compute_queue == queue


def test_labelled_text_counts_for_more_than_plain() -> None:
    assert new_record().text_given is None
    assert new_record(data={"unlabelled": DATA, "evaluation": DATA}).text_given == "text"
    assert new_record(data={"unlabelled": DATA, "clean": DATA}).text_given == "clean"
