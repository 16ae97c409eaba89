"""A model's weights on disk, read one tensor at a time."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from loramend.adapter.header import read_header
from loramend.adapter.limits import Limits
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError, ReferenceModelError
from loramend.reference.digests import DigestMemo, FileState
from loramend.reference.layout import WeightFile, find_weights

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

# A mixture of experts may spell out every expert: more tensors and a longer header than any adapter.
LIMITS = Limits(max_header_bytes=100 << 20, max_tensors=4_000_000)

# Small enough to be hashed while still in the processor's cache.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file, or one slice of its first dimension.

    name        in the model, `name[3]` for slice 3
    order       of the file among the model's files
    dtype       as safetensors spells it
    begin, end  bytes in the file
    state       of the file when its header was read
    """

    name: str
    file: WeightFile
    order: int
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    state: FileState

    def slice(self, index: int) -> "Stored":
        """Slice `index` of the first dimension."""
        size = self.size // self.shape[0]
        begin = self.begin + index * size
        return replace(
            self, name=f"{self.name}[{index}]", shape=self.shape[1:], begin=begin, end=begin + size
        )

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.begin

    @property
    def place(self) -> tuple[str, int, int]:
        """The bytes themselves: links followed, so the same in two models that share a file."""
        return self.state.realpath, self.begin, self.end


class Checkpoint:
    """A lazy reader over a model folder or file.

    Opening it lists names; a header is parsed when a tensor of its file is first asked for, and bytes are
    read by `read` alone, into plain memory (a mapped file would count as resident). Every error
    names the file and, where there is one, the tensor, under `role` (base or aligned). Format faults raise
    ReferenceModelError `reference_invalid`."""

    def __init__(self, model: Path, *, role: str, memo: DigestMemo) -> None:
        try:
            layout = find_weights(model)
        except ReferenceModelError as error:
            raise ReferenceModelError(error.code, error.detail, where=f"{role}/{error.where}") from None
        self.role = role
        self.tied = layout.tied
        self.conv1d = layout.conv1d
        self._memo = memo
        self._files = layout.files
        self._headers: dict[int, Mapping[str, Stored]] = {}
        self._file_of: dict[str, int] = {}
        for order, file in enumerate(self._files):
            names = [f"{file.prefix}{name}" for name in file.named] if file.named else self._header(order)
            for name in names:
                if name in self._file_of:
                    raise self._invalid(
                        f"{self._files[self._file_of[name]].label} holds a tensor of this name too: give "
                        "a folder "
                        "with one copy of the weights.",
                        file,
                        name,
                    )
                self._file_of[name] = order

    @property
    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._file_of)

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def find(self, name: str) -> Stored:
        """Where the tensor called exactly `name` lies; KeyError where there is none."""
        order = self._file_of[name]
        stored = self._header(order).get(name)
        if stored is None:
            raise self._invalid(
                "The index says this tensor is here but it is not: download the model again.",
                self._files[order],
                name,
            )
        return stored

    def digest(self, stored: Stored) -> str | None:
        """SHA-256 of the tensor's bytes if it is known without reading them."""
        try:
            state = FileState.of(stored.file.path)
        except OSError:
            return None
        return self._memo.get(state, stored.begin, stored.end)

    def read(self, stored: Stored, buffer: Tensor | None = None) -> tuple[Tensor, str]:
        """The tensor in its own dtype and shape, and the SHA-256 of its bytes.

        buffer  memory to read into, uint8 and of the tensor's size in bytes; fresh memory where None
        """
        dtype = DTYPES.get(stored.dtype)
        if dtype is None:
            raise self._invalid(
                f"Its dtype is {stored.dtype}: give the unquantised model, in F64, F32, F16 or BF16.",
                stored.file,
                stored.name,
            )
        if buffer is None:
            buffer = torch.empty(stored.size, dtype=torch.uint8)
        try:
            sha256 = self._fill(stored, buffer.numpy().data)
        except OSError as error:
            raise self._invalid(_unreadable(error), stored.file, stored.name) from None
        return buffer.view(dtype).view(stored.shape), sha256

    def _fill(self, stored: Stored, view: memoryview) -> str:
        """Read the tensor's bytes into `view`; their SHA-256."""
        with stored.file.path.open("rb", buffering=0) as file:
            state = FileState.of(stored.file.path, file.fileno())
            known = self._memo.get(state, stored.begin, stored.end)
            sha256 = hashlib.sha256()
            done = 0
            while done < len(view):
                chunk = view[done : done + CHUNK_BYTES]
                got = os.preadv(file.fileno(), [chunk], stored.begin + done)
                if got == 0:
                    raise self._invalid(
                        "The file ended in this tensor: download the model again.", stored.file, stored.name
                    )
                if known is None:
                    sha256.update(chunk[:got])
                done += got
            if state != stored.state or FileState.of(stored.file.path, file.fileno()) != state:
                raise self._invalid("The file changed while it was in use.", stored.file, stored.name)
        if known is None:
            known = sha256.hexdigest()
            self._memo.put(state, stored.begin, stored.end, known)
        return known

    def _header(self, order: int) -> Mapping[str, Stored]:
        if order not in self._headers:
            file = self._files[order]
            try:
                state = FileState.of(file.path)
                header = read_header(file.path, LIMITS)
            except AdapterError as error:
                tensor = error.where.partition("#")[2] if error.where else ""
                raise self._invalid(_reworded(error), file, tensor) from None
            except OSError as error:
                # Shards that hold nothing needed may be absent: a download leaves them out.
                raise self._invalid(_unreadable(error), file) from None
            # The header is checked to be followed by its tensors and nothing else.
            start = state.size - max((info.end for info in header.tensors.values()), default=0)
            self._headers[order] = {
                f"{file.prefix}{name}": Stored(
                    name=f"{file.prefix}{name}",
                    file=file,
                    order=order,
                    dtype=info.dtype,
                    shape=info.shape,
                    begin=start + info.begin,
                    end=start + info.end,
                    state=state,
                )
                for name, info in header.tensors.items()
            }
        return self._headers[order]

    def _invalid(self, detail: str, file: WeightFile, tensor: str = "") -> ReferenceModelError:
        where = f"{self.role}/{quote(file.label)}" + (f"#{quote(tensor)}" if tensor else "")
        return ReferenceModelError("reference_invalid", detail, where=where)


def _unreadable(error: OSError) -> str:
    return f"It cannot be read ({error.strerror}): download the model again."


def _reworded(error: AdapterError) -> str:
    if error.code == "pickle_refused":
        return (
            "That is a pickle under another name, and pickled weights are never opened. Convert it where "
            "you trust it: "
            "AutoModel.from_pretrained(path).save_pretrained(new_path) writes safetensors."
        )
    return error.detail.replace("Send a complete file", "Download the model again")
