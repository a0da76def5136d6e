"""Which evaluations are of one family: models that differ in their seed alone."""

from __future__ import annotations

from fer_experiments.config import Config
from fer_experiments.tracking.evaluations import Evaluation
from fer_experiments.tracking.runs import RunRecord


def evaluation(*, without: tuple[str, ...] = (), **changes: object) -> Evaluation:
    flat = Config().replace(**changes).flat()
    record = RunRecord(
        id="1", name="one", stage="evaluate", status="FINISHED", experiment_id="1", started=0,
        params={name: str(value) for name, value in flat.items() if name not in without},
        tags={"backbone": "vgg16", "source_stage": "train", "recipe": "baseline"}, metrics={},
    )  # fmt: skip
    return Evaluation(record, "one")


def test_only_the_seed_may_differ() -> None:
    assert evaluation().family == evaluation(seed=1).family
    assert evaluation().family != evaluation(seed=1, dropout=0.1).family


def test_a_field_that_an_older_run_does_not_have_was_neutral() -> None:
    older = evaluation(without=("crop", "detector", "on_no_face"))
    assert older.family == evaluation(seed=1).family
    assert older.family != evaluation(crop=44).family
