"""What determines a training run, as one digest: a checkpoint serves no other run."""

import hashlib
import json
from importlib import metadata

from loramend.adapter.model import Adapter
from loramend.contracts.data_steps import RoraStep
from loramend.training.checkpoint import tensors_digest
from loramend.training.host import Host
from loramend.training.session import Session

_PACKAGES = ("loramend", "torch", "transformers", "numpy")
_SAMPLED = 64


def run_key(session: Session, adapter: Adapter, params: RoraStep, step_index: int) -> str:
    """The sha256 of everything a run's weights depend on: adapters, base, text, settings, seed, versions and
    the kind of device, with mixed precision or without."""
    told = {
        "adapter": _adapter_digest(adapter),
        "given": _adapter_digest(session.given),
        "base": _base_digest(session.host),
        "data": session.digest,
        "threat": session.threat,
        "seed": session.seed,
        "step": step_index,
        "params": params.model_dump(mode="json"),
        "device": [session.host.device.type, session.host.amp],
        "versions": {name: metadata.version(name) for name in _PACKAGES},
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _adapter_digest(adapter: Adapter) -> str:
    """Of an adapter's tensors and scales, as they are in memory."""
    tensors = dict(adapter.passthrough)
    for name, update in adapter.updates.items():
        tensors |= {f"{name} A": update.A, f"{name} B {update.scale!r}": update.B}
    return tensors_digest(tensors)


def _base_digest(host: Host) -> str:
    """Of a sample of each target weight: all of them would take longer to read than a checkpoint saves."""
    sampled = {}
    for name, layer in host.layers.items():
        flat = layer.weight.detach().reshape(-1)
        sampled[name] = flat[:: max(1, flat.numel() // _SAMPLED)].cpu()
    return tensors_digest(sampled)
