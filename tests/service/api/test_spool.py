"""Where bodies lie while they are taken in."""

import errno
import tempfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.api import body
from service.api.spool import Spool
from tests.service.api.adapters import folder, tar_gz
from tests.service.api.answers import problem


def test_what_a_killed_server_left_goes_and_a_living_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "loramend-api-left"
    (left / "request").mkdir(parents=True)
    living, new = Spool(), Spool()
    with living.folder() as first, new.folder() as second:
        assert not left.exists()
        assert first.parent == living.open() != second.parent
        assert first.is_dir()
    assert not first.exists()
    living.close()
    assert list(tmp_path.iterdir()) == [new.open()]
    new.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_such(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(body._OpenFile, "write", full)
    answer = client.post(
        "/repair",
        files={"adapter": ("adapter.tar.gz", tar_gz(folder()))},
        data={"request": '{"steps": [{"type": "shrink", "factor": 0.5}]}'},
    )
    problem(answer, 503, "disk_full")
    assert answer.headers["Retry-After"]
