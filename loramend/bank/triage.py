"""An adapter set beside a bank.

Comparable are the bank's adapters with the same modules, shapes and ranks. Each statistic of the whole
adapter, and of each module, gets a robust z against theirs. Two things can make an adapter unlike the bank:
a statistic of the whole that stands out (|z| of STANDS_OUT and more), and the number of its modules that
stand out. Both count only where hardly any of the bank's own does as much, set beside the others and this
one in its stead: none of them, or among many RARE of them. So an adapter like the bank's is called unlike it
with a chance of 2·RARE at most, or of 2 in n + 1, whatever the statistics' distribution. How often the rule
errs on the bank itself is counted: each adapter of it beside the others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from loramend.bank.file import OpenBank
from loramend.bank.quantiles import Array, held_out, spread
from loramend.bank.words import LIMITS, NO_BANK, STANDS_OUT, describe_triage
from loramend.contracts.bank import BankAdapter, ModuleStatistics
from loramend.contracts.evidence import Rate
from loramend.contracts.triage import (
    BankRead,
    ModuleOutlier,
    Reason,
    StatisticName,
    Triage,
    TriageStatistic,
)
from loramend.evaluation.intervals import wilson

RARE = 0.025
"""Share of the adapters that may do as much as one that is unlike them."""
FEWEST = 5
"""Comparable adapters without which no comparison is made."""

_OF_MODULES = tuple(ModuleStatistics.model_fields)
_OF_WHOLE: tuple[StatisticName, ...] = get_args(StatisticName)
assert (*_OF_MODULES, "norm_spread") == _OF_WHOLE

Mismatch = Literal["other_modules", "other_shapes", "other_ranks"]


def without_bank() -> Triage:
    """What can be said where there is nothing to compare with."""
    return Triage(verdict="no_comparison", sentences=[NO_BANK])


def triage(adapter: BankAdapter, opened: OpenBank) -> Triage:
    """What the bank says of the adapter; with too few comparable adapters, that nothing can be said."""
    others = [other for other in opened.bank.adapters if other.sha256 != adapter.sha256]
    why = Counter(mismatch(adapter, other) for other in others)
    peers = [other for other in others if mismatch(adapter, other) is None]
    read = BankRead(
        name=opened.name,
        sha256=opened.sha256,
        adapters=len(opened.bank.adapters),
        comparable=len(peers),
        same_base=sum(
            other.base_model is not None and other.base_model == adapter.base_model for other in peers
        ),
        other_modules=why["other_modules"],
        other_shapes=why["other_shapes"],
        other_ranks=why["other_ranks"],
        holds_it=len(others) < len(opened.bank.adapters),
    )
    if len(peers) < FEWEST:
        values = _of_whole(_table([adapter]), _areas(adapter))[0]
        found = Triage(
            verdict="no_comparison",
            bank=read,
            statistics=[
                TriageStatistic(name=name, value=_known(value))
                for name, value in zip(_OF_WHOLE, values, strict=True)
            ],
            sentences=[],
            limits=list(LIMITS),
        )
    else:
        found = _compared(adapter, peers, read)
    return found.model_copy(update={"sentences": describe_triage(found, len(adapter.modules), FEWEST)})


def mismatch(adapter: BankAdapter, other: BankAdapter) -> Mismatch | None:
    """Why the two cannot be compared; None where they can. The base model's name does not count: it is the
    adapters' own word, and a stranger's adapter could choose its company by it."""
    mine, theirs = ({module.name: module for module in each.modules} for each in (adapter, other))
    if mine.keys() != theirs.keys():
        return "other_modules"
    if any(module.shape != theirs[name].shape for name, module in mine.items()):
        return "other_shapes"
    if any(module.rank != theirs[name].rank for name, module in mine.items()):
        return "other_ranks"
    return None


@dataclass(frozen=True)
class Mutual:
    """Comparable adapters, each beside all the others.

    whole    the largest |z| of its statistics of the whole (n,)
    modules  how many modules stand out (n,)
    """

    whole: Array
    modules: Array

    def reasons(self, index: int) -> list[Reason]:
        """Why one is unlike the others: a statistic of the whole, the number of modules; none where it is
        not."""
        allowed = max(1, int(RARE * len(self.whole)))
        as_far, as_many = (int((each >= each[index]).sum()) - 1 for each in (self.whole, self.modules))
        found: list[Reason] = []
        if self.whole[index] >= STANDS_OUT and as_far < allowed:
            found.append("statistics")
        if as_many < allowed:
            found.append("modules")
        return found

    def called_unlike(self) -> Rate:
        """How many of them are."""
        n = len(self.modules)
        return wilson(sum(bool(self.reasons(index)) for index in range(n)), n)


def mutual(adapters: Sequence[BankAdapter]) -> Mutual:
    """Of at least three comparable adapters."""
    table = _table(adapters)
    whole = np.abs(held_out(_filled(_of_whole(table, _areas(adapters[0]))))).max(axis=1)
    modules = np.abs(held_out(_filled(table)))
    return Mutual(whole, (modules >= STANDS_OUT).any(axis=2).sum(axis=1).astype(np.float64))


def _compared(adapter: BankAdapter, peers: Sequence[BankAdapter], read: BankRead) -> Triage:
    table = _table([adapter, *peers])  # (1 + n, modules, statistics)
    whole = _of_whole(table, _areas(adapter))
    statistics = [
        _statistic(name, _known(column[0]), column[1:])
        for name, column in zip(_OF_WHOLE, whole.T, strict=True)
    ]
    filled = _filled(table)
    around = spread(filled[1:])
    z = around.z(filled[0])  # (modules, statistics)
    standing_out = []
    for index in np.flatnonzero((np.abs(z) >= STANDS_OUT).any(axis=1)):
        most = int(np.abs(z[index]).argmax())
        standing_out.append(
            ModuleOutlier(
                module=adapter.modules[index].name,
                statistic=_OF_WHOLE[most],
                value=float(filled[0, index, most]),
                median=float(around.median[index, most]),
                z=float(z[index, most]),
                beyond=int((np.abs(z[index]) >= STANDS_OUT).sum()),
            )
        )
    together = mutual([adapter, *peers])
    reasons = together.reasons(0)
    return Triage(
        verdict="unlike_the_bank" if reasons else "within_the_bank",
        reasons=reasons,
        bank=read,
        statistics=statistics,
        standing_out=sorted(standing_out, key=lambda outlier: (-abs(outlier.z), outlier.module)),
        held_out_modules=sorted(int(count) for count in together.modules[1:]),
        false_positives=mutual(peers).called_unlike(),
        sentences=[],
        limits=list(LIMITS),
    )


def statistics_of(adapters: Sequence[BankAdapter]) -> list[TriageStatistic]:
    """How the statistics of comparable adapters are distributed."""
    whole = _of_whole(_table(adapters), _areas(adapters[0]))
    return [_statistic(name, None, column) for name, column in zip(_OF_WHOLE, whole.T, strict=True)]


def _statistic(name: StatisticName, value: float | None, sample: Array) -> TriageStatistic:
    if np.isnan(sample).any():
        return TriageStatistic(name=name, value=value)
    around = spread(sample)
    return TriageStatistic(
        name=name,
        value=value,
        low=float(sample.min()),
        median=float(around.median),
        high=float(sample.max()),
        scale=float(around.scale),
        quantile=None if value is None else float((sample <= value).mean()),
        z=None if value is None else float(around.z(np.asarray(value))),
    )


def _table(adapters: Sequence[BankAdapter]) -> Array:
    """(adapters, modules, statistics), modules in the first adapter's order; nan where not defined."""
    names = [module.name for module in adapters[0].modules]
    rows = []
    for adapter in adapters:
        by_name = {module.name: module.statistics for module in adapter.modules}
        rows.append([[getattr(by_name[name], each) for each in _OF_MODULES] for name in names])
    return np.array(rows, dtype=np.float64)


def _areas(adapter: BankAdapter) -> Array:
    """out·in of each module."""
    return np.array([float(module.shape[0]) * module.shape[1] for module in adapter.modules])


def _of_whole(table: Array, areas: Array) -> Array:
    """(adapters, statistics): `TriageStatistic.value`; means are over the modules where it is defined."""
    known = ~np.isnan(table)
    counts = known.sum(axis=1)
    means = np.where(known, table, 0.0).sum(axis=1) / np.maximum(counts, 1)
    means[counts == 0] = np.nan
    norms = table[:, :, _OF_MODULES.index("norm")]
    means[:, _OF_MODULES.index("norm")] = np.sqrt(np.square(norms).sum(axis=1))
    return np.column_stack([means, (norms / np.sqrt(areas)).std(axis=1)])


def _filled(table: Array) -> Array:
    """Columns with a value that is not defined are made equal, so that nobody stands out by them: where one
    adapter has no update, its norm tells."""
    unknown = np.isnan(table).any(axis=0)
    return np.where(unknown, 0.0, table)


def _known(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)
