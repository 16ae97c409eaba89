"""Peak memory does not grow with the model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.reference.checkpoints import normal, save_sharded

SIDE = 1024
LAYERS = 16
MATRIX = 4 * SIDE * SIDE  # bytes in float32

SCRIPT = """
import resource, sys, torch
from pathlib import Path
from loramend.reference.open import open_references
from tests.reference.checkpoints import update_of

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

side, layers = int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
M = torch.ones(side, side)
torch.linalg.qr(M @ M[:, :64]), torch.linalg.svd(M[:64, :64])
del M
before = peak()
updates = [update_of(f"layers.{i}.q.weight", (side, side)) for i in range(layers)]
with open_references(Path(sys.argv[1]), Path(sys.argv[2])) as references:
    references.check(updates)
    for update in references.in_order(updates):
        references.base_spectrum(update, 8)
        references.displacement_subspace(update, max_k=8)
        references.base(update)
        references.displacement(update)
    assert sum(entry.bytes for entry in references.read()) == 2 * layers * 2 * side * side
print(peak() - before)
"""


@pytest.mark.e2e
def test_a_few_matrices_are_resident_at_a_time(tmp_path: Path) -> None:
    for seed, role in enumerate(("base", "aligned")):
        shards = [
            {
                f"layers.{i}.q.weight": normal(SIDE, SIDE, seed=1000 * seed + i, dtype=torch.bfloat16)
                for i in range(part, part + 4)
            }
            for part in range(0, LAYERS, 4)
        ]
        save_sharded(tmp_path / role, shards)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "base", tmp_path / "aligned", str(SIDE), str(LAYERS)],
        capture_output=True,
        text=True,
        check=True,
    )
    # Both checkpoints together are 16 matrices in float32: 64 MB.
    assert int(done.stdout) < 6 * MATRIX
