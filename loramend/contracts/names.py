"""Names and digests as requests spell them."""

from typing import Annotated

from pydantic import Field, StringConstraints

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REPO_ID = rf"^(?:{NAME}/)?{NAME}$"

HubId = Annotated[
    str,
    StringConstraints(pattern=REPO_ID),
    Field(description="A Hub repository: namespace/name, or a bare name."),
]
PublishId = Annotated[str, StringConstraints(pattern=rf"^{NAME}/{NAME}$")]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
