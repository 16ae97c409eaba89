"""What the reaper leaves to others."""

import os
import time
from pathlib import Path

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.service.jobs.jobs import new_record
from worker.process import WorkerProcess
from worker.reaper import Reaper
from worker.settings import WorkerSettings
from worker.tools import open_tools


def test_after_an_outage_the_holders_of_leases_come_first(
    own_settings: WorkerSettings, redis_client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = open_tools(own_settings)
    reaper = Reaper(tools, own_settings, WorkerProcess(["spectral"]))
    lease = tools.store.acquire(tools.store.create(new_record()).id, "other", 0.001)
    assert lease is not None

    def away(*_: object, **__: object) -> None:
        raise RedisConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(tools.store, "heartbeat_worker", away)
        with pytest.raises(RedisConnectionError):
            reaper.look()
    reaper.look()
    assert tools.store.renew(lease, 0.001)
    time.sleep(0.01)
    Reaper(tools, own_settings, WorkerProcess(["spectral"])).look()
    assert not tools.store.renew(lease, 30)


def test_a_sweep_clears_what_nobody_writes(own_settings: WorkerSettings, tmp_path: Path) -> None:
    settings = own_settings.model_copy(update={"cache_dir": tmp_path / "cache"})
    left = [tmp_path / "blobs" / "temporary" / "left", settings.cache_dir / "subspaces" / "left.part"]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    Reaper(open_tools(settings), settings, WorkerProcess(["spectral"])).sweep()
    assert not any(path.exists() for path in left)
