"""The steps a repair is made of: one pydantic model a method, and their discriminated union.

The models live here, apart from the methods in `loramend.methods`, so that the service can validate
requests and
serve their JSON schemas without importing torch.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from loramend.contracts.data_steps import CleanSubspaceStep, RoraStep
from loramend.contracts.errors import RequestError
from loramend.contracts.step_base import Need, StepBase, TextNeed, Threat


class SubspaceStep(StepBase):
    """Parameters shared by the methods that use the displacement D = W_aligned - W_base ≈ U_k Σ_k V_kᵀ."""

    needs: ClassVar[tuple[Need, ...]] = ("base", "aligned")

    k: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Rank of the displacement subspace; None chooses it by `energy`.",
    )
    energy: float = Field(
        default=0.9, gt=0, le=1, description="Share of ‖D‖_F² the subspace must hold; sets k up to `max_k`."
    )
    max_k: int = Field(default=64, ge=1, le=1024, description="Largest k that `energy` may choose.")


class _Correction(StepBase):
    """What csu and its random control share."""

    attenuate: Literal["inside", "outside"] = Field(
        default="inside",
        description="Which part of the update is attenuated. inside: what reads (sides right) or writes "
        "(left) the subspace's directions, where it overrides what alignment does with them. outside: what "
        "lies off the subspace, as in the paper's abstract.",
    )
    penalty: float = Field(default=10.0, ge=0, le=1e6, description="λ; 0 leaves the update as it is.")
    form: Literal["component", "direction"] = Field(
        default="component",
        description="component: the update's parts are weighted, outside by their relative energy; "
        "direction: each singular direction is, by its own share of what is attenuated.",
    )
    sides: Literal["both", "left", "right"] = Field(
        default="right",
        description="Which side of the update is compared with the subspace: output (left), input (right) or "
        "both.",
    )
    output_rank: Literal["same", "double"] = Field(
        default="same",
        description="Of attenuating outside on both sides, whose result has rank 2r. same: truncate back to "
        "rank r and report the loss; double: rank 2r, exact. All else is exact at rank r.",
    )

    @model_validator(mode="after")
    def _keeps_rank(self) -> Self:
        if self.output_rank == "double" and (self.form == "direction" or self.attenuate == "inside"):
            raise ValueError(
                "form 'direction' and attenuate 'inside' are exact at rank r: leave output_rank at 'same'"
            )
        return self


class CsuStep(_Correction, SubspaceStep):
    """CSU-style correction: attenuate, in closed form, the part of the update inside the displacement
    subspace, or the part outside."""

    source: ClassVar[str] = (
        "CSU-style, after the abstract of arXiv 2605.30640; its equations could not be read, so ours may "
        "differ; attenuate 'inside' is loramend's"
    )
    does: ClassVar[str] = "corrected against the alignment's directions"

    type: Literal["csu"] = "csu"
    k: int | None = Field(
        default=4,
        ge=1,
        le=1024,
        description="Rank of the displacement subspace; None chooses it by `energy`.",
    )


class SafeLoraStep(StepBase):
    """Safe LoRA: project B with C = VVᵀ/‖V‖_F, V = W_aligned - W_base, where cos(CBA, BA) is low."""

    needs: ClassVar[tuple[Need, ...]] = ("base", "aligned")
    source: ClassVar[str] = "Safe LoRA, arXiv 2405.16833"
    does: ClassVar[str] = "projected onto the alignment"

    type: Literal["safe_lora"] = "safe_lora"
    select: Literal["threshold", "number"] = Field(
        default="threshold",
        description="threshold: project modules with cosine <= tau; number: the lowest `count`.",
    )
    tau: float = Field(
        default=0.5, ge=-1, le=1, description="τ, the cosine at or below which a module is projected."
    )
    count: int = Field(default=10, ge=1, le=100_000, description="How many modules `number` projects.")


class RescaleStep(StepBase):
    """Spectral rescaling: a module's scale becomes ratio · σ_max(W_base)/σ_max(BA)."""

    needs: ClassVar[tuple[Need, ...]] = ("base",)
    source: ClassVar[str] = "RoRA part 3, arXiv 2601.06305"
    does: ClassVar[str] = "scaled by the base's largest singular values"

    type: Literal["rescale"] = "rescale"
    ratio: float = Field(default=1.0, gt=0, le=1000, description="1 is the paper's.")
    layers: int | Literal["all"] = Field(
        default=3, description="The last n layers of the model (the paper's top three), or 'all'."
    )
    mode: Literal["set", "cap"] = Field(
        default="set", description="set: scale to the target; cap: only scale down to it."
    )
    max_scale: float = Field(
        default=100.0, gt=0, description="Guard: a new scale over this many times the old one is refused."
    )

    @model_validator(mode="after")
    def _layers_positive(self) -> "RescaleStep":
        if self.layers != "all" and self.layers < 1:
            raise ValueError("layers must be at least 1, or 'all'")
        return self


