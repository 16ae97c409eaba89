"""--trigger, --target and the rest of what is measured, as the request's schema has it."""

from typing import Any

import typer

from loramend.contracts.data import EvaluationSpec, Metric, Trigger
from loramend.data.examples import Dataset


def parse_trigger(text: str | None) -> Trigger | None:
    """--trigger KIND:TEXT. Raises typer.BadParameter."""
    if text is None:
        return None
    try:
        return Trigger.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--trigger'") from None


def evaluation_spec(
    data: Dataset,
    *,
    trigger: Trigger | None,
    target: str | None,
    metric: Metric | None,
    probes: int,
    max_examples: int,
    max_new_tokens: int,
    controls: bool = True,
) -> EvaluationSpec:
    """What to measure. A target of digits is a number where the data's labels are numbers."""
    return EvaluationSpec.model_validate(
        evaluation_fields(
            trigger=trigger,
            target=target,
            numbered=isinstance(data.examples[0].label, int),
            metric=metric,
            probes=probes,
            max_examples=max_examples,
            max_new_tokens=max_new_tokens,
            controls=controls,
        )
    )


def evaluation_fields(
    *,
    trigger: Trigger | None,
    target: str | None,
    numbered: bool,
    metric: Metric | None,
    probes: int,
    max_examples: int,
    max_new_tokens: int,
    controls: bool,
) -> dict[str, Any]:
    """The same as a request has it. numbered: the labels are numbers."""
    return {
        "trigger": trigger.model_dump() if trigger else None,
        "target": int(target) if target is not None and numbered and target.isdecimal() else target,
        "metric": metric,
        "probes": probes,
        "max_examples": max_examples,
        "max_new_tokens": max_new_tokens,
        "controls": controls,
    }


def check_together(trigger: str | None, triggered: str | None, target: str | None) -> None:
    """Options that do not go together. Raises typer.BadParameter."""
    if trigger is not None and triggered is not None:
        raise typer.BadParameter("give --trigger or --triggered, not both", param_hint="'--trigger'")
    given = "--trigger" if trigger is not None else "--triggered" if triggered is not None else None
    if given and target is None:
        raise typer.BadParameter(
            f"{given} needs --target: the label or the words that the trigger asks for",
            param_hint="'--target'",
        )
    if target is not None and given is None:
        raise typer.BadParameter("--target goes with --trigger or --triggered", param_hint="'--target'")


def check_texts(
    clean: str | None,
    unlabelled: str | None,
    validation: str | None,
    evaluate: str | None,
    attack: str | None,
) -> None:
    """Texts that are given without what they go with. Raises typer.BadParameter."""
    if evaluate is None and attack:
        raise typer.BadParameter("a trigger is measured on the examples of --evaluate: give them")
    if validation is not None and clean is None and unlabelled is None:
        raise typer.BadParameter("--validation goes with --clean or --unlabelled")
