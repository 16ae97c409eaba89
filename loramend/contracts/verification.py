"""What `loramend verify` found out about a repaired adapter's folder."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

ProblemCode = Literal[
    "signature_missing",
    "signature_unreadable",
    "signature_invalid",
    "key_differs",
    "file_added",
    "file_changed",
    "file_missing",
    "file_not_signed",
    "not_a_file",
    "report_missing",
    "report_invalid",
    "bom_missing",
    "bom_differs",
    "provenance_differs",
]


class Finding(BaseModel):
    """Something that does not hold."""

    model_config = ConfigDict(extra="forbid")

    code: ProblemCode
    path: str | None = Field(description="The file, relative to the folder; null for the folder as a whole.")
    detail: str

    @field_validator("path", "detail", mode="before")
    @classmethod
    def _encodable(cls, value: str | None) -> str | None:
        """File names and JSON may hold lone surrogates, which are no text."""
        return None if value is None else value.encode("utf-8", "backslashreplace").decode()


class Verification(BaseModel):
    """The whole answer."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["verified", "unproven", "failed"] = Field(
        description="verified: signed by the given key, and all records agree. unproven: all records agree, "
        "but no signature was checked, so nothing shows who wrote them. failed: something does not hold."
    )
    signed: bool = Field(description="Whether there is a signature.")
    key: str | None = Field(description="The key that it was verified with: sha256 of the public key in PEM.")
    verified: list[str]
    not_verified: list[str]
    problems: list[Finding]
