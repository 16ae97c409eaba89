"""GET /methods: what a repair's steps can be."""

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from typing import Any, get_args

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.errors import RequestError
from loramend.contracts.step_base import Need, TextNeed, Threat
from loramend.contracts.steps import STEP_MODELS, default_recipe
from service.api.documents import json_response
from service.api.problems import documented
from service.api.schema import ok
from service.api.state import Use

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


class Recipe(BaseModel):
    """The steps that a repair takes where none are named."""

    model_config = ConfigDict(extra="forbid")

    threat: Threat
    base: bool = Field(description="Whether the base model is given, by the request or the adapter's config.")
    aligned: bool = Field(description="Whether the aligned model is given.")
    text: bool = Field(description="Whether clean text is given, labelled or not.")
    steps: list[str] = Field(description="Types of steps, at their defaults.")


class Publishing(BaseModel):
    """What a request that publishes its result has to bring."""

    model_config = ConfigDict(extra="forbid")

    own_token: bool = Field(description="Whether a worker has a Hub token of its own.")
    takes_token: bool = Field(description="Whether a request may bring one, as `hub_token`.")


class Methods(BaseModel):
    """Every type of step, which of them are taken unasked, and whether results can be published."""

    model_config = ConfigDict(extra="forbid")

    methods: list[MethodInfo]
    recipes: list[Recipe] = Field(
        description="One for each combination of what is given; a repair that none fits must name its steps."
    )
    publishing: Publishing


@router.get("/methods", summary="The steps a repair can take", responses={**ok(Methods), **documented()})
def list_methods(services: Use) -> Response:
    """Each method's parameters as a JSON schema, its source, the reference models it reads and the text; and
    the steps taken where a repair names none; and whether results can be published."""
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
            ],
            recipes=list(_recipes()),
            publishing=Publishing(
                own_token=services.store.has_publisher(),
                takes_token=services.settings.secret_key is not None,
            ),
        )
    )


def _recipes() -> Iterator[Recipe]:
    """The default recipe of every combination that has one."""
    for threat in get_args(Threat):
        for base, aligned, text in itertools.product((False, True), repeat=3):
            with contextlib.suppress(RequestError):
                steps = default_recipe(threat, base=base, aligned=aligned, text="text" if text else None)
                yield Recipe(
                    threat=threat, base=base, aligned=aligned, text=text, steps=[step.type for step in steps]
                )
