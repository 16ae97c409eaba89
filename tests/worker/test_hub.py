"""Fetching from real hubs: what is taken, what is refused and how, and what never leaks."""

import logging
import socket
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from loramend.cli.hub.transfer import transfer
from loramend.contracts.errors import ErrorCode, JobError, LoramendError
from loramend.contracts.job import Progress
from loramend.contracts.request import ModelRef
from tests.hub.accounts import Scope
from tests.hub.faults import Fault
from tests.hub.local import LocalHub
from tests.hub.olah import olah
from tests.worker.fetching import (
    ADAPTER,
    CONFIG,
    MODEL,
    SHARDS,
    WEIGHTS,
    downloads,
    ignore,
    names,
    refusal,
    refusal_of,
)
from worker.hub import fetch_adapter, fetch_model, hub_for
from worker.settings import WorkerSettings

pytestmark = pytest.mark.e2e

Fetch = Callable[..., str]


@pytest.fixture
def fetch(hub_settings: WorkerSettings, tmp_path: Path) -> Fetch:
    """fetch_adapter into tmp_path/in."""

    def call(hub_id: str, revision: str | None = None, token: str | None = None) -> str:
        return fetch_adapter(hub_id, revision, token, tmp_path / "in", hub_settings, ignore)

    return call


def test_a_branch_a_tag_and_a_commit_give_what_they_name(hub: LocalHub, fetch: Fetch, tmp_path: Path) -> None:
    old = hub.put("alice/lora", ADAPTER | {"README.md": b"old"})
    hub.repo("alice/lora").set_ref("refs/tags/v1", old)
    new = hub.put("alice/lora", {"README.md": b"new"})
    side = hub.put("alice/lora", {"README.md": b"side"}, branch="feature/x")
    wanted = [(None, new, b"new"), ("v1", old, b"old"), ("feature/x", side, b"side"), (old, old, b"old")]
    for revision, commit, readme in wanted:
        assert fetch("alice/lora", revision) == commit
        assert (tmp_path / "in" / "README.md").read_bytes() == readme


def test_only_the_adapters_files_are_taken(hub: LocalHub, fetch: Fetch, tmp_path: Path) -> None:
    more = {
        "README.md": b"#",
        "optimizer.pt": b"x",
        "tokenizer.json": b"{}",
        "checkpoint-1/adapter_model.bin": b"x",
    }
    hub.put("alice/lora", ADAPTER | more)
    fetch("alice/lora")
    assert names(tmp_path / "in") == {*ADAPTER, "README.md"}
    assert (tmp_path / "in" / "adapter_model.safetensors").read_bytes() == WEIGHTS


def test_a_lone_safetensors_file_is_an_adapter_of_another_format(
    hub: LocalHub, fetch: Fetch, tmp_path: Path
) -> None:
    hub.put("alice/style", {"pytorch_lora_weights.safetensors": WEIGHTS, "image.png": b"x"})
    fetch("alice/style")
    assert names(tmp_path / "in") == {"pytorch_lora_weights.safetensors"}


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"adapter_config.json": CONFIG, "adapter_model.bin": b"x"}, "pickle_refused", "adapter_model.bin"),
        ({"config.json": b"{}", "model.safetensors": MODEL}, "adapter_not_found", "model.safetensors"),
        (
            {"a.safetensors": MODEL, "b.safetensors": MODEL},
            "adapter_not_found",
            "a.safetensors, b.safetensors",
        ),
        ({"adapter_config.json": CONFIG}, "adapter_not_found", "no .safetensors"),
        ({"checkpoint-1/adapter_model.safetensors": WEIGHTS}, "adapter_not_found", "at its root"),
    ],
)
def test_what_holds_no_adapter_is_refused_unread(
    hub: LocalHub, fetch: Fetch, files: dict[str, bytes], code: ErrorCode, said: str
) -> None:
    hub.put("alice/thing", files)
    assert said in refusal(code, lambda: fetch("alice/thing")).detail
    assert downloads(hub) == []


def test_an_adapter_over_the_cap_is_refused_before_it_is_downloaded(
    hub: LocalHub, fetch: Fetch, hub_settings: WorkerSettings
) -> None:
    hub.put("alice/lora", ADAPTER)
    hub_settings.max_unpacked_bytes = len(WEIGHTS) + len(CONFIG) - 1
    assert str(len(WEIGHTS) + len(CONFIG)) in refusal("limit_exceeded", lambda: fetch("alice/lora")).detail
    assert downloads(hub) == []
    hub_settings.max_unpacked_bytes += 1
    fetch("alice/lora")


