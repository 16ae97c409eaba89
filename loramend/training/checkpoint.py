"""A training run's state in one safetensors file, so that a killed run goes on where it was.

The file holds the trained parameters and the optimiser's moments, and in its metadata a journal
as JSON. There is no generator to save: every step's draws come from the seed and the step's number (loop.py).
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loramend.adapter.serialize import write_safetensors
from loramend.contracts.evidence import LossPoint
from loramend.training.session import Checkpoints


class Journal(BaseModel):
    """What a run tells of itself beside its weights.

    since      sums over the steps since the curve's last point, by term, `loss` among them
    resumed_at steps at which it went on from a checkpoint
    seconds    spent in training, over all processes
    """

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    curve: list[LossPoint] = []
    since: dict[str, float] = {}
    since_steps: int = 0
    since_seconds: float = 0.0
    resumed_at: list[int] = []
    seconds: float = 0.0


@dataclass(frozen=True)
class State:
    """parameters by name; moments by parameter and AdamW's own key (step, exp_avg, exp_avg_sq)."""

    parameters: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    journal: Journal = field(default_factory=Journal)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_state(checkpoints: Checkpoints, key: str, state: State) -> None:
    """Keep the state as the run's newest checkpoint."""
    tensors = {f"parameter/{name}": tensor for name, tensor in state.parameters.items()}
    for name, moments in state.moments.items():
        tensors |= {f"moment/{part}/{name}": tensor for part, tensor in moments.items()}
    with tempfile.TemporaryDirectory(prefix="loramend-") as folder:
        path = Path(folder) / f"{key}.safetensors"
        metadata = {"key": key, "sha256": tensors_digest(tensors), "journal": state.journal.model_dump_json()}
        write_safetensors(tensors, metadata, path)
        checkpoints.save(key, path)


def load_state(checkpoints: Checkpoints, key: str, like: Mapping[str, Tensor]) -> State | None:
    """The run's newest state; None where there is none, or none that fits: another run's, a damaged one, or
    one whose tensors differ from the parameters `like` in name or shape."""
    path = checkpoints.load(key)
    if path is None:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        journal = Journal.model_validate_json(metadata["journal"])
    except (OSError, SafetensorError, KeyError, ValidationError):
        return None
    if metadata.get("key") != key or metadata.get("sha256") != tensors_digest(tensors):
        return None
    parameters: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        kind, _, name = full.partition("/")
        if kind == "parameter":
            parameters[name] = tensor
        else:
            part, _, name = name.partition("/")
            moments.setdefault(name, {})[part] = tensor
    fits = parameters.keys() == like.keys() and all(
        parameters[name].shape == tensor.shape for name, tensor in like.items()
    )
    return State(parameters, moments, journal) if fits else None


class FolderCheckpoints:
    """Checkpoints in a local folder, one file a run, each replacing the one before at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: str) -> Path | None:
        """The run's file, if it is there."""
        path = self._folder / f"{key}.safetensors"
        return path if path.is_file() else None

    def save(self, key: str, path: Path) -> None:
        """Copy the file in, under its name only when complete."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{key}.partial"
        try:
            shutil.copyfile(path, partial)
            partial.replace(self._folder / f"{key}.safetensors")
        finally:
            partial.unlink(missing_ok=True)
