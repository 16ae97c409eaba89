"""Publishing to a real hub: permission asked first, one commit, found again by a retry."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import HfApi, constants
from safetensors.numpy import save

from loramend.contracts.errors import ErrorCode, LoramendError
from loramend.contracts.job import Progress, Published
from loramend.contracts.request import Publish
from tests.hub.accounts import Scope
from tests.hub.faults import Fault
from tests.hub.local import LocalHub
from tests.models import build_trio
from worker.permission import check_can_publish
from worker.publish import publish
from worker.settings import WorkerSettings

pytestmark = [
    pytest.mark.e2e,
    # huggingface_hub 2.4 uploads large files in a way that httpx2 2.16 has deprecated
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

JOB = "0197" + "ab" * 14
WEIGHTS = save({"base_model.model.q.lora_A.weight": np.ones((2, 8), np.float32)})
Push = Callable[..., Published]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a repair leaves to be published."""
    result = tmp_path / "result"
    files = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": WEIGHTS,
        "README.md": b"---\nlibrary_name: peft\n---\n# Repaired\n",
        "report.json": b"{}",
        "original/adapter_model.safetensors": WEIGHTS * 2,
        "loramend.json": b"{}\n",
    }
    for name, content in files.items():
        (result / name).parent.mkdir(parents=True, exist_ok=True)
        (result / name).write_bytes(content)
    return result


@pytest.fixture
def push(hub: LocalHub, hub_settings: WorkerSettings, folder: Path) -> Push:
    """publish as alice."""
    token = hub.accounts.add_token("alice", "write")

    def call(repo_id: str = "alice/fixed", *, job: str = JOB, **options: bool) -> Published:
        target = Publish(repo_id=repo_id, **options)
        return publish(target, folder, job_id=job, token=token, settings=hub_settings, on_progress=ignore)

    return call


def ignore(progress: Progress) -> None:
    pass


def titles(hub: LocalHub, repo_id: str = "alice/fixed", ref: str = "main") -> list[str]:
    repo = hub.repo(repo_id)
    return [commit.title for commit in repo.commits(repo.resolve(ref) or "")]


def refusal(code: ErrorCode, work: Callable[[], object]) -> LoramendError:
    with pytest.raises(LoramendError) as caught:
        work()
    assert caught.value.code == code, str(caught.value)
    return caught.value


# The push


def test_one_commit_holds_everything(hub: LocalHub, push: Push, folder: Path) -> None:
    published = push()
    repo = hub.repo("alice/fixed")
    assert repo.meta.private
    assert [JOB in title for title in titles(hub)] == [True, False]
    assert published.commit == repo.resolve("main")
    assert published.url == f"{hub.endpoint}/alice/fixed/commit/{published.commit}"
    entries = {entry.path: entry for entry in repo.entries(published.commit)}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert entries.keys() == there | {".gitattributes"}
    assert repo.lfs_path(entries["adapter_model.safetensors"].lfs or "").read_bytes() == WEIGHTS


def test_progress_is_told(hub: LocalHub, hub_settings: WorkerSettings, folder: Path) -> None:
    told: list[Progress] = []
    token = hub.accounts.add_token("alice", "write")
    target = Publish(repo_id="alice/fixed")
    publish(target, folder, job_id=JOB, token=token, settings=hub_settings, on_progress=told.append)
    assert [(each.phase, each.done, each.total) for each in told] == [("publish", 0, 6), ("publish", 6, 6)]


def test_a_retry_finds_the_commit_and_another_job_makes_its_own(hub: LocalHub, push: Push) -> None:
    first = push()
    hub.put("alice/fixed", {"notes.txt": b"added by hand"}, private=True)
    assert push() == first
    assert len(titles(hub)) == 3
    second = push(job="f" * 32)
    assert second.commit != first.commit
    assert push() == first


def test_a_commit_whose_answer_was_lost_is_found(hub: LocalHub, push: Push) -> None:
    hub.faults.append(Fault("/commit/", status=502, after=True, times=1))
    published = push()
    assert [JOB in title for title in titles(hub)] == [True, False]
    assert published.commit == hub.repo("alice/fixed").resolve("main")


