"""What a triage says in sentences. They go no further than its numbers."""

from loramend.contracts.evidence import Rate
from loramend.contracts.triage import BankRead, PublishedLimit, StatisticName, Triage
from loramend.evaluation.words import percent

NO_BANK = (
    "No comparison with other adapters was possible: no bank was given. `loramend bank build DIR` makes one "
    "of adapters that you trust."
)
STANDS_OUT = 3.5
"""|z| from which a value counts as an outlier (Iglewicz and Hoaglin 1993)."""
NAMES: dict[StatisticName, str] = {
    "sigma_1": "σ₁, mean over modules",
    "norm": "‖ΔW‖ over all modules",
    "concentration": "σ₁/Σσ, mean",
    "spectral_entropy": "spectral entropy, mean",
    "kurtosis": "kurtosis of entries, mean",
    "top_rows": "share of the top 8 rows, mean",
    "row_sparsity": "row sparsity (Hoyer), mean",
    "norm_spread": "spread of ‖ΔW‖/√(out·in) over modules",
}
OF_MODULE: dict[StatisticName, str] = {
    "sigma_1": "σ₁",
    "norm": "‖ΔW‖",
    "concentration": "σ₁/Σσ",
    "spectral_entropy": "spectral entropy",
    "kurtosis": "kurtosis of entries",
    "top_rows": "share of the top 8 rows",
    "row_sparsity": "row sparsity (Hoyer)",
}
LIMITS = (
    PublishedLimit(
        text="The published detector (σ₁, norm, concentration, entropy and kurtosis beside a bank of benign "
        "adapters) reports 97% accuracy with under 2% false positives, on 500 adapters for one base model.",
        source="arXiv 2602.15195",
    ),
    PublishedLimit(
        text="The spread of norms over modules is reported to separate clean from poisoned classifiers on a "
        "1.5B model.",
        source="arXiv 2605.30189",
    ),
    PublishedLimit(
        text="At 7B the spread of norms of clean and poisoned adapters overlaps, on generative backdoors its "
        "sign is reversed, and an attacker who adapts evades such statistics. What they identify is mostly "
        "the training recipe.",
        source="reported in the literature, not measured here: docs/12-triage.md",
    ),
    PublishedLimit(
        text="Of 18 poisoned adapters 5 stood out from a bank of 6 clean ones for the same two tasks, and of "
        "the clean ones, each beside the other five, 1 did; beside 7 clean ones for one task, none of 9 did "
        "and 1 of the 7. These shares are not apart.",
        source="loramend's own measurement, MiniLM-L6 at rank 8, docs/12-triage.md",
    ),
)
_LISTED = 5


def describe_triage(found: Triage, modules: int, fewest: int) -> list[str]:
    """The sentences of a comparison with a bank, the finding first."""
    read = found.bank
    assert read is not None, "without a bank there is NO_BANK to say"
    if found.verdict == "no_comparison":
        return [
            f"No comparison was possible: of the {read.adapters} adapters in the bank {_count(read)} "
            f"comparable with this one, and at least {fewest} are needed{_left_out(read)}."
        ]
    rate = found.false_positives
    assert rate is not None, "counted wherever there was a comparison"
    return [
        _finding(found),
        f"Compared with {read.comparable} of the {read.adapters} adapters in the bank, those with the same "
        f"modules, shapes and ranks{_left_out(read)}; {_bases(read)}. From {read.comparable} of them nothing "
        f"rarer than one in {read.comparable + 1} can be told.",
        _modules(found, modules),
        _false_positives(rate),
    ]


def _finding(found: Triage) -> str:
    far = [
        f"{NAMES[each.name]} ({each.value:.4g}, the bank's median {each.median:.4g}, z = {each.z:+.1f})"
        for each in sorted(found.statistics, key=lambda each: -abs(each.z or 0.0))
        if each.z is not None and abs(each.z) >= STANDS_OUT
    ]
    told = "; ".join(far)
    if found.verdict == "within_the_bank":
        seen = f" What stands out does so no more than in adapters of the bank: {told}." if far else ""
        return (
            f"The adapter's weights are within what the bank shows.{seen} That says nothing of what it does: "
            "poisoned adapters can lie there too."
        )
    by = [told] if "statistics" in found.reasons else []
    if "modules" in found.reasons:
        by.append("more of its modules stand out than of the bank's adapters")
    return (
        f"The adapter's weights are unlike the bank: {'; '.join(by)}. Another task, recipe or amount of "
        "training does that as well as tampering."
    )


def _modules(found: Triage, modules: int) -> str:
    counts = found.held_out_modules
    told = ", ".join(outlier.module for outlier in found.standing_out[:_LISTED])
    more = len(found.standing_out) - _LISTED
    told += f" and {more} more" if more > 0 else ""
    return (
        f"{len(found.standing_out)} of {modules} modules stand out in a statistic or more"
        f"{f': {told}' if told else ''}. Of the bank's own adapters, each held out, {counts[0]} to "
        f"{counts[-1]} do."
    )


def _false_positives(rate: Rate) -> str:
    return (
        f"The same rule, each of the bank's comparable adapters held out, calls {rate.count} of {rate.n} of "
        f"them unlike the others: {percent(rate)}."
    )


def _count(read: BankRead) -> str:
    return f"{read.comparable} {'is' if read.comparable == 1 else 'are'}"


def _left_out(read: BankRead) -> str:
    parts = [
        f"{count} with other {what}"
        for count, what in (
            (read.other_modules, "modules"),
            (read.other_shapes, "shapes"),
            (read.other_ranks, "ranks"),
        )
        if count
    ]
    if read.holds_it:
        parts.append("this adapter itself, which the bank holds")
    return f" (left out: {', '.join(parts)})" if parts else ""


def _bases(read: BankRead) -> str:
    if read.same_base == read.comparable:
        return "all of them name the same base model as this one"
    return f"{read.same_base or 'none'} of them name{'s' if read.same_base == 1 else ''} the same base model"