class IntrudersStep(StepBase):
    """Scale down singular directions of W + ΔW that resemble no singular vector of W."""

    needs: ClassVar[tuple[Need, ...]] = ("base",)
    source: ClassVar[str] = "arXiv 2410.21228; equals peft's reduce_intruder_dimension"
    does: ClassVar[str] = "singular vectors foreign to the base are scaled down"

    type: Literal["intruders"] = "intruders"
    top_k: int = Field(
        default=10, ge=1, le=512, description="How many leading directions of W + ΔW are looked at."
    )
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="ε: a direction whose best |cosine| is under it is an intruder."
    )
    mitigation: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="λ as in peft's mitigation_lambda: an intruder's share of W + ΔW becomes λ times itself.",
    )


class RestoreStep(SubspaceStep):
    """Add α·SVD_k(W_aligned - W_base) to the update, at rank r + k or truncated."""

    source: ClassVar[str] = "LoX and RESTA"
    does: ClassVar[str] = "the alignment is added again"

    type: Literal["restore"] = "restore"
    alpha: float = Field(
        default=1.0, ge=-100, le=100, description="α, how much of the displacement is added."
    )
    output_rank: Literal["sum", "same"] = Field(
        default="sum", description="sum: rank r + k, exact; same: truncated to r, the loss reported."
    )


class ShrinkStep(StepBase):
    """Control: the whole update scaled by one factor."""

    source: ClassVar[str] = "control"
    does: ClassVar[str] = "a control: the update made smaller"

    type: Literal["shrink"] = "shrink"
    factor: float = Field(default=0.5, ge=0, le=1, description="What the update is multiplied with.")


class RandomSubspaceStep(_Correction):
    """Control: the CSU-style correction on a random subspace of rank k instead of the displacement's."""

    source: ClassVar[str] = "control"
    does: ClassVar[str] = "a control: corrected against random directions"

    type: Literal["random_subspace"] = "random_subspace"
    k: int = Field(default=4, ge=1, le=1024)


Step = Annotated[
    CsuStep
    | SafeLoraStep
    | RescaleStep
    | RoraStep
    | CleanSubspaceStep
    | IntrudersStep
    | RestoreStep
    | ShrinkStep
    | RandomSubspaceStep,
    Field(discriminator="type"),
]

STEP_MODELS: dict[str, type[StepBase]] = {
    "csu": CsuStep,
    "safe_lora": SafeLoraStep,
    "rescale": RescaleStep,
    "rora": RoraStep,
    "clean_subspace": CleanSubspaceStep,
    "intruders": IntrudersStep,
    "restore": RestoreStep,
    "shrink": ShrinkStep,
    "random_subspace": RandomSubspaceStep,
}

STEPS: TypeAdapter[Step] = TypeAdapter(Step)


def needs_of(steps: list[Step]) -> frozenset[Need]:
    """Which reference models these steps read."""
    return frozenset(need for step in steps for need in step.needs)


def text_of(steps: list[Step]) -> TextNeed | None:
    """What text these steps learn from: labelled examples, any clean text, or none."""
    wanted = {step.text for step in steps}
    return "clean" if "clean" in wanted else "text" if "text" in wanted else None


def default_recipe(threat: Threat, *, base: bool, aligned: bool, text: TextNeed | None = None) -> list[Step]:
    """The steps a repair takes when none are named: rora where clean text was given; else csu where an
    aligned/base pair is known, intruder reduction for a poisoned adapter with its base alone, rescaling for a
    poisoned base.

    Raises RequestError `no_default_recipe` where nothing given can be measured against.
    """
    if text is not None and base:
        # Against a poisoned base, the directions clean text uses are no more to be trusted than others.
        return [RoraStep()] if threat == "poisoned_base" else [CleanSubspaceStep(), RoraStep()]
    if threat == "poisoned_base":
        if base:
            return [RescaleStep()]
        raise RequestError(
            "no_default_recipe",
            "Repairing under threat 'poisoned_base' rescales the update against the base model: give `base`.",
            where="/base",
        )
    if base and aligned:
        return [CsuStep()]
    if base:
        return [IntrudersStep()]
    raise RequestError(
        "no_default_recipe",
        "Without `base` there is nothing to measure the adapter against: give `base` (and `aligned`), "
        "or name a step that needs neither, such as shrink.",
        where="/steps",
    )
