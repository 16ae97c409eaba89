"""What every step of a repair shares."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Threat = Literal["poisoned_adapter", "poisoned_base"]
Need = Literal["base", "aligned"]
TextNeed = Literal["clean", "text"]
"""clean: labelled examples; text: any clean text, labelled or not."""


class StepBase(BaseModel):
    """What all steps share. `needs` names the reference models the method reads, `text` the data it learns
    from; a step with `text` runs the model, so it needs its config and tokenizer too. `does` says it in a few
    words, for readers who do not know its name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    needs: ClassVar[tuple[Need, ...]] = ()
    text: ClassVar[TextNeed | None] = None
    source: ClassVar[str] = ""
    does: ClassVar[str] = ""
