"""A job that trains for seconds, leaving checkpoints. Apart, since making its model takes torch."""

import json
from pathlib import Path

from benchmarks.faults.adapters import packed
from benchmarks.faults.client import Work

CHECKPOINT_EVERY = 10
_STEPS = 250


def make_trained(models: Path) -> Work:
    """The job, with its tiny base model in the folder of local models."""
    from benchmarks.backdoors.bases import quiet
    from tests.text_models import bert_folder, random_adapter, toy_examples

    quiet()
    base = bert_folder(models)
    adapter = random_adapter(base, models / "adapter")
    (adapter / "README.md").unlink(missing_ok=True)
    rows = [json.dumps({"text": text, "label": label}) for text, label in toy_examples(60)]
    step = {"type": "rora", "steps": _STEPS, "batch": 16, "checkpoint_every": CHECKPOINT_EVERY}
    request = {"base": {"path": str(base)}, "steps": [step | {"calibrate": False}]}
    return Work("trained", packed(adapter), request, {"clean": "\n".join(rows).encode()})