def test_a_file_larger_than_listed_is_not_taken(
    hub: LocalHub, hub_settings: WorkerSettings, tmp_path: Path
) -> None:
    commit = hub.put("alice/lora", ADAPTER)
    sizes = {"adapter_model.safetensors": len(WEIGHTS) - 1}
    source, into = hub_for(hub_settings, None), tmp_path / "in"
    refusal("hub_unavailable", lambda: transfer(source, "alice/lora", commit, sizes, ignore, into=into))
    assert not (into / "adapter_model.safetensors").exists()


def test_progress_counts_bytes_and_may_stop_the_download(
    hub: LocalHub, hub_settings: WorkerSettings, tmp_path: Path
) -> None:
    hub.put("alice/lora", ADAPTER)
    told: list[Progress] = []
    fetch_adapter("alice/lora", None, None, tmp_path / "a", hub_settings, told.append)
    done = [progress.done for progress in told]
    assert done == sorted(done)
    assert {(progress.phase, progress.unit, progress.total) for progress in told} == {
        ("fetch", "bytes", done[-1])
    }
    assert done[-1] == len(WEIGHTS) + len(CONFIG)

    def stop(progress: Progress) -> None:
        if progress.done > len(CONFIG):
            raise JobError("canceled", "Stopped.")

    refusal("canceled", lambda: fetch_adapter("alice/lora", None, None, tmp_path / "b", hub_settings, stop))
    assert names(tmp_path / "b") == {"adapter_config.json"}


# Who may see what


def test_what_is_not_there_is_not_found(hub: LocalHub, fetch: Fetch) -> None:
    hub.put("alice/lora", ADAPTER)
    assert refusal("hub_not_found", lambda: fetch("alice/nothing")).where == "/source/hub_id"
    assert "v9" in refusal("hub_not_found", lambda: fetch("alice/lora", "v9")).detail
    assert "v9" in refusal("hub_not_found", lambda: fetch("alice/nothing", "v9")).detail
    refusal("hub_not_found", lambda: fetch("alice/lora", "0" * 40))
    refusal("hub_not_found", lambda: fetch("alice/lo--ra"))


def test_private_repositories_need_a_token_that_sees_them(
    hub: LocalHub, fetch: Fetch, hub_settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.put("alice/lora", ADAPTER, private=True)
    assert "no token" in refusal("hub_not_found", lambda: fetch("alice/lora")).detail
    stranger = hub.accounts.add_token("bob", "write")
    assert "cannot see" in refusal("hub_not_found", lambda: fetch("alice/lora", token=stranger)).detail
    own = hub.accounts.add_token("alice", "read")
    assert fetch("alice/lora", token=own) == commit
    refusal("hub_forbidden", lambda: fetch("alice/lora", token="hf_" + "0" * 34))
    monkeypatch.setenv("HF_TOKEN", own)
    server = WorkerSettings()
    assert fetch_adapter("alice/lora", None, None, hub_settings.cache_dir / "x", server, ignore) == commit


def test_gated_repositories_stay_shut_even_where_the_cache_has_them(
    hub: LocalHub, fetch: Fetch, hub_settings: WorkerSettings
) -> None:
    hub.put("alice/model", {"config.json": b"{}", "model.safetensors": MODEL}, gated="manual")
    owner = hub.accounts.add_token("alice", "read")
    stranger = hub.accounts.add_token("bob", "read")
    ref = ModelRef(hub_id="alice/model")
    folder, _ = fetch_model(ref, hub.accounts.add_token("alice", "write"), hub_settings, None, ignore)
    assert (folder / "model.safetensors").exists()
    for token in (None, stranger, owner):
        error = refusal("hub_forbidden", partial(fetch_model, ref, token, hub_settings, None, ignore))
        assert "gated" in error.detail
    meta = hub.repo("alice/model").meta
    meta.allowed.append("bob")
    hub.repo("alice/model").write_meta(meta)
    assert fetch_model(ref, stranger, hub_settings, None, ignore)[0] == folder


# A hub in trouble


def test_a_passing_failure_is_waited_out(hub: LocalHub, fetch: Fetch) -> None:
    commit = hub.put("alice/lora", ADAPTER)
    hub.faults += [
        Fault("/api/models", status=503, times=1),
        Fault("/resolve/", method="HEAD", status=500, times=1),
        Fault("adapter_model.safetensors", method="GET", cut=100, times=1),
    ]
    assert fetch("alice/lora") == commit
    assert [fault.times for fault in hub.faults] == [0, 0, 0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("/api/models", status=503), "answered 503"),
        (Fault("/tree/", status=418), "answered 418"),
        (Fault("/api/models", hang=5), "did not answer within 0.2 s"),
    ],
)
def test_a_hub_that_keeps_failing_is_unavailable(
    hub: LocalHub, fetch: Fetch, hub_settings: WorkerSettings, fault: Fault, said: str
) -> None:
    hub.put("alice/lora", ADAPTER)
    hub.faults.append(fault)
    hub_settings.hub_seconds = 0.2
    started = time.monotonic()
    error = refusal("hub_unavailable", lambda: fetch("alice/lora"))
    assert said in error.detail
    assert time.monotonic() - started < 4
    assert isinstance(error, JobError)


