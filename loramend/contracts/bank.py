"""The bank file: statistics of adapters that others are set beside. JSON, versioned.

A bank says what its adapters' weights look like and nothing of what they do: whether they can be trusted is
its maker's word.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.report import FileDigest

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# Squares of these, summed over any number of modules, stay within float64.
Size = Annotated[float, Field(ge=0, le=1e100)]
Count = Annotated[int, Field(gt=0, le=1 << 40)]
Share = Annotated[float, Field(ge=0, le=1)]


class BankModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModuleStatistics(BankModel):
    """Of one update ΔW, exact, from factor space; null where not defined, as for a zero update."""

    sigma_1: Size = Field(description="Largest singular value.")
    norm: Size = Field(description="‖ΔW‖_F.")
    concentration: Share | None = Field(description="σ_1/Σσ.")
    spectral_entropy: Size | None = Field(description="-Σp_i log p_i with p_i = σ_i/Σσ, in nats.")
    kurtosis: Size | None = Field(description="Of ΔW's entries; 3 for normal ones.")
    top_rows: Share | None = Field(description="Share of ‖ΔW‖_F² in the 8 rows that hold most.")
    row_sparsity: Share | None = Field(description="Hoyer's measure of the rows' norms.")


class BankModule(BankModel):
    """One LoRA module (for MoE parameters: one expert)."""

    name: str = Field(min_length=1, max_length=600)
    shape: tuple[Count, Count] = Field(description="(out, in).")
    rank: Count
    statistics: ModuleStatistics


class BankAdapter(BankModel):
    """What a bank keeps of one adapter."""

    name: str = Field(max_length=600)
    base_model: str | None = Field(
        max_length=600, description="As the adapter's own config names it; unchecked."
    )
    files: tuple[FileDigest, ...] = Field(min_length=1, description="The weights last.")
    modules: tuple[BankModule, ...] = Field(min_length=1)

    @property
    def sha256(self) -> str:
        """The digest of its weights."""
        return self.files[-1].sha256


class Bank(BankModel):
    """The file."""

    kind: Literal["loramend-bank"] = "loramend-bank"
    schema_version: Literal["1.0"] = "1.0"
    adapters: tuple[BankAdapter, ...] = Field(min_length=1, description="By name; each weights file once.")


class SkippedAdapter(BankModel):
    """What was found in a folder and is not in the bank made of it."""

    name: str
    code: str = Field(description="Of the closed list of errors, or `duplicate`.")
    detail: str


class BankBuilt(BankModel):
    """What `loramend bank build` did."""

    file: str
    sha256: Digest
    adapters: list[str]
    skipped: list[SkippedAdapter]
