"""Two adapters side by side: one versioned schema.

Notation, per module: ΔA and ΔB are the two updates s·BA of one weight matrix. Every number is exact and
taken in factor space.
"""

from typing import Literal

from pydantic import Field

from loramend.contracts.report import (
    AdapterSummary,
    BaseComparison,
    Provenance,
    ReferenceRead,
    ReportModel,
    Spectrum,
)


class Side(ReportModel):
    """One of the two updates."""

    rank: int
    scale: float = Field(description="s, as read.")
    dtype: str
    spectrum: Spectrum
    base: BaseComparison | None = Field(default=None, description="Against the base weight, where given.")


class ModuleDiff(ReportModel):
    """A module that both have, in one shape."""

    name: str
    kind: Literal["linear", "embedding", "conv", "parameter"]
    shape: tuple[int, int] = Field(description="(out, in) of the updates as matrices.")
    a: Side
    b: Side
    norm_ratio: float | None = Field(description="‖ΔB‖/‖ΔA‖; null for a zero ΔA.")
    distance: float | None = Field(description="‖ΔB - ΔA‖/‖ΔA‖; null for a zero ΔA.")
    cosine: float | None = Field(description="⟨ΔA, ΔB⟩/(‖ΔA‖‖ΔB‖); null where one is zero.")
    left_overlap: float | None = Field(
        description="Mean squared cosine of the angles between the column spaces, from 0 (orthogonal) to 1 "
        "(the smaller lies in the other); null where one is zero."
    )
    right_overlap: float | None = Field(description="The same of the row spaces.")


class DiffTotals(ReportModel):
    """Over the modules in both; norms over all of each."""

    common: int
    identical: int = Field(description="Of them, those of the same factors and scale.")
    norm_a: float
    norm_b: float
    distance: float | None = Field(description="‖ΔB - ΔA‖/‖ΔA‖; null for a zero ΔA, or none in common.")
    cosine: float | None


class AdapterDiff(ReportModel):
    """What `loramend diff A B` finds."""

    schema_version: Literal["1.0"] = "1.0"
    kind: Literal["diff"] = "diff"
    summary: list[str] = Field(description="A few plain sentences; they claim no more than the numbers.")
    a: AdapterSummary
    b: AdapterSummary
    totals: DiffTotals
    modules: list[ModuleDiff]
    only_a: list[str] = Field(description="Modules that B lacks.")
    only_b: list[str] = Field(description="Modules that A lacks.")
    other_shape: list[str] = Field(description="Modules of one name whose shapes differ: not compared.")
    references: list[ReferenceRead] = Field(default_factory=list)
    provenance: Provenance
