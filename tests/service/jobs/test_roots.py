"""Only folders under a root are taken, whatever links say."""

from pathlib import Path

import pytest

from loramend.contracts.errors import RequestError
from service.jobs.roots import check_model_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("root/model", "root-twin/model", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/file").write_text("")
    (tmp_path / "root/out").symlink_to(tmp_path / "secret")
    (tmp_path / "root/in").symlink_to(tmp_path / "root/model")
    return tmp_path / "root"


def test_folders_under_the_root(root: Path) -> None:
    assert check_model_path(str(root / "model"), [root]) == root / "model"
    assert check_model_path(str(root / "in"), [root]) == root / "model"
    assert check_model_path(str(root / "model/../model"), [root.parent / "none", root]) == root / "model"


@pytest.mark.parametrize(
    "path", ["out", "../secret", "../root-twin/model", "../nowhere", "../root/../secret"]
)
def test_paths_outside_are_refused_alike(root: Path, path: str) -> None:
    messages = set()
    for asked in (f"{root}/{path}", "/etc", "/nowhere/at/all", "~nobody-here/x"):
        with pytest.raises(RequestError) as refused:
            check_model_path(asked, [root], where="/base/path")
        assert refused.value.code == "path_not_allowed"
        messages.add(str(refused.value))
    assert len(messages) == 1


def test_no_roots_no_paths(root: Path) -> None:
    with pytest.raises(RequestError, match="it has none"):
        check_model_path(str(root / "model"), [])


@pytest.mark.parametrize("name", ["file", "missing", "x" * 300, "x/" * 2000])
def test_what_is_no_folder_is_not_found(root: Path, name: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_model_path(str(root / name), [root])
    assert refused.value.code == "reference_not_found"
