"""Adapters for banks: made-up statistics, and small files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults.adapters import make_adapter
from loramend.bank.file import OpenBank
from loramend.contracts.bank import Bank, BankAdapter, BankModule, ModuleStatistics
from loramend.contracts.report import FileDigest


def described(
    name: str,
    *,
    seed: int = 0,
    modules: int = 3,
    shape: tuple[int, int] = (32, 16),
    rank: int = 4,
    base: str | None = "org/base",
    factor: float = 1.0,
) -> BankAdapter:
    """Statistics around those of others with the same modules; `factor` multiplies the norms."""
    random = np.random.default_rng(seed)

    def near(value: float) -> float:
        return float(value * random.uniform(0.9, 1.1))

    return BankAdapter(
        name=name,
        base_model=base,
        files=(
            FileDigest(
                path="adapter_model.safetensors", sha256=hashlib.sha256(name.encode()).hexdigest(), size=1
            ),
        ),
        modules=tuple(
            BankModule(
                name=f"layers.{index}.q_proj",
                shape=shape,
                rank=rank,
                statistics=ModuleStatistics(
                    sigma_1=near(factor),
                    norm=near(1.5 * factor),
                    concentration=near(0.4),
                    spectral_entropy=near(1.2),
                    kurtosis=near(4.0),
                    top_rows=near(0.3),
                    row_sparsity=near(0.2),
                ),
            )
            for index in range(modules)
        ),
    )


def opened(adapters: Sequence[BankAdapter]) -> OpenBank:
    return OpenBank("bank.json", "b" * 64, Bank(adapters=tuple(adapters)))


def many(count: int) -> list[BankAdapter]:
    return [described(f"a{index}", seed=index) for index in range(count)]


def write_adapter(
    folder: Path, *, seed: int = 0, rank: int = 4, size: int = 32, scale: float = 1.0, base: str = "org/base"
) -> Path:
    """A PEFT folder of two modules."""
    return make_adapter(folder, seed=seed, rank=rank, size=size, scale=scale, base=base)
