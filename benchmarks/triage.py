"""What triage from weights tells of adapters whose poison is known.

Builds a bank of a folder of clean adapters, sets each of them beside the others, and each of a folder of
suspected ones beside all of them; prints how many of either are called unlike the bank and, for each
statistic, how often it stands out and its AUC: the chance that |z| of a suspected adapter exceeds that of a
held-out clean one, 0.5 where it tells nothing.

    python -m benchmarks.triage CLEAN SUSPECTED
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loramend.bank.build import build_bank
from loramend.bank.file import OpenBank
from loramend.bank.triage import triage
from loramend.bank.words import NAMES, STANDS_OUT
from loramend.contracts.bank import Bank
from loramend.contracts.triage import Triage
from loramend.evaluation.intervals import wilson
from loramend.evaluation.words import percent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clean", type=Path, help="a folder of adapters to trust")
    parser.add_argument("suspected", type=Path, help="a folder of adapters to set beside them")
    given = parser.parse_args()
    clean, suspected = (_bank(folder) for folder in (given.clean, given.suspected))
    # A clean adapter is left out of the bank it is itself set beside.
    opened = OpenBank("clean", "0" * 64, clean)
    groups = {
        "clean, each beside the others": [triage(each, opened) for each in clean.adapters],
        "suspected": [triage(each, opened) for each in suspected.adapters],
    }
    names = [each.name for bank in (clean, suspected) for each in bank.adapters]
    for name, found in zip(names, (one for group in groups.values() for one in group), strict=True):
        scores = " ".join(f"{_z(found, index):6.1f}" for index in range(len(NAMES)))
        print(f"{name:<32}{found.verdict:<18}{scores}  {len(found.standing_out):3d} modules")
    print()
    for group, told in groups.items():
        compared = [each for each in told if each.verdict != "no_comparison"]
        unlike = sum(each.verdict == "unlike_the_bank" for each in compared)
        rate = percent(wilson(unlike, len(compared))) if compared else "none could be compared"
        print(f"{group}: {unlike} of {len(compared)} unlike the bank: {rate}")
    print(f"\n{'statistic':<44}{'clean out':>10}{'suspected out':>15}{'AUC':>6}")
    for index, title in enumerate(NAMES.values()):
        held, given_z = ([abs(_z(each, index)) for each in told] for told in groups.values())
        out = [f"{sum(z >= STANDS_OUT for z in zs)} of {len(zs)}" for zs in (held, given_z)]
        print(f"{title:<44}{out[0]:>10}{out[1]:>15}{auc(given_z, held):>6.2f}")


def _bank(folder: Path) -> Bank:
    with tempfile.TemporaryDirectory() as scratch:
        bank, skipped = build_bank(folder, Path(scratch))
    for each in skipped:
        print(f"left out: {each.name}: {each.detail}")
    return bank


def _z(found: Triage, index: int) -> float:
    z = found.statistics[index].z
    return float("nan") if z is None else z


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that one of `positive` exceeds one of `negative`, ties by half."""
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


if __name__ == "__main__":
    main()
