"""The report: one versioned schema for inspections and repairs.

Notation, per module: ΔW = s·BA with A (r, in) and B (out, r); σ_i its singular values, largest first. All
energies are
squared Frobenius norms; all shares lie in [0, 1]; entropies are in nats; seconds and bytes where a field
says so.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.evidence import DataRead, Evaluation, TrainingReport
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import Step
from loramend.contracts.triage import Triage


class ReportModel(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class Spectrum(ReportModel):
    """Spectral measures of one update ΔW, exact, from factor space."""

    sigma: list[float] = Field(description="σ_1..σ_r, largest first.")
    norm: float = Field(description="‖ΔW‖_F.")
    stable_rank: float | None = Field(description="‖ΔW‖_F²/σ_1²; null for a zero update.")
    spectral_entropy: float | None = Field(description="-Σp_i log p_i with p_i = σ_i/Σσ, in nats.")
    effective_rank: float | None = Field(description="exp of the spectral entropy (Roy and Vetterli 2007).")
    concentration: float | None = Field(description="σ_1/Σσ.")


class Robustness(ReportModel):
    """Recipe measures of arXiv 2505.12871, from A and s alone. They describe how the adapter was trained,
    and are no
    evidence of poisoning: the adapter holds the trained A, not A at initialisation."""

    variance_constant: float = Field(description="ĉ = ‖A‖_F²/r; PEFT's default initialisation has 1/3.")
    kernel_margin: float = Field(
        description="1 - s²σ_max(A)²; positive: the kernel stays below full fine-tuning's."
    )
    kernel_retained: float = Field(description="s²‖A‖_F²/in.")
    renyi_entropy: dict[str, float] = Field(
        description="H_α of the spectrum of AAᵀ for α = 1, 2, inf, in nats."
    )
    effective_rank: float = Field(description="e^{H_1}.")


class BaseComparison(ReportModel):
    """The update against the base weight W (arXiv 2601.06305)."""

    sigma_max_base: float
    strength: float | None = Field(
        description="σ_max(W)/σ_max(BA), without the scale s; null for a zero update."
    )
    strength_scaled: float | None = Field(description="σ_max(W)/σ_max(ΔW), with it.")
    alignment: float | None = Field(
        description="Largest |cosine| of ΔW's leading singular vectors with W's top 32, left or right."
    )


class EnergySplit(ReportModel):
    """How ‖ΔW‖_F² divides over the displacement subspace U_k, V_k of W_aligned - W_base."""

    k: int
    displacement_norm: float = Field(description="‖W_aligned - W_base‖_F.")
    displacement_energy: float = Field(description="Share of ‖D‖_F² that the k directions hold.")
    full: float
    partial: float
    off: float
    expected_full: float = Field(description="What an isotropic update would hold: k²/(out·in).")


class StepOutcome(ReportModel):
    """What one step did to one module."""

    type: str
    applied: bool = Field(description="False where the step left this module alone.")
    reason: str = Field(default="", description="Why it was left alone, or a remark.")
    norm_before: float
    norm_after: float
    distance: float = Field(description="‖X - ΔW‖_F/‖ΔW‖_F, X the result; 0 for a zero update.")
    cosine: float | None = Field(description="⟨X, ΔW⟩/(‖X‖‖ΔW‖): 1 where the step only shrank.")
    rank_before: int
    rank_after: int
    truncation_loss: float = Field(
        default=0.0, description="Share of ‖X‖_F² that returning to the asked rank lost."
    )
    values: dict[str, float] = Field(default_factory=dict, description="The method's own numbers, by name.")


class ModuleReport(ReportModel):
    """One LoRA module (for MoE parameters: one expert)."""

    name: str = Field(description="The module's path in the model, as PEFT spells it without its prefix.")
    kind: Literal["linear", "embedding", "conv", "parameter"]
    shape: tuple[int, int] = Field(description="(out, in) of ΔW as a matrix.")
    rank: int
    scale: float = Field(description="s, as read: alpha/r, or alpha/sqrt(r) under rsLoRA.")
    dtype: str
    before: Spectrum
    after: Spectrum | None = Field(default=None, description="null in an inspection.")
    robustness: Robustness | None = Field(description="null for a zero A.")
    base_before: BaseComparison | None = None
    base_after: BaseComparison | None = None
    energy_before: EnergySplit | None = None
    energy_after: EnergySplit | None = None
    steps: list[StepOutcome] = Field(default_factory=list)


class Control(ReportModel):
    """A placebo control: the same adapter changed by as much, without the method's knowledge."""

    name: Literal["shrink", "random_subspace"]
    draws: int = Field(ge=1)
    distance: float = Field(description="‖X_c - ΔW‖_F/‖ΔW‖_F over all modules; mean over draws.")
    distance_sd: float | None = Field(description="Standard deviation over draws; null for one draw.")
    norm_ratio: float = Field(description="‖X_c‖_F/‖ΔW‖_F; mean over draws.")
    cosine_to_original: float | None = Field(description="Cosine of X_c with ΔW; mean over draws.")
    cosine_to_repair: float | None = Field(description="Cosine of X_c with the repair X; mean over draws.")
    cosine_to_repair_sd: float | None = None


