"""A bank's adapters by what they can be compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from loramend.bank.triage import FEWEST, mutual, statistics_of
from loramend.contracts.bank import Bank, BankAdapter
from loramend.contracts.evidence import Rate
from loramend.contracts.triage import TriageStatistic


@dataclass(frozen=True)
class Group:
    """Comparable adapters, what their statistics are like, and how many of them the rule calls unlike the
    others; None where they are too few to tell."""

    adapters: tuple[BankAdapter, ...]
    statistics: tuple[TriageStatistic, ...]
    false_positives: Rate | None


def groups(bank: Bank) -> list[Group]:
    """The largest first."""
    alike: dict[tuple[tuple[object, ...], ...], list[BankAdapter]] = {}
    for adapter in bank.adapters:
        key = tuple(sorted((module.name, *module.shape, module.rank) for module in adapter.modules))
        alike.setdefault(key, []).append(adapter)
    return [_group(members) for members in sorted(alike.values(), key=len, reverse=True)]


def _group(members: Sequence[BankAdapter]) -> Group:
    rate = mutual(members).called_unlike() if len(members) >= FEWEST else None
    return Group(tuple(members), tuple(statistics_of(members)), rate)
