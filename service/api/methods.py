"""GET /methods: what a repair's steps can be."""

import inspect
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.step_base import Need, TextNeed
from loramend.contracts.steps import STEP_MODELS
from service.api.documents import json_response
from service.api.problems import documented
from service.api.schema import ok

router = APIRouter(tags=["methods"])


class MethodInfo(BaseModel):
    """One type of step."""

    model_config = ConfigDict(extra="forbid")

    type: str
    summary: str
    source: str = Field(description="The paper or code it comes from.")
    needs: list[Need] = Field(description="The reference models that a request must give.")
    text: TextNeed | None = Field(
        description="The text that a request must give. clean: labelled examples; text: labelled or not."
    )
    parameters: dict[str, Any] = Field(description="JSON schema of the step, defaults included.")


class Methods(BaseModel):
    """Every type of step."""

    model_config = ConfigDict(extra="forbid")

    methods: list[MethodInfo]


@router.get("/methods", summary="The steps a repair can take", responses={**ok(Methods), **documented()})
def list_methods() -> Response:
    """Each method's parameters as a JSON schema, its source, the reference models it reads and the text."""
    return json_response(
        Methods(
            methods=[
                MethodInfo(
                    type=name,
                    summary=" ".join((inspect.getdoc(model) or "").split()),
                    source=model.source,
                    needs=list(model.needs),
                    text=model.text,
                    parameters=model.model_json_schema(),
                )
                for name, model in STEP_MODELS.items()
            ]
        )
    )
