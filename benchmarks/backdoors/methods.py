"""What is compared: the repairs, their ablations and the controls, each under a name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from loramend.contracts.data_steps import CleanSubspaceStep, RoraStep
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import IntrudersStep, RescaleStep, ShrinkStep, Step, default_recipe

THREATS: tuple[Threat, ...] = ("poisoned_adapter", "poisoned_base")
Kind = Literal["given", "yardstick", "fresh", "continued", "shrink", "steps"]

# RoRA as its paper has it: three parts, task loss alone.
PAPER: dict[str, Any] = {
    "start": "fresh",
    "head": "train",
    "dropout": 0.1,
    "penalty": 10.0,
    "reduction": "sum",
    "ratio": 1.0,
    "layers": 3,
    "lora_dropout": 0.1,
    "teacher": 0.0,
    "features": 0.0,
    "recombine": 0.0,
    "insert": 0.0,
    "calibrate": False,
}


@dataclass(frozen=True)
class Method:
    """One row of a table.

    kind     given: nothing is done; yardstick: an adapter trained without poison on the sound base; fresh and
             continued: plain fine-tuning on the labelled samples; shrink: to clean_subspace's norm; steps: a
             repair
    ablation left to the end of a plan
    steps    what the repair takes, by threat
    unlabelled  whether the repair is given the plain text too
    """

    name: str
    title: str
    kind: Kind
    threats: tuple[Threat, ...] = THREATS
    ablation: bool = False
    steps: Callable[[Threat], list[Step]] | None = None
    unlabelled: bool = True


def recipe(threat: Threat) -> list[Step]:
    """What loramend does when it is given clean text and no steps."""
    return default_recipe(threat, base=True, aligned=False, text="clean")


def changed(**changes: Any) -> Callable[[Threat], list[Step]]:
    """The recipe with its rora step changed."""

    def steps(threat: Threat) -> list[Step]:
        return [
            RoraStep(**{**step.model_dump(), **changes}) if isinstance(step, RoraStep) else step
            for step in recipe(threat)
        ]

    return steps


def on_subspace(threat: Threat) -> list[Step]:
    """The recipe's rora on top of the update that clean_subspace left, instead of in its place."""
    trained = [step for step in changed(mix=1.0)(threat) if isinstance(step, RoraStep)]
    return [CleanSubspaceStep(), *trained]


def paper(**changes: Any) -> Callable[[Threat], list[Step]]:
    """RoRA as published, with some settings changed: under poisoned_adapter the whole poisoned update is in
    the frozen path, as if it were the base's."""
    return lambda threat: [RoraStep(**{**PAPER, "mix": float(threat == "poisoned_adapter"), **changes})]


ADAPTER: tuple[Threat, ...] = ("poisoned_adapter",)
BASE: tuple[Threat, ...] = ("poisoned_base",)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("given", "as it came", "given"),
        Method("yardstick", "trained on clean data, sound base", "yardstick"),
        Method("recipe", "loramend, default recipe", "steps", steps=recipe),
        Method(
            "clean_subspace",
            "clean_subspace alone",
            "steps",
            ADAPTER,
            steps=lambda threat: [CleanSubspaceStep()],
        ),
        Method("paper", "RoRA as published", "steps", steps=paper()),
        Method(
            "paper_calibrated", "RoRA as published, ratio calibrated", "steps", steps=paper(calibrate=True)
        ),
        Method("fresh_lora", "control: fresh LoRA on the labelled samples", "fresh", ADAPTER),
        Method("continued", "control: fine-tuned on", "continued"),
        Method("shrink", "control: shrunk to clean_subspace's norm", "shrink", ADAPTER),
        Method("intruders", "intruder reduction", "steps", ADAPTER, steps=lambda threat: [IntrudersStep()]),
        Method(
            "rescale",
            "rescaled, ratio 1, no guard",
            "steps",
            BASE,
            steps=lambda threat: [RescaleStep(max_scale=1e6)],
        ),
        Method(
            "paper_dropout",
            "RoRA's dropout alone",
            "steps",
            BASE,
            ablation=True,
            steps=paper(penalty=0.0, ratio=None),
        ),
        Method(
            "paper_omega",
            "RoRA's Ω alone",
            "steps",
            BASE,
            ablation=True,
            steps=paper(dropout=0.0, ratio=None),
        ),
        Method("no_insert", "recipe without insertion", "steps", ablation=True, steps=changed(insert=0.0)),
        Method(
            "with_features",
            "recipe with the teacher's hidden states",
            "steps",
            ADAPTER,
            ablation=True,
            steps=changed(features=1.0),
        ),
        Method(
            "no_recombine",
            "recipe without recombined text",
            "steps",
            ADAPTER,
            ablation=True,
            steps=changed(recombine=0.0),
        ),
        Method(
            "no_teacher",
            "recipe without the teacher, labels alone",
            "steps",
            ADAPTER,
            ablation=True,
            steps=changed(teacher=0.0, features=0.0, recombine=0.0),
        ),
        Method("no_task", "recipe without labels", "steps", ADAPTER, ablation=True, steps=changed(task=0.0)),
        Method(
            "labelled_only",
            "recipe without the unlabelled text",
            "steps",
            ADAPTER,
            ablation=True,
            steps=recipe,
            unlabelled=False,
        ),
        Method(
            "on_subspace",
            "recipe's training on top of clean_subspace",
            "steps",
            ADAPTER,
            ablation=True,
            steps=on_subspace,
        ),
    )
}


def steps_of(
    method: Method, threat: Threat, steps: int | None = None, batch: int | None = None
) -> list[Step]:
    """The steps a repair takes; `steps` and `batch` override those of its training."""
    assert method.steps is not None
    overrides = {name: value for name, value in (("steps", steps), ("batch", batch)) if value is not None}
    return [
        step.model_copy(update=overrides) if isinstance(step, RoraStep) else step
        for step in method.steps(threat)
    ]


def training_steps(threat: Threat, steps: int | None) -> int:
    """How long the controls that train do so: as long as the recipe."""
    if steps is not None:
        return steps
    return next((step.steps for step in recipe(threat) if isinstance(step, RoraStep)), RoraStep().steps)


def shrink_to(norm_before: float, norm_after: float) -> list[Step]:
    """The whole update scaled to the norm another repair left."""
    return [ShrinkStep(factor=min(1.0, norm_after / norm_before) if norm_before else 1.0)]
