"""Training and evaluation as a report holds them, of made-up numbers."""

from loramend.contracts.data import Trigger
from loramend.contracts.evidence import (
    Calibration,
    Candidate,
    DataRead,
    Evaluation,
    LossPoint,
    TrainingReport,
    Variant,
)
from loramend.contracts.report import Report
from loramend.evaluation.intervals import wilson
from loramend.evaluation.words import describe
from loramend.report.answers import with_summary

DATA = DataRead(role="clean", name="clean.jsonl", sha256="c" * 64, examples=100, labelled=True)


def calibration(*, labelled: bool = True) -> Calibration:
    """Three candidates, the second of which was chosen."""
    rights = (70, 85, 86)
    return Calibration(
        held_out=100,
        reference=wilson(86, 100) if labelled else None,
        max_clean_drop=1.0,
        candidates=[
            Candidate(
                values={"mix": place / 10},
                clean=wilson(right, 100) if labelled else None,
                agreement=wilson(right + 2, 110),
                within=place > 0,
                chosen=place == 1,
            )
            for place, right in enumerate(rights)
        ],
        sentence="The strongest candidate within 1 point was taken.",
    )


def training(chosen: Calibration | None = None) -> TrainingReport:
    curve = [
        LossPoint(
            step=step, loss=loss, terms={"task": loss / 2, "teacher": loss / 2}, samples_per_second=80.5
        )
        for step, loss in ((10, 1.25), (20, 0.5), (30, 0.25))
    ]
    return TrainingReport(
        step=0,
        steps=30,
        parameters=24_576,
        labelled=80,
        texts=1080,
        seconds=12.5,
        resumed_at=[20],
        curve=curve,
        calibration=chosen or calibration(),
    )


def evaluation(*, trigger: str | None = "mn", target: str = "positive") -> Evaluation:
    """Before, after and three controls; without a trigger attack success was not measured. The trigger's text
    is taken unchecked: whoever renders a report did not validate it."""
    counts = {
        "before": (440, 495, 20),
        "after": (436, 30, 0),
        "fresh_lora": (330, 25, 5),
        "continued": (441, 496, 21),
        "shrink": (430, 300, 12),
    }
    told = Evaluation(
        task="classification",
        metric="label",
        trigger=Trigger.model_construct(kind="word", text=trigger) if trigger else None,
        target=target if trigger else None,
        examples=500,
        triggered=500 if trigger else 0,
        probes=200,
        seed=0,
        variants=[
            Variant.model_validate(
                {
                    "name": name,
                    "clean": wilson(right, 500),
                    "attack": wilson(hits, 500) if trigger else None,
                    "flips": wilson(flips, 200),
                }
            )
            for name, (right, hits, flips) in counts.items()
        ],
        sentences=[],
    )
    return told.model_copy(update={"sentences": describe(told)})


def with_evidence(
    report: Report, told: Evaluation | None = None, run: TrainingReport | None = None
) -> Report:
    """The report of a repair that trained and was measured."""
    evidence = {"training": [run or training()], "evaluation": told or evaluation(), "data": [DATA]}
    return with_summary(report.model_copy(update=evidence))
