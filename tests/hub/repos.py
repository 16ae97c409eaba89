"""Model and dataset repositories on disk: real git, with large files beside them as git-lfs keeps them."""

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".ckpt", ".gguf", ".onnx", ".h5", ".zip", ".gz")
LFS_SIZE = 10 * 1024 * 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)


Kind = Literal["models", "datasets"]


@dataclass(frozen=True)
class Entry:
    """A file in a commit. `size` is the content's; `lfs` its sha256, None for files kept in git itself."""

    path: str
    oid: str
    size: int
    lfs: str | None
    pointer_size: int


@dataclass(frozen=True)
class Commit:
    sha: str
    author: str
    date: str
    title: str
    message: str


@dataclass
class Pull:
    """A pull request, whose commits lie under refs/pr/<num>."""

    num: int
    title: str
    author: str
    created_at: str
    status: str = "open"


@dataclass
class Meta:
    creator: str = "system"
    private: bool = False
    gated: str | bool = False
    allowed: list[str] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)


class StaleParentError(Exception):
    """The branch no longer points to the parent that the commit was made for."""


def wants_lfs(path: str, size: int) -> bool:
    """Whether the Hub keeps such a file with git-lfs."""
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


class Repo:
    """One repository at <root>/<kind>/<namespace>/<name>, never checked out."""

    def __init__(self, root: Path, repo_id: str, kind: Kind = "models") -> None:
        self.repo_id = repo_id
        self.path = root / kind / repo_id
        self._meta = self.path / ".git" / "hub.json"

    def exists(self) -> bool:
        return self._meta.is_file()

    def create(self, creator: str, *, private: bool = False) -> None:
        """An empty repository but for the first commit, as the Hub makes it."""
        self.path.mkdir(parents=True)
        self._git("init", "--quiet", "--initial-branch=main")
        self.write_meta(Meta(creator, private))
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        self.commit(
            "refs/heads/main", None, {".gitattributes": attributes.encode()}, {}, [], "initial commit"
        )

    @property
    def meta(self) -> Meta:
        raw = json.loads(self._meta.read_text())
        return Meta(**{**raw, "pulls": [Pull(**pull) for pull in raw["pulls"]]})

    def write_meta(self, meta: Meta) -> None:
        self._meta.write_text(json.dumps(asdict(meta)))

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, full ref or (short) commit names."""
        if re.fullmatch(r"[0-9a-f]{7,40}", revision) or revision.startswith("refs/"):
            names = [revision]
        else:
            names = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        for name in names:
            found = (
                self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
                .decode()
                .strip()
            )
            if found:
                return found
        return None

    def refs(self) -> dict[str, str]:
        """Every ref by its full name, with its commit."""
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)").decode().splitlines()
        return dict(line.split(" ") for line in lines)

    def set_ref(self, ref: str, sha: str) -> None:
        self._git("update-ref", ref, sha)

    def entries(self, sha: str) -> list[Entry]:
        """Every file of a commit."""
        found = []
        for line in self._git("ls-tree", "-r", "-l", "-z", sha).decode().split("\0")[:-1]:
            head, path = line.split("\t", 1)
            _, _, oid, size = head.split()
            pointer = _POINTER.fullmatch(self.blob(oid)) if 120 < int(size) < 150 else None
            if pointer:
                found.append(Entry(path, oid, int(pointer[2]), pointer[1].decode(), int(size)))
            else:
                found.append(Entry(path, oid, int(size), None, 0))
        return found

    def blob(self, oid: str) -> bytes:
        return self._git("cat-file", "blob", oid)

    def lfs_path(self, sha256: str) -> Path:
        return self.path / ".git" / "lfs" / "objects" / sha256[:2] / sha256[2:4] / sha256

    def store_lfs(self, content: bytes) -> str:
        """Keep a large file; returns its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.lfs_path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return sha256

    def commits(self, sha: str) -> list[Commit]:
        """The history of a commit, newest first."""
        date = "--date=format-local:%Y-%m-%dT%H:%M:%S.000Z"
        log = self._git("log", date, "--format=%H%x00%an%x00%ad%x00%s%x00%b%x1e", sha).decode()
        fields = (record.strip("\n").split("\0") for record in log.split("\x1e")[:-1])
        return [Commit(sha, author, date, title, body.strip()) for sha, author, date, title, body in fields]

    def commit(
        self,
        ref: str,
        parent: str | None,
        files: Mapping[str, bytes],
        large: Mapping[str, tuple[str, int]],
        deleted: Sequence[str],
        title: str,
        description: str = "",
        author: str = "system",
        *,
        force: bool = False,
    ) -> str:
        """One commit on top of `parent`; `large` gives sha256 and size of files stored before.

        Raises StaleParentError where `ref` has moved since (with `force`, it is set whatever it was).
        """
        pointers = {
            path: f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
            for path, (sha256, size) in large.items()
        }
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            if parent:
                self._git("read-tree", parent, env=env)
            for path, content in {**files, **pointers}.items():
                oid = self._git("hash-object", "-w", "--stdin", stdin=content).decode().strip()
                self._git("update-index", "--add", "--cacheinfo", f"100644,{oid},{path}", env=env)
            for path in deleted:
                self._git("rm", "--quiet", "--cached", "-r", "--ignore-unmatch", "--", path, env=env)
            tree = self._git("write-tree", env=env).decode().strip()
        message = f"{title}\n\n{description}\n" if description else f"{title}\n"
        names = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", author), ("EMAIL", f"{author}@hub.test"))
        }
        parents = ["-p", parent] if parent else []
        sha = self._git("commit-tree", tree, *parents, stdin=message.encode(), env=names).decode().strip()
        try:
            self._git("update-ref", ref, sha, *([] if force else [parent or "0" * 40]))
        except subprocess.CalledProcessError as error:
            raise StaleParentError(ref) from error
        return sha

    def _git(
        self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, check: bool = True
    ) -> bytes:
        clean = {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "TZ": "UTC",
            "PATH": os.environ["PATH"],
        }
        return subprocess.run(
            ["git", "-C", str(self.path), *args],
            input=stdin,
            env={**clean, **(env or {})},
            check=check,
            capture_output=True,
        ).stdout
