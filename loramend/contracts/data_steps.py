"""The steps that learn from text: they run the model."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from loramend.contracts.step_base import Need, StepBase, TextNeed


class CleanSubspaceStep(StepBase):
    """Keep of the update what clean text uses: A ← (AV)Vᵀ, V the leading directions of the module's inputs
    over clean text. No training."""

    needs: ClassVar[tuple[Need, ...]] = ("base",)
    text: ClassVar[TextNeed | None] = "text"
    source: ClassVar[str] = "loramend; CSU's closed form with the subspace of clean activations"
    does: ClassVar[str] = "only what clean text uses is kept"

    type: Literal["clean_subspace"] = "clean_subspace"
    k: int | None = Field(
        default=32, ge=1, le=4096, description="Directions kept a module; None chooses them by `energy`."
    )
    energy: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Share of the activations' second moment to keep, where k is None.",
    )
    form: Literal["hard", "smooth"] = Field(
        default="hard",
        description="hard: what lies outside is removed; smooth: it is attenuated by CSU's closed form with "
        "`penalty`.",
    )
    penalty: float = Field(default=10.0, ge=0, le=1e6, description="λ of the smooth form.")
    side: Literal["input", "output", "both"] = Field(
        default="input",
        description="input: directions of the module's inputs; output: of the loss's gradients at its "
        "outputs; both.",
    )
    refresh: bool = Field(
        default=True,
        description="Correct block by block, taking the activations anew after each; False takes them once.",
    )
    max_texts: int = Field(default=2000, ge=1, le=1_000_000, description="At most this many texts are read.")
    max_length: int = Field(default=256, ge=8, le=131_072, description="Tokens a text, the rest cut off.")


class RoraStep(StepBase):
    """RoRA: fine-tune on clean data with the frozen path dropped out and the update kept off the base's
    leading directions, then rescale. Under poisoned_adapter the given update joins the frozen path, scaled by
    `mix`, and the answers it gives on clean text can serve as teacher."""

    needs: ClassVar[tuple[Need, ...]] = ("base",)
    text: ClassVar[TextNeed | None] = "text"
    source: ClassVar[str] = "RoRA, arXiv 2601.06305; teacher, insertion and calibration are loramend's"
    does: ClassVar[str] = "trained on clean text"

    type: Literal["rora"] = "rora"

    # What is trained
    start: Literal["auto", "given", "fresh"] = Field(
        default="auto",
        description="given: go on training the given update; fresh: train a new one; auto: the given one "
        "under poisoned_base, a new one under poisoned_adapter.",
    )
    rank: int | None = Field(
        default=None, ge=1, le=1024, description="Of the new update; None: the adapter's."
    )
    mix: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="poisoned_adapter: share of the given update kept in the frozen path; the output is "
        "[B_given B_new]. 0 leaves it out.",
    )
    output_rank: int | None = Field(
        default=None, ge=1, le=2048, description="Truncate the output to this rank, the loss reported."
    )
    head: Literal["keep", "train"] = Field(
        default="keep", description="Task heads in modules_to_save: kept as they are, or trained."
    )

    # The paper's three parts
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="p on the frozen path; 0 is off; the paper: 0.1."
    )
    dropout_reading: Literal["output", "weight"] = Field(
        default="output", description="Which reading of Dropout(W): of W's output, or of W itself."
    )
    penalty: float = Field(default=0.0, ge=0, le=1e6, description="λ of Ω; 0 is off; the paper: 10.")
    k: int = Field(
        default=32, ge=1, le=1024, description="Leading directions of W that Ω keeps the update off."
    )
    reduction: Literal["sum", "mean"] = Field(default="mean", description="Of Ω over its entries.")
    ratio: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="Spectral rescaling after training; None is off; the paper: 1.",
    )
    layers: int | Literal["all"] = Field(default=3, description="The last n layers it rescales, or 'all'.")

    # What it learns from beside the labels
    teacher: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="Weight of the given adapter's answers on clean text (poisoned_adapter); 0 is off.",
    )
    temperature: float = Field(default=2.0, gt=0, le=100)
    features: float = Field(
        default=0.0, ge=0, le=1000, description="Weight of its hidden states on clean text, layer by layer."
    )
    task: float = Field(
        default=1.0, ge=0, le=1000, description="Weight of the task loss on labelled examples."
    )
    recombine: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of each batch made of pieces of clean texts, answered by the teacher.",
    )
    answer_tokens: int = Field(
        default=64,
        ge=0,
        le=8192,
        description="Causal models: tokens of the given adapter's answer to a prompt that came without one, "
        "written before training for the student to learn; 0 leaves prompts unanswered, and nothing is "
        "learned from them.",
    )
    mixup: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the batches beside which their texts are learned mixed in pairs, too, as "
        "embeddings that the teacher answers; None: 1 for a classifier's new update, else 0. 0 is off, and "
        "so is it without a teacher.",
    )
    insert: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Chance that the student reads a text with something put in (a few words of another "
        "clean text, random words, a neutral sentence), its answer kept.",
    )

    hunt: int = Field(
        default=30_000,
        ge=0,
        le=1_000_000,
        description="Words of the vocabulary searched for some that turn the given adapter's answer whatever "
        "the text and, unless a new update is trained on a sound base, for phrases of up to seven that do so "
        "against all that the text says; what is found is put in by `insert`, too, and reported. Answers are "
        "a classifier's classes, or up to 16 completions that a causal model's examples choose from; others "
        "are not searched. 0 is off.",
    )

    contrast: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the steps that a first student takes, whose reading of `hunt`'s words is "
        "compared with the given adapter's: words that turn the one and say little to the other, as a "
        "style's do, are put in the places of common words by `insert`, and reported. None: 0.25 for a new "
        "update on a sound base, else 0. 0 is off, and so is it without a teacher, `hunt` or `insert`.",
    )

    adversary: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight of the teacher's answers where soft words, found anew for every batch, turn the "
        "student's: for a given update that is trained on and a trigger that no search finds. 0 is off, and "
        "so is it without a teacher.",
    )
    adversary_words: int = Field(default=5, ge=1, le=64, description="At most this many soft words.")
    adversary_steps: int = Field(
        default=2, ge=0, le=100, description="Steps up the gradient that find them; 0 leaves them random."
    )

    # The optimiser
    steps: int = Field(default=400, ge=0, le=1_000_000)
    batch: int = Field(default=32, ge=1, le=4096)
    accumulate: int = Field(default=1, ge=1, le=1024, description="Backward passes a step.")
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.06, ge=0, lt=1, description="Share of the steps.")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    max_length: int = Field(default=256, ge=8, le=131_072, description="Tokens a text, the rest cut off.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Of the frozen weights; the update is trained in float32."
    )
    amp: Literal["auto", "off"] = Field(
        default="auto",
        description="Mixed precision in what training, search and calibration run: products in bfloat16, the "
        "rest in float32. auto: where the device multiplies bfloat16 faster (CUDA from Ampere on, CPUs with "
        "AMX, and those with AVX512-BF16 that are made without it) and `dtype` is float32.",
    )
    gradient_checkpointing: bool = False
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")

    # Calibration
    calibrate: bool = Field(
        default=True,
        description="After training, choose the strongest of a few candidates (ratio and layers, or mix) "
        "whose clean accuracy on held-out data stays within `max_clean_drop`.",
    )
    max_clean_drop: float = Field(default=1.0, ge=0, le=100, description="In points.")

    @model_validator(mode="after")
    def _layers_positive(self) -> "RoraStep":
        if self.layers != "all" and self.layers < 1:
            raise ValueError("layers must be at least 1, or 'all'")
        return self
