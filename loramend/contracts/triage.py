"""Triage from weights: an adapter beside a bank of others. Evidence for whoever decides, never a verdict."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.evidence import Rate

StatisticName = Literal[
    "sigma_1",
    "norm",
    "concentration",
    "spectral_entropy",
    "kurtosis",
    "top_rows",
    "row_sparsity",
    "norm_spread",
]

Reason = Literal["statistics", "modules"]


class TriageModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class BankRead(TriageModel):
    """The bank, and how much of it the adapter can be set beside."""

    name: str
    sha256: str
    adapters: int
    comparable: int = Field(
        description="Adapters with the same modules, shapes and ranks, this one itself left out."
    )
    same_base: int = Field(
        description="Those of them that name the same base model; adapters' own words, unchecked."
    )
    other_modules: int = Field(description="Left out: other target modules.")
    other_shapes: int = Field(description="Left out: the same modules of other shapes, so another model.")
    other_ranks: int = Field(description="Left out: the same modules and shapes at other ranks.")
    holds_it: bool = Field(description="Whether the adapter's own weights are in the bank.")


class TriageStatistic(TriageModel):
    """One statistic of the whole adapter beside those of the comparable ones; null where not compared."""

    name: StatisticName
    value: float | None = Field(
        description="norm: over all modules; norm_spread: standard deviation over modules of "
        "‖ΔW‖_F/√(out·in); others: mean over modules."
    )
    low: float | None = Field(default=None, description="The bank's smallest.")
    median: float | None = None
    high: float | None = Field(default=None, description="The bank's largest.")
    scale: float | None = Field(
        default=None,
        description="The bank's interquartile range/1.349: a normal distribution's standard deviation.",
    )
    quantile: float | None = Field(default=None, description="Share of the bank that is not larger.")
    z: float | None = Field(
        default=None, description="(value - median)/scale, held within ±1000; 3.5 and more stands out."
    )


class ModuleOutlier(TriageModel):
    """A module that stands out, by the statistic in which it does most."""

    module: str
    statistic: StatisticName
    value: float
    median: float
    z: float
    beyond: int = Field(description="In how many of the statistics it stands out.")


class PublishedLimit(TriageModel):
    """What others found such statistics can and cannot do."""

    text: str
    source: str


class Triage(TriageModel):
    """`unlike_the_bank` says that the weights are unusual beside the bank's, not why; `within_the_bank` says
    that they are not, and nothing of what the adapter does."""

    verdict: Literal["no_comparison", "within_the_bank", "unlike_the_bank"]
    reasons: list[Reason] = Field(default_factory=list, description="What makes it unlike the bank.")
    bank: BankRead | None = None
    statistics: list[TriageStatistic] = Field(default_factory=list)
    standing_out: list[ModuleOutlier] = Field(
        default_factory=list, description="Modules that stand out, the furthest first."
    )
    held_out_modules: list[int] = Field(
        default_factory=list,
        description="How many modules stand out of each comparable adapter beside the others and this one, "
        "in ascending order.",
    )
    false_positives: Rate | None = Field(
        default=None,
        description="Comparable adapters that the same rule calls unlike the others, each held out.",
    )
    sentences: list[str]
    limits: list[PublishedLimit] = Field(default_factory=list)