def test_listings_are_bounded_in_time_too(hub: LocalHub, hub_settings: WorkerSettings) -> None:
    """huggingface_hub lists without any time limit of its own."""
    hub.put("alice/lora", ADAPTER)
    hub.faults.append(Fault("/tree/", hang=0.6, times=1))
    hub_settings.hub_seconds = 0.2
    api = hub_for(hub_settings, None).api()
    started = time.monotonic()
    assert len(list(api.list_repo_tree("alice/lora"))) == 3
    assert time.monotonic() - started > 1, "the first answer was given up and asked for again"


def test_nobody_there(hub: LocalHub, fetch: Fetch, hub_settings: WorkerSettings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hub_settings.hub_endpoint = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}"
        error = refusal("hub_unavailable", lambda: fetch("alice/lora"))
    assert "could not be reached" in error.detail
    assert "secret" not in str(error)


def test_the_token_is_never_told(
    hub: LocalHub, fetch: Fetch, hub_settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by errors, their tracebacks or any log, even where the hub repeats it."""
    hub.put("alice/lora", ADAPTER, gated="manual")
    token = hub.accounts.add_token("bob", "fineGrained", scopes=[Scope("user", "bob", ("repo.write",))])
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "huggingface_hub")
    told = []
    try:
        for status in (200, 400, 401, 403, 404, 429, 500):
            hub.faults[:] = (
                [Fault("/api/models", status=status, message=f"no, {token}")] if status != 200 else []
            )
            error = refusal_of(lambda: fetch("alice/lora", token=token))
            told += [
                str(error),
                repr(error),
                error.problem().model_dump_json(),
                *traceback.format_exception(error),
            ]
        with pytest.raises(LoramendError) as caught:
            fetch("alice/lora", token=f"{token}\n")
        told += traceback.format_exception(caught.value)
    finally:
        logging.getLogger("huggingface_hub").removeHandler(caplog.handler)
    assert "Request" in caplog.text or "HTTP" in caplog.text, "huggingface_hub's log was listened to"
    assert token not in caplog.text
    assert not [line for line in told if token in line]


# Another hub altogether


def test_olah_serves_the_same(hub: LocalHub, hub_settings: WorkerSettings, tmp_path: Path) -> None:
    old = hub.put("alice/lora", ADAPTER)
    new = hub.put("alice/lora", {"README.md": b"new"})
    commit = hub.put("alice/model", SHARDS)
    with olah(hub.root, tmp_path / "olah") as endpoint:
        hub_settings.hub_endpoint = endpoint
        for revision, expected in ((None, new), ("main", new), (old, old)):
            into = tmp_path / f"in-{revision}"
            assert fetch_adapter("alice/lora", revision, None, into, hub_settings, ignore) == expected
            assert {name: (into / name).read_bytes() for name in ADAPTER} == ADAPTER
        needed = ["model.layers.1.q.weight"]
        folder, name = fetch_model(ModelRef(hub_id="alice/model"), None, hub_settings, needed, ignore)
        assert name == f"alice/model@{commit}"
        assert (folder / "two.safetensors").read_bytes() == SHARDS["two.safetensors"]
        assert not (folder / "one.safetensors").exists()
        refusal(
            "hub_not_found",
            lambda: fetch_adapter("alice/nothing", None, None, tmp_path / "no", hub_settings, ignore),
        )
