"""What the tests of fetching share."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from loramend.contracts.errors import ErrorCode, LoramendError
from loramend.contracts.job import Progress
from tests.hub.local import LocalHub

WEIGHTS = save({"base_model.model.q.lora_A.weight": np.ones((2, 8), np.float32)})
CONFIG = json.dumps({"peft_type": "LORA", "r": 2}).encode()
ADAPTER = {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS}
MODEL = save({"model.layers.0.q.weight": np.ones((8, 8), np.float32)})
SHARDS = {
    "config.json": b"{}",
    "one.safetensors": save({"model.layers.0.q.weight": np.ones((4, 4), np.float32)}),
    "two.safetensors": save({"model.layers.1.q.weight": np.ones((4, 4), np.float32)}),
    "model.safetensors.index.json": json.dumps(
        {
            "weight_map": {
                "model.layers.0.q.weight": "one.safetensors",
                "model.layers.1.q.weight": "two.safetensors",
            }
        }
    ).encode(),
    "pytorch_model.bin": b"x",
}


def ignore(progress: Progress) -> None:
    pass


def refusal_of(work: Callable[[], object]) -> LoramendError:
    with pytest.raises(LoramendError) as caught:
        work()
    return caught.value


def refusal(code: ErrorCode, work: Callable[[], object]) -> LoramendError:
    error = refusal_of(work)
    assert error.code == code, str(error)
    return error


def downloads(hub: LocalHub) -> list[str]:
    return [
        seen.path.rsplit("/", 1)[1] for seen in hub.seen if seen.method == "GET" and "/resolve/" in seen.path
    ]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# Adapters
