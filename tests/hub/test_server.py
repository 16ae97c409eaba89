"""The test hub against the real client, so that what other tests find is the project's, not the hub's."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.accounts import Scope
from tests.hub.faults import Fault
from tests.hub.local import LocalHub

pytestmark = [
    pytest.mark.e2e,
    # huggingface_hub 2.4 uploads large files in a way that httpx2 2.16 has deprecated
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


CARD = b"---\ntags: [lora]\n---\n"


@pytest.fixture
def alice(hub: LocalHub) -> HfApi:
    hub.accounts.add_user("alice", acme="write", readers="read", guild="contributor")
    return HfApi(hub.endpoint, token=hub.accounts.add_token("alice", "write"))


def test_a_pushed_folder_comes_back_whole(hub: LocalHub, alice: HfApi, tmp_path: Path) -> None:
    files = {
        "README.md": b"---\ntags: [lora]\n---\n",
        "w.safetensors": bytes(range(256)) * 999,
        "sub/a.json": b"{}",
    }
    for name, content in files.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(content)
    alice.create_repo("alice/lora", private=True)
    alice.create_repo("alice/lora", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_repo("alice/lora")
    info = alice.upload_folder(repo_id="alice/lora", folder_path=tmp_path / "up", commit_message="All of it")
    cache = tmp_path / "cache"
    down = Path(snapshot_download("alice/lora", endpoint=hub.endpoint, token=alice.token, cache_dir=cache))
    assert {name: (down / name).read_bytes() for name in files} == files
    assert down.name == info.oid
    assert [commit.title for commit in alice.list_repo_commits("alice/lora")] == [
        "All of it",
        "initial commit",
    ]
    again = alice.upload_folder(repo_id="alice/lora", folder_path=tmp_path / "up", path_in_repo="copy")
    assert again.oid != info.oid
    uploads = [seen for seen in hub.seen if seen.method == "PUT"]
    assert len(uploads) == 1, "the copy's large file was there already"


def test_branches_tags_pages_and_stale_parents(hub: LocalHub, alice: HfApi) -> None:
    first = hub.put("acme/model", {"config.json": b"1"})
    alice.create_tag("acme/model", tag="v1")
    alice.create_branch("acme/model", branch="next")
    for number in range(60):
        second = hub.put("acme/model", {"config.json": f"{number}".encode()})
    refs = alice.list_repo_refs("acme/model")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": second, "next": first}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", first)]
    assert alice.model_info("acme/model", revision="v1").sha == first
    assert len(alice.list_repo_commits("acme/model")) == 62
    add = [CommitOperationAdd("x.json", b"{}")]
    with pytest.raises(HfHubHTTPError, match="412"):
        alice.create_commit("acme/model", add, commit_message="late", parent_commit=first)
    with pytest.raises(RevisionNotFoundError):
        alice.model_info("acme/model", revision="v2")


def test_pull_requests(hub: LocalHub, alice: HfApi) -> None:
    hub.put("someone/model", {"config.json": b"{}"})
    add = [CommitOperationAdd("extra.json", b"{}")]
    with pytest.raises(HfHubHTTPError, match="403"):
        alice.create_commit("someone/model", add, commit_message="Push it")
    info = alice.create_commit("someone/model", add, commit_message="Offer it", create_pr=True)
    assert info.pr_revision == "refs/pr/1"
    [offer] = alice.get_repo_discussions("someone/model", discussion_type="pull_request")
    assert (offer.title, offer.author, offer.status) == ("Offer it", "alice", "open")
    assert alice.list_repo_commits("someone/model", revision="refs/pr/1")[0].commit_id == info.oid
    assert "extra.json" not in alice.list_repo_files("someone/model")
    assert "extra.json" in alice.list_repo_files("someone/model", revision="refs/pr/1")


def test_who_sees_and_writes_what(hub: LocalHub, alice: HfApi) -> None:
    hub.put("bob/secret", {"config.json": b"{}"}, private=True)
    hub.put("bob/gated", {"config.json": b"{}"}, gated="manual")
    hub.put("acme/team", {"config.json": b"{}"})
    hub.put("readers/team", {"config.json": b"{}"})
    anonymous = HfApi(hub.endpoint, token=False)
    for api in (anonymous, alice):
        with pytest.raises(RepositoryNotFoundError):
            api.auth_check("bob/secret")
        with pytest.raises(GatedRepoError):
            api.auth_check("bob/gated")
        assert api.model_info("bob/gated").gated == "manual"
    alice.auth_check("acme/team", write=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        alice.auth_check("readers/team", write=True)
    alice.create_repo("guild/mine")
    alice.auth_check("guild/mine", write=True)
    scope = Scope("model", "alice/one", ("repo.write",))
    narrow = HfApi(hub.endpoint, token=hub.accounts.add_token("alice", "fineGrained", scopes=[scope]))
    narrow.create_repo("alice/one")
    with pytest.raises(HfHubHTTPError, match="403"):
        narrow.create_repo("alice/two")
    access = narrow.whoami()["auth"]["accessToken"]
    assert access["fineGrained"]["scoped"][0]["permissions"] == ["repo.write"]


def test_faults_strike_as_often_as_asked(hub: LocalHub, alice: HfApi) -> None:
    hub.put("acme/model", {"config.json": b"{}"})
    hub.faults.append(Fault("/api/models", status=503, times=1, skip=1))
    alice.model_info("acme/model")
    with pytest.raises(HfHubHTTPError, match="503"):
        alice.model_info("acme/model")
    alice.model_info("acme/model")
