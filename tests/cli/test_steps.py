"""--step parsing."""

import pytest

from loramend.cli.steps import StepSyntaxError, parse_step
from loramend.contracts.steps import STEP_MODELS, CsuStep, RescaleStep, ShrinkStep


@pytest.mark.parametrize("kind", STEP_MODELS)
def test_a_bare_type_is_its_defaults(kind: str) -> None:
    assert parse_step(kind) == STEP_MODELS[kind]()


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("csu:penalty=2.5,form=direction", CsuStep(penalty=2.5, form="direction")),
        ("csu: k = 8 , sides = left", CsuStep(k=8, sides="left")),
        ("csu:k=none", CsuStep(k=None)),
        ("rescale:layers=all,ratio=1e-1", RescaleStep(layers="all", ratio=0.1)),
        ("rescale:layers=7", RescaleStep(layers=7)),
        ("shrink:factor=0", ShrinkStep(factor=0)),
    ],
)
def test_values_are_validated_by_the_steps_model(text: str, step: object) -> None:
    assert parse_step(text) == step


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scu", "there is no step 'scu'; the steps are csu, safe_lora"),
        ("", "there is no step ''"),
        ("shrink:", "ends in a colon"),
        ("shrink:factor", "'factor' in 'shrink:factor' is not key=value; shrink takes factor"),
        ("shrink:factor=", "is not key=value"),
        ("shrink:factor=0.5,", "is not key=value"),
        ("shrink:factr=1", "shrink has no parameter 'factr'; shrink takes factor"),
        ("shrink:type=csu", "shrink has no parameter 'type'"),
        ("shrink:factor=1,factor=0", "gives factor twice"),
        ("shrink:factor=2", r"shrink: factor: .*less than or equal to 1 \(got '2'\)"),
        ("shrink:factor=nan", "shrink: factor: "),
        ("shrink:factor=none", "shrink: factor: "),
        ("csu:form=sideways", "'component' or 'direction'"),
        ("csu:k=2.5", "csu: k: .*integer"),
        ("csu:form=direction,output_rank=double", "csu: form 'direction' and attenuate 'inside' are exact"),
        ("rescale:layers=0", "layers must be at least 1"),
        ("rescale:layers=some", "rescale: layers: "),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(StepSyntaxError, match=said):
        parse_step(text)
