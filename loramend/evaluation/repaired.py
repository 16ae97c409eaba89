"""The evaluation a repair ends with: the adapter before and after, beside its controls."""

from collections.abc import Sequence
from dataclasses import replace

from loramend.adapter.model import Adapter
from loramend.contracts.data import EvaluationSpec
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.evidence import Evaluation, VariantName
from loramend.data.examples import Corpus, Dataset
from loramend.evaluation.controls import control_adapters
from loramend.evaluation.run import evaluate
from loramend.training.mount import Mount, adapter_mount
from loramend.training.session import Session

HELD_OUT = (
    "No evaluation data was given, so behaviour was measured on the examples held out for calibration: "
    "where calibration chose by them, the repair's numbers lean to the good side."
)


def evaluate_repair(
    session: Session,
    repaired: Adapter,
    corpus: Corpus,
    spec: EvaluationSpec | None,
    like: RoraStep | None = None,
    draws: Sequence[Adapter] = (),
) -> Evaluation | None:
    """Measure as `spec` asks; without one, clean accuracy and probes on the held-out labelled examples, and
    nothing where there are none.

    like   the rora step that was taken, if any: the controls are trained with its optimiser settings
    draws  of the repair on random subspaces, where it ends with a subspace step
    """
    told: list[str] = []
    if spec is None:
        if not session.held_out:
            return None
        spec = EvaluationSpec()
        corpus = replace(corpus, evaluation=_held_out(session, corpus), triggered=None)
        told.append(HELD_OUT)
    adapters: dict[VariantName, Adapter] = {"before": session.given, "after": repaired}
    if spec.controls:
        adapters |= control_adapters(session, repaired, like)
    mounts: dict[VariantName, list[Mount]] = {name: [adapter_mount(a)] for name, a in adapters.items()}
    if spec.controls and draws:
        mounts["random_subspace"] = [adapter_mount(draw) for draw in draws]
    evaluation = evaluate(
        session.host,
        mounts,
        corpus,
        spec,
        seed=session.seed,
        on_progress=session.on_progress,
    )
    return evaluation.model_copy(update={"sentences": [*told, *evaluation.sentences]})


def _held_out(session: Session, corpus: Corpus) -> Dataset:
    source = corpus.validation or corpus.clean
    assert source is not None, "held-out examples come from one of them"
    return replace(source, role="evaluation", examples=tuple(session.held_out))