def test_a_commit_that_came_between_is_built_upon(
    hub: LocalHub, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub itself answers 412, since the branch has moved after its head was read."""
    real = HfApi.preupload_lfs_files
    between: list[str] = []

    def slow(self: HfApi, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        if not between:
            between.append(hub.put("alice/fixed", {"notes.txt": b"in between"}, private=True))

    monkeypatch.setattr(HfApi, "preupload_lfs_files", slow)
    published = push()
    assert [seen.status for seen in hub.seen if "/commit/" in seen.path] == [412, 200]
    assert [commit.sha for commit in hub.repo("alice/fixed").commits(published.commit)][1] == between[0]


def test_a_hub_that_keeps_failing_is_unavailable(hub: LocalHub, push: Push) -> None:
    hub.faults.append(Fault("/storage/", status=507))
    assert "507" in refusal("hub_unavailable", push).detail
    hub.faults[:] = [Fault("/commit/", status=412)]
    assert "kept changing" in refusal("hub_unavailable", push).detail
    assert titles(hub) == ["initial commit"]


def test_a_pull_request_is_opened_once(hub: LocalHub, push: Push) -> None:
    hub.put("bob/theirs", {"config.json": b"{}"})
    published = push("bob/theirs", create_pr=True)
    assert published.url == f"{hub.endpoint}/bob/theirs/discussions/1"
    assert titles(hub, "bob/theirs") == ["Add files", "initial commit"]
    assert JOB in titles(hub, "bob/theirs", "refs/pr/1")[0]
    hub.faults.append(Fault("/commit/", status=502, after=True, times=1))
    other = push("bob/theirs", create_pr=True, job="e" * 32)
    assert other.url.endswith("/discussions/2")
    assert push("bob/theirs", create_pr=True) == published
    assert len(hub.repo("bob/theirs").meta.pulls) == 2


def test_what_the_hub_refuses_at_the_push_is_told_as_forbidden(hub: LocalHub, push: Push) -> None:
    hub.put("bob/theirs", {"config.json": b"{}"})
    for repo_id in ("bob/theirs", "bob/new"):
        error = refusal("publish_forbidden", partial(push, repo_id, private=False))
        assert error.where == "/publish/repo_id"
    hub.put("alice/open", {"config.json": b"{}"})
    refusal("request_invalid", partial(push, "alice/open"))
    push("alice/open", private=False)


def test_xet_must_be_off_for_other_hubs(push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(RuntimeError, match="environment"):
        push()


def test_peft_loads_what_was_published(hub: LocalHub, hub_settings: WorkerSettings, tmp_path: Path) -> None:
    """In a process of its own, with nothing but the Hub's variables set."""
    trio = build_trio(tmp_path)
    token = hub.accounts.add_token("alice", "write")
    publish(
        Publish(repo_id="alice/fixed"),
        trio.adapter,
        job_id=JOB,
        token=token,
        settings=hub_settings,
        on_progress=ignore,
    )
    script = """
        import sys
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(sys.argv[1])
        loaded = PeftModel.from_pretrained(base, "alice/fixed")
        local = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[1]), sys.argv[2])
        theirs, ours = loaded.state_dict(), local.state_dict()
        assert theirs.keys() == ours.keys() and all(theirs[key].equal(ours[key]) for key in ours)
        assert any("lora_B" in key and ours[key].abs().sum() > 0 for key in ours)
    """
    env = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": token,
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", textwrap.dedent(script), str(trio.base), str(trio.adapter)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# Asking first


@pytest.fixture
def may(hub: LocalHub, hub_settings: WorkerSettings) -> Callable[..., None]:
    """check_can_publish."""
    hub.put("alice/open", {"config.json": b"{}"})
    hub.put("alice/closed", {"config.json": b"{}"}, private=True)
    hub.put("bob/open", {"config.json": b"{}"})
    hub.put("acme/open", {"config.json": b"{}"})
    hub.put("guild/open", {"config.json": b"{}"})
    hub.accounts.add_user("alice", acme="write", guild="contributor", readers="read")

    def call(repo_id: str, token: str | None, *, private: bool = True, create_pr: bool = False) -> None:
        before = len(hub.seen)
        check_can_publish(Publish(repo_id=repo_id, private=private, create_pr=create_pr), token, hub_settings)
        assert all(seen.method == "GET" for seen in hub.seen[before:])

    return call


def test_without_a_valid_writing_token_nothing_starts(hub: LocalHub, may: Callable[..., None]) -> None:
    assert "HF_TOKEN" in refusal("publish_forbidden", partial(may, "alice/new", None)).detail
    refusal("publish_forbidden", partial(may, "alice/new", "hf_" + "0" * 34))
    reader = hub.accounts.add_token("alice", "read")
    assert "'read'" in refusal("publish_forbidden", partial(may, "alice/new", reader)).detail
    refusal("publish_forbidden", partial(may, "alice/new", reader, create_pr=True))


def test_a_writing_token_serves_its_account_and_organisations(
    hub: LocalHub, may: Callable[..., None]
) -> None:
    token = hub.accounts.add_token("alice", "write")
    for repo_id in ("alice/new", "Alice/new", "alice/closed", "acme/new", "guild/new"):
        may(repo_id, token)
    for repo_id in ("alice/open", "acme/open"):
        may(repo_id, token, private=False)
    for repo_id in ("bob/new", "bob/open", "readers/new", "guild/open", "nobody/new"):
        error = refusal("publish_forbidden", partial(may, repo_id, token, private=False))
        assert error.where == "/publish/repo_id"
    may("bob/open", token, create_pr=True)
    refusal("publish_forbidden", partial(may, "bob/new", token, create_pr=True))


def test_a_public_repository_is_not_mistaken_for_a_private_one(
    hub: LocalHub, may: Callable[..., None]
) -> None:
    token = hub.accounts.add_token("alice", "write")
    assert refusal("request_invalid", partial(may, "alice/open", token)).where == "/publish/private"


@pytest.mark.parametrize(
    ("scope", "everywhere", "allowed", "refused"),
    [
        (Scope("user", "alice", ("repo.write",)), (), ["alice/new", "alice/closed"], ["acme/new"]),
        (Scope("org", "acme", ("repo.write",)), (), ["acme/new"], ["alice/new"]),
        (Scope("user", "alice", ("repo.content.read",)), (), [], ["alice/new", "alice/closed"]),
        (Scope("model", "alice/closed", ("repo.write",)), (), ["alice/closed"], ["alice/new"]),
        (Scope("user", "alice", ("repo.content.read",)), ("discussion.write",), [], ["alice/closed"]),
    ],
)
def test_a_fine_grained_token_serves_its_scopes(
    hub: LocalHub,
    may: Callable[..., None],
    scope: Scope,
    everywhere: tuple[str, ...],
    allowed: list[str],
    refused: list[str],
) -> None:
    token = hub.accounts.add_token("alice", "fineGrained", scopes=[scope], everywhere=everywhere)
    for repo_id in allowed:
        may(repo_id, token)
    for repo_id in refused:
        refusal("publish_forbidden", partial(may, repo_id, token))
    offer = partial(may, "bob/open", token, create_pr=True)
    if everywhere:
        offer()
    else:
        refusal("publish_forbidden", offer)


def test_a_hub_that_does_not_answer_is_no_refusal(hub: LocalHub, may: Callable[..., None]) -> None:
    token = hub.accounts.add_token("alice", "write")
    hub.faults.append(Fault("/whoami-v2", status=503))
    refusal("hub_unavailable", partial(may, "alice/new", token))


def test_a_hub_without_the_question_leaves_it_to_the_push(hub: LocalHub, may: Callable[..., None]) -> None:
    token = hub.accounts.add_token("alice", "write")
    hub.faults.append(Fault("/auth-check/write", status=404))
    may("alice/closed", token)
