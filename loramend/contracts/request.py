"""What a repair request says, over HTTP and on the command line alike."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from loramend.contracts.data import DataRef, EvaluationSpec
from loramend.contracts.names import HubId, PublishId, Revision, Sha256
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import Step
from loramend.contracts.webhook import Webhook


class Source(BaseModel):
    """Where the adapter comes from: exactly one of `hub_id` and `upload`."""

    model_config = ConfigDict(extra="forbid")

    hub_id: HubId | None = None
    revision: Revision | None = Field(default=None, description="Branch, tag or commit; goes with hub_id.")
    upload: Sha256 | None = Field(
        default=None, description="sha256 of an archive or .safetensors file sent with PUT /uploads/{sha256}."
    )
    config: dict[str, Any] | None = Field(
        default=None, description="adapter_config.json, where `upload` is a bare .safetensors file."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        if (self.hub_id is None) == (self.upload is None):
            raise ValueError("give exactly one of hub_id and upload")
        if self.revision is not None and self.hub_id is None:
            raise ValueError("revision goes with hub_id")
        if self.config is not None and self.upload is None:
            raise ValueError("config goes with upload")
        return self


class ModelRef(BaseModel):
    """A reference model: a Hub ID with an optional revision, or a path under the server's model roots.

    A plain string stands for a path when it is absolute or starts with `.` or `~`, for a Hub ID otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub_id: HubId | None = None
    revision: Revision | None = None
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"path": value} if re.match(r"[/.~]", value) else {"hub_id": value}
        return value

    @field_validator("path")
    @classmethod
    def _no_nul(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("a path cannot hold NUL")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> "ModelRef":
        if (self.hub_id is None) == (self.path is None):
            raise ValueError("give exactly one of hub_id and path")
        if self.revision is not None and self.hub_id is None:
            raise ValueError("revision goes with hub_id")
        return self

    def __str__(self) -> str:
        name = self.hub_id or self.path or ""
        return f"{name}@{self.revision}" if self.revision else name


class Publish(BaseModel):
    """Push the result to the Hub in one commit, with model card, report and provenance."""

    model_config = ConfigDict(extra="forbid")

    repo_id: PublishId
    private: bool = True
    create_pr: bool = False


class AnalysisRequest(BaseModel):
    """POST /inspect: look at an adapter, repair nothing."""

    model_config = ConfigDict(extra="forbid")

    source: Source
    base: ModelRef | None = Field(
        default=None,
        description="Base model to measure against; without it only the adapter's own spectrum is given.",
    )
    aligned: ModelRef | None = None
    hub_token: SecretStr | None = Field(
        default=None,
        description="Hub token for this request alone; encrypted at rest, deleted when the job ends.",
    )
    webhook: Webhook | None = Field(default=None, description="Is told when the job has ended.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class RepairRequest(AnalysisRequest):
    """POST /repair."""

    threat: Threat = "poisoned_adapter"
    steps: list[Step] | None = Field(
        default=None, min_length=1, max_length=16, description="None takes the default recipe for the threat."
    )
    clean: DataRef | None = Field(
        default=None,
        description="Clean examples of the adapter's own task, labelled. In a form, the part `clean`.",
    )
    unlabelled: DataRef | None = Field(
        default=None, description="Clean plain text of the same kind. In a form, the part `unlabelled`."
    )
    validation: DataRef | None = Field(
        default=None,
        description="Clean labelled examples kept out of training, for calibration. In a form, the part "
        "`validation`. None holds back `validation_share` of `clean`.",
    )
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    evaluation: EvaluationSpec | None = Field(
        default=None, description="Measure clean accuracy, attack success and probes, before and after."
    )
    publish: Publish | None = None

    @model_validator(mode="after")
    def _validation_has_clean(self) -> "RepairRequest":
        if self.validation is not None and self.clean is None and self.unlabelled is None:
            raise ValueError("validation goes with clean or unlabelled data")
        return self


JobKind = Literal["repair", "inspect"]
