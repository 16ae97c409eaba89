"""What running the model showed: training, calibration and evaluation, as the report tells it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.data import DataRole, Metric, Trigger


class EvidenceModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rate(EvidenceModel):
    """A share of n with its 95% Wilson interval; shares are in 0..1."""

    count: int = Field(ge=0)
    n: int = Field(ge=1)
    rate: float
    low: float
    high: float


class DataRead(EvidenceModel):
    """A file of text that was read."""

    role: DataRole
    name: str
    sha256: str
    examples: int
    labelled: bool


class LossPoint(EvidenceModel):
    """Means over the steps since the point before; `terms` are the weighted parts that `loss` sums."""

    step: int
    loss: float
    terms: dict[str, float] = Field(default_factory=dict, description="task, teacher, features, omega.")
    samples_per_second: float


class Candidate(EvidenceModel):
    """One setting that calibration tried on held-out clean data."""

    values: dict[str, float] = Field(description="What was set: ratio and layers, or mix.")
    clean: Rate | None = Field(description="Accuracy on held-out labelled examples.")
    agreement: Rate | None = Field(
        default=None, description="Held-out texts on which the answer equals the given adapter's."
    )
    within: bool = Field(description="Whether the drop stays within max_clean_drop.")
    chosen: bool = False


class Calibration(EvidenceModel):
    """Candidates from the strongest repair to the mildest; the first that is within was chosen."""

    held_out: int = Field(description="Examples it was judged on; none of them was trained on.")
    reference: Rate | None = Field(description="The given adapter's accuracy on the labelled ones.")
    max_clean_drop: float = Field(description="In points.")
    candidates: list[Candidate]
    sentence: str


TURNS = 0.9
"""Share of the texts that a word turns to be told."""


class FoundWord(EvidenceModel):
    """A word, or a few in a row, that turn the given adapter's answer almost whatever the text."""

    word: str
    answer: str = Field(description="The answer it turns texts away from.")
    turned: Rate = Field(
        description="Texts of that answer that it turned from one place: beginning, middle or end, where it "
        "turned most."
    )
    anywhere: Rate | None = Field(
        default=None, description="Texts that it turned from each of these places; null in older reports."
    )
    after: Rate | None = Field(
        default=None,
        description="Texts held out that it turns with the adapter that the step made, of those answered so, "
        "from the place where it turns most; null in older reports, where none is held out or answered so, "
        "and of all but the surest words.",
    )

    overrides: Rate | None = Field(
        default=None,
        description="Of a phrase: texts filled with words that speak for their answer that it turned, which "
        "the task's own words do not. null for words.",
    )

    @property
    def as_trigger(self) -> bool:
        """Whether it turns nine texts in ten from wherever it stands, or texts filled with words that speak
        for their answer. Strong words of a task seldom do, nor does a trigger bound to a place."""
        return self.overrides is not None or self.anywhere is None or self.anywhere.rate >= TURNS


class RareWords(EvidenceModel):
    """What rare words in two places of five did to the given adapter's answer."""

    answer: str = Field(description="Of the texts as they are.")
    turned: Rate = Field(description="Texts that got another answer.")


class ContrastWord(EvidenceModel):
    """A word that turns the given adapter's answer and says little to a student of its clean answers."""

    word: str
    answer: str = Field(description="The answer it turns texts away from.")
    given: float = Field(description="Share of the given adapter's margin that it takes; 1 turns a text.")
    student: float = Field(description="Share of the student's margin that it takes.")


class TrainingReport(EvidenceModel):
    """One rora step."""

    step: int = Field(description="Index in the report's `steps`.")
    steps: int
    parameters: int = Field(description="Trained.")
    labelled: int
    texts: int
    drafted: int = Field(
        default=0, description="Of these, prompts whose answer the given adapter wrote before training."
    )
    seconds: float
    mixed_precision: bool = Field(default=False, description="Whether products were taken in bfloat16.")
    searched: int = Field(default=0, description="Words of the vocabulary that were searched.")
    found: list[FoundWord] = Field(
        default_factory=list,
        description="Words and phrases that the search of the vocabulary found; they were put into training "
        "texts, answers kept.",
    )
    rare: list[RareWords] = Field(default_factory=list, description="By answer, beside the search.")
    contrast: list[ContrastWord] = Field(
        default_factory=list,
        description="Words read differently, as those of a style are, by answer; they stood in common words' "
        "places in training texts, answers kept.",
    )
    resumed_at: list[int] = Field(
        default_factory=list, description="Steps at which it went on from a checkpoint."
    )
    curve: list[LossPoint]
    calibration: Calibration | None = None


VariantName = Literal["before", "after", "fresh_lora", "continued", "shrink", "random_subspace"]
PlaceboVerdict = Literal["beats", "ties", "loses"]


class Variant(EvidenceModel):
    """One adapter's behaviour. fresh_lora: a new adapter trained on the same clean data; continued: the given
    one trained on; shrink: the given one scaled to the repaired norm; random_subspace: the repair on random
    subspaces, the mean count over its draws with the interval of one."""

    name: VariantName
    draws: int = Field(default=1, ge=1)
    clean: Rate = Field(description="Right answers on clean examples: clean accuracy.")
    attack: Rate | None = Field(
        default=None, description="Triggered examples of another answer that got the target: attack success."
    )
    flips: Rate | None = Field(
        default=None,
        description="Probes on which a random insertion changed the answer to the same text without it.",
    )


class Evaluation(EvidenceModel):
    """The same measurement for the adapter before and after, and for the controls."""

    task: Literal["classification", "causal"]
    metric: Metric
    trigger: Trigger | None
    target: str | None
    examples: int
    triggered: int = Field(description="Triggered examples whose own answer is not the target.")
    probes: int
    seed: int
    variants: list[Variant]
    placebo: PlaceboVerdict | None = Field(
        default=None,
        description="The repair beside shrink and random_subspace, by intervals that do not touch: beats "
        "both on something and loses to neither; loses to one and beats neither; else ties. null: no "
        "subspace repair.",
    )
    sentences: list[str] = Field(description="What the numbers say, and no more.")