class PlaceboComparison(ReportModel):
    """A subspace step beside its two controls, by weights alone."""

    step: int = Field(description="Index of the step in `steps`.")
    type: str
    distance: float
    norm_ratio: float
    cosine_to_original: float | None
    controls: list[Control]
    verdict: Literal["indistinguishable_by_weights", "distinct_by_weights", "no_change"]
    sentence: str


class Totals(ReportModel):
    """Over all repaired modules."""

    modules: int
    parameters: int
    norm_before: float
    norm_after: float | None = None
    distance: float | None = Field(default=None, description="‖X - ΔW‖_F/‖ΔW‖_F over all modules.")


class FileDigest(ReportModel):
    path: str
    sha256: str
    size: int


class ReferenceRead(ReportModel):
    """What was read of a reference model. The digest covers names and digests of the tensors read, not
    whole files."""

    role: Literal["base", "aligned"]
    name: str = Field(description="Hub ID with revision, or path, as given.")
    tensors: int
    bytes: int
    sha256: str
    cached_subspaces: int = Field(default=0, description="Displacement subspaces found in the cache.")


class AdapterSummary(ReportModel):
    """What was read."""

    name: str
    format: Literal["peft", "kohya", "diffusers"]
    base_model: str | None = Field(description="As the adapter's own config names it; unchecked.")
    files: list[FileDigest]
    features: list[str] = Field(description="Handled features in use, such as rslora or rank_pattern.")
    passed_through: list[str] = Field(
        default_factory=list, description="Tensors copied byte for byte and not repaired, by name."
    )


class Provenance(ReportModel):
    loramend: str
    versions: dict[str, str]
    device: str
    seed: int
    started_at: datetime
    seconds: float
    peak_memory_bytes: int = Field(description="Largest resident set of this process so far.")
    source: dict[str, str] = Field(
        default_factory=dict, description="Hub ID, resolved revision or upload digest."
    )


class Report(ReportModel):
    """An inspection (no steps) or a repair."""

    schema_version: Literal["1.1"] = "1.1"
    kind: Literal["inspect", "repair"]
    threat: Threat | None = None
    summary: list[str] = Field(
        description="A few plain sentences; they claim no more than the numbers below."
    )
    adapter: AdapterSummary
    steps: list[Step] = Field(default_factory=list, description="The steps taken, defaults filled in.")
    totals: Totals
    modules: list[ModuleReport]
    triage: Triage | None = Field(
        default=None,
        description="The adapter as it came, beside a bank of others; null in reports of earlier versions.",
    )
    placebo: list[PlaceboComparison] = Field(default_factory=list)
    training: list[TrainingReport] = Field(default_factory=list, description="One a rora step.")
    evaluation: Evaluation | None = Field(
        default=None, description="Behaviour before and after, where evaluation data was given."
    )
    data: list[DataRead] = Field(default_factory=list, description="The text that was read.")
    references: list[ReferenceRead] = Field(default_factory=list)
    output: list[FileDigest] = Field(default_factory=list, description="The repaired adapter's files.")
    caveats: list[str] = Field(default_factory=list)
    provenance: Provenance
