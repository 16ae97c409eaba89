"""What `loramend doctor` finds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["ok", "note", "fix"]


class Finding(BaseModel):
    """One thing looked at."""

    model_config = ConfigDict(extra="forbid")

    name: str
    state: State = Field(description="ok; note: works, but less than it could; fix: must be put right.")
    found: str = Field(description="What is there, in a few words.")
    remedy: str = Field(default="", description="What to do, where something can be done.")


class Diagnosis(BaseModel):
    """Everything looked at."""

    model_config = ConfigDict(extra="forbid")

    ok: bool = Field(description="Nothing must be put right.")
    findings: list[Finding]


GiB = 1024**3


def size(count: float) -> str:
    """Bytes for a reader."""
    return f"{count / GiB:.1f} GiB"
