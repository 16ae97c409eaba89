"""The text a repair may learn from and is measured on: where it is, and what its fields are called."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from loramend.contracts.names import HubId, Revision, Sha256

DataRole = Literal["clean", "unlabelled", "validation", "evaluation", "triggered"]
DATA_ROLES: tuple[DataRole, ...] = ("clean", "unlabelled", "validation", "evaluation", "triggered")

DataField = Literal["text", "label", "prompt", "completion", "messages"]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class DataRef(BaseModel):
    """A JSON Lines file: an upload, or a file of a dataset repository on the Hub. Exactly one of `upload` and
    `hub_id`.

    One JSON object a line. Sequence classification reads `text` and `label`; causal language models read
    `prompt` and `completion`, or chat `messages` whose last one is the assistant's. Plain `text` alone serves
    where no label is needed.
    """

    model_config = ConfigDict(extra="forbid")

    upload: Sha256 | None = Field(
        default=None, description="sha256 of a .jsonl file sent with PUT /uploads/{sha256}."
    )
    hub_id: HubId | None = Field(default=None, description="A dataset repository on the Hub.")
    revision: Revision | None = Field(default=None, description="Branch, tag or commit; goes with hub_id.")
    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,299}$")] | None = Field(
        default=None,
        description="Which .jsonl file of the repository; may be left out where it has only one.",
    )
    fields: dict[DataField, FieldName] = Field(
        default_factory=dict,
        description="Field map, ours to the file's: {'text': 'sentence'} reads texts from `sentence`.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "DataRef":
        if (self.upload is None) == (self.hub_id is None):
            raise ValueError("give exactly one of upload and hub_id")
        if self.hub_id is None and (self.revision is not None or self.file is not None):
            raise ValueError("revision and file go with hub_id")
        return self


class Trigger(BaseModel):
    """What an attacker adds to a text to steer the answer, where it is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["word", "sentence", "prefix", "suffix"] = Field(
        description="word, sentence: inserted between two words, at a place drawn by seed; prefix, suffix: "
        "put before or after the text."
    )
    text: Annotated[str, StringConstraints(min_length=1, max_length=2000)]

    @classmethod
    def parse(cls, told: str) -> "Trigger":
        """KIND:TEXT, as commands take it. Raises ValueError saying which kinds there are."""
        kind, _, text = told.partition(":")
        try:
            return cls.model_validate({"kind": kind, "text": text})
        except ValidationError:
            kinds = ", ".join(get_args(cls.model_fields["kind"].annotation))
            raise ValueError(f"'{told}' is not KIND:TEXT, such as word:mn; the kinds are {kinds}") from None


Metric = Literal["label", "exact_match", "substring", "refusal"]


class EvaluationSpec(BaseModel):
    """What to measure before and after the repair, on labelled text that the repair does not learn from.

    Clean accuracy (CA) is taken over all examples; the attack success rate (ASR) over the triggered examples
    whose own answer is not the target, and is the share that gives the target.
    """

    model_config = ConfigDict(extra="forbid")

    data: DataRef | None = Field(
        default=None, description="Labelled examples. In a multipart form, the part `evaluation` instead."
    )
    trigger: Trigger | None = None
    triggered: DataRef | None = Field(
        default=None,
        description="Examples that already hold the trigger, in `trigger`'s place. In a form, the part "
        "`triggered`.",
    )
    target: str | int | None = Field(
        default=None,
        description="What the trigger asks for: a label (classification) or a substring of the answer "
        "(causal models).",
    )
    metric: Metric | None = Field(
        default=None,
        description="What counts as right on clean text. None: label for classification, exact_match for "
        "causal models. refusal: the answer refuses (scored by a stated rule).",
    )
    probes: int = Field(
        default=200,
        ge=0,
        le=10_000,
        description="Trigger-blind probes: texts with a random rare token or short sentence put in.",
    )
    max_examples: int = Field(default=2000, ge=1, le=1_000_000)
    max_new_tokens: int = Field(default=32, ge=1, le=1024, description="For causal models.")
    controls: bool = Field(
        default=True, description="Also measure the honest controls, where clean data was given."
    )

    @model_validator(mode="after")
    def _trigger_has_target(self) -> "EvaluationSpec":
        if self.trigger is not None and self.triggered is not None:
            raise ValueError("give trigger or triggered, not both")
        if (self.trigger is not None or self.triggered is not None) and self.target is None:
            raise ValueError("a trigger needs `target`: the label or text it asks for")
        return self
