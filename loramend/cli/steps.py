"""--step TYPE[:key=value,…] as a step of the request's schema."""

from collections.abc import Sequence

import typer
from pydantic import ValidationError

from loramend.contracts.step_base import StepBase
from loramend.contracts.steps import STEP_MODELS, STEPS, Step

_NONE = frozenset({"none", "null"})


class StepSyntaxError(ValueError):
    """A --step that names no method, no parameter of it, or a value it does not take."""


def parse_steps(texts: Sequence[str] | None) -> list[Step]:
    """Every --step, in order. Raises typer.BadParameter."""
    try:
        return [parse_step(text) for text in texts or []]
    except StepSyntaxError as error:
        raise typer.BadParameter(str(error), param_hint="'--step'") from None


def parse_step(text: str) -> Step:
    """One --step, validated by the step's own model. `none` as a value stands for None.

    Raises StepSyntaxError, which names what is allowed.
    """
    kind, colon, rest = text.partition(":")
    kind = kind.strip()
    model = STEP_MODELS.get(kind)
    if model is None:
        raise StepSyntaxError(f"there is no step '{kind}'; the steps are {', '.join(STEP_MODELS)}")
    if colon and not rest.strip():
        raise StepSyntaxError(f"'{text}' ends in a colon; write {kind}, or {kind}:key=value,…")
    values: dict[str, str | None] = {}
    for item in rest.split(",") if rest else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise StepSyntaxError(f"'{item}' in '{text}' is not key=value; {_allowed(kind, model)}")
        if key == "type" or key not in model.model_fields:
            raise StepSyntaxError(f"{kind} has no parameter '{key}'; {_allowed(kind, model)}")
        if key in values:
            raise StepSyntaxError(f"'{text}' gives {key} twice")
        values[key] = None if value.lower() in _NONE else value
    try:
        return STEPS.validate_python({"type": kind, **values})
    except ValidationError as error:
        raise StepSyntaxError(f"{kind}: {_explain(error)}") from None


def _allowed(kind: str, model: type[StepBase]) -> str:
    return f"{kind} takes {', '.join(name for name in model.model_fields if name != 'type')}"


def _explain(error: ValidationError) -> str:
    """`key: what is wrong with it (got value)` for every error, in one line."""
    parts = []
    for item in error.errors(include_url=False):
        # loc: the union's tag, the field, and for a field that is itself a union the member that was tried
        field = item["loc"][1] if len(item["loc"]) > 1 else None
        message = item["msg"].removeprefix("Value error, ")
        parts.append(f"{field}: {message} (got {item['input']!r})" if field else message)
    return "; ".join(dict.fromkeys(parts))
