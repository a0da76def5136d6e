"""The gate's rules, one by one, on models of two classes whose every answer is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from fer_experiments.config import Thresholds
from fer_experiments.errors import DataError
from fer_experiments.evaluation.statistics import superiority
from fer_experiments.stages.promotion import Decision, decide, figures, reason, told
from fer_experiments.tracking.evaluations import Evaluation, Predictions
from fer_experiments.tracking.registry import Reference, Version

from .designed import record

METRIC = "val/macro_f1"
CLASSES = ("calm", "wild")
LABELS = np.repeat([0, 1], 200)
NUMBER = np.arange(400) % 200  # within its class
IDS = np.array([f"{i}.png" for i in range(400)])


@dataclass(frozen=True)
class Judged(Evaluation):
    """An evaluation whose predictions are given."""

    said: Predictions

    def predictions(self, split: str) -> Predictions:
        assert split == "val"
        return self.said


def model(
    name: str,
    right: int,
    *,
    sure: float | None = None,
    first: int = 0,
    fitted: np.ndarray = NUMBER < 0,
    unknown: str = "",
    ids: np.ndarray = IDS,
) -> Judged:
    """A model that names so many of the 200 images of each class rightly, those from `first` on.

    So accuracy, macro-F1 and each class's recall are `right` / 200, and so is, unless it says
    otherwise, how `sure` it is, above 0.5: its calibration error is 0. It was trained on the
    `fitted` images, (400,) bool.
    """
    hit = (NUMBER - first) % 200 < right
    named = np.where(hit, LABELS, 1 - LABELS)
    sure = right / 200 if sure is None else sure
    said = Predictions(
        ids=ids,
        labels=LABELS,
        probabilities=np.where(np.eye(2)[named] == 1, sure, 1 - sure),
        fitted=None if unknown else fitted,
        selected=None,
        class_names=CLASSES,
    )
    tags = {"model_uri": f"models:/m-{name}"} | ({"overlap_unknown": unknown} if unknown else {})
    return Judged(record(f"run of {name}", tags, {METRIC: right / 200}), name, said)


NOBODY = Reference(
    version=None, is_champion=False, by_fer=True, found="there is no registered model x yet"
)


def champion(held: Evaluation) -> Reference:
    version = Version(name="x", number=3, model_uri=held.tags["model_uri"], tags={})
    return Reference(version=version, is_champion=True, by_fer=True, found="version 3 is champion")


def against(held: Evaluation, *order: Evaluation, **asked: float) -> Decision:
    """What is decided where this one is champion."""
    return decide(order, champion(held), METRIC, Thresholds(**asked), judged=lambda version: held)


def alone(*order: Evaluation, **asked: float) -> Decision:
    """What is decided where there is nobody to beat."""

    def never(version: Version) -> Evaluation:
        raise AssertionError(version)

    return decide(order, NOBODY, METRIC, Thresholds(**asked), judged=never)


# Who is a candidate


def test_the_champion_is_no_candidate_and_is_not_judged_for_nobody() -> None:
    held = model("held", 120)

    def never(version: Version) -> Evaluation:
        raise AssertionError(version)

    decision = decide([held], champion(held), METRIC, Thresholds(), judged=never)
    assert (decision.looked_at, decision.verdicts, decision.passed) == (0, [], None)
    decision = against(held, held, model("new", 110))
    assert (decision.looked_at, len(decision.verdicts)) == (1, 1)


def test_every_candidate_counts_in_the_correction_those_after_the_one_that_passes_too() -> None:
    held, best = model("held", 120), model("best", 170, first=30)
    others = [model(f"m{i}", 119 - i) for i in range(4)]
    decision = against(held, best, *others)
    assert decision.passed is not None
    assert decision.passed.candidate is best
    assert decision.looked_at == 5
    assert len(decision.verdicts) == 1
    expected = superiority(
        LABELS,
        best.said.probabilities,
        held.said.probabilities,
        classes=2,
        metric="macro_f1",
        candidates=5,
    )
    assert decision.passed.difference == expected
    assert expected.value == pytest.approx(0.25)
    assert "on the 400 val images that neither was trained on; corrected for 5 candidates" in (
        reason(decision, decision.passed)
    )


def test_one_candidate_needs_no_correction_and_none_is_spoken_of() -> None:
    held = model("held", 120)
    for new in (model("new", 170, first=30), model("new", 121)):
        decision = against(held, new)
        assert "corrected" not in reason(decision, decision.verdicts[0])


# On which images


def test_only_images_count_that_neither_was_trained_on() -> None:
    held = model("held", 120, fitted=NUMBER < 20)
    new = model("new", 150, first=10, fitted=NUMBER >= 180)
    [verdict] = against(held, new).verdicts
    assert verdict.images == 320
    # Of numbers 20 to 179 the champion is right on 20 to 119, the newcomer on 20 to 159.
    assert verdict.beaten == pytest.approx(100 / 160)
    assert verdict.score == pytest.approx(140 / 160)
    assert figures(against(held, new), verdict)["images_judged"] == 320


def test_on_199_images_nothing_is_decided_and_on_200_it_is() -> None:
    held = model("held", 120, first=80)
    [verdict] = against(held, model("new", 190, fitted=NUMBER >= 100)).verdicts
    assert (verdict.images, verdict.refusals) == (200, [])
    one_more = (NUMBER >= 100) | (np.arange(400) == 0)
    [verdict] = against(held, model("new", 190, fitted=one_more)).verdicts
    assert (verdict.images, verdict.difference) == (199, None)
    assert verdict.refusals == [
        "of the val images that neither it nor the champion was trained on, 199 images are left, "
        "fewer than 200"
    ]


def test_where_a_class_is_gone_nothing_is_decided() -> None:
    new = model("new", 190, fitted=LABELS == 1)
    [verdict] = against(model("held", 120), new).verdicts
    assert verdict.refusals == [
        "of the val images that neither it nor the champion was trained on, no image is left of "
        "wild"
    ]
    assert verdict.score is None


@pytest.mark.parametrize("whose", ["held", "new"])
def test_where_it_is_unknown_what_one_was_trained_on_that_is_the_reason(whose: str) -> None:
    why = {whose: "its data is gone"}
    held = model("held", 120, unknown=why.get("held", ""))
    new = model("new", 190, unknown=why.get("new", ""))
    decision = against(held, new)
    [verdict] = decision.verdicts
    refusal = f"unknown which val images {whose} was trained on: its data is gone"
    assert (verdict.images, verdict.refusals, decision.passed) == (0, [refusal], None)
    assert reason(decision, verdict) == refusal
    assert told(decision, but=None) == [f"refused: new: {refusal}"]


def test_both_have_to_be_judged_on_the_same_images_in_one_order() -> None:
    held = model("held", 120)
    for ids in (IDS[::-1], np.array([f"other {i}" for i in range(400)])):
        with pytest.raises(DataError) as caught:
            against(held, model("new", 190, ids=ids))
        assert str(caught.value) == (
            "Expected candidate and champion to be judged on the same val images in one order. "
            "Received: evaluations run of new and run of held, whose images differ; evaluate both "
            "again"
        )


# Where there is nobody to beat


def test_the_first_version_is_judged_on_images_that_it_was_not_trained_on() -> None:
    new = model("new", 150, fitted=NUMBER < 50)
    decision = alone(new)
    assert decision.passed is not None
    assert decision.passed.images == 300
    assert decision.passed.score == pytest.approx(100 / 150)
    assert reason(decision, decision.passed) == (
        "the first version, judged on 300 val images that it was not trained on"
    )
    assert figures(decision, decision.passed) == pytest.approx(
        {
            "candidate/val_macro_f1": 0.75,
            "candidate/clean/val_macro_f1": 100 / 150,
            "images_judged": 300,
            "candidates": 1,
        }
    )


def test_a_first_version_that_falls_short_waits_behind_one_that_does_not() -> None:
    best, good = model("best", 180, sure=0.7), model("good", 150)
    decision = alone(best, good)
    assert decision.passed is not None
    assert decision.passed.candidate is good
    assert reason(decision, decision.passed) == (
        "the first version, the best of 2 candidates, judged on 400 val images that it was not "
        "trained on"
    )
    assert told(decision, but=decision.passed) == [
        "refused: best (val/macro_f1 0.9000): val/calibration/ece 0.2000 is above 0.15"
    ]


def test_where_all_fall_short_the_best_is_the_first_version_and_that_is_said() -> None:
    best, second = model("best", 180, sure=0.7), model("second", 160, sure=0.6)
    decision = alone(best, second)
    assert decision.passed is not None
    assert decision.passed.candidate is best
    assert reason(decision, decision.passed) == (
        "the first version, the best of 2 candidates, judged on 400 val images that it was not "
        "trained on, although val/calibration/ece 0.2000 is above 0.15"
    )


def test_a_model_that_was_trained_on_all_of_val_is_no_first_version() -> None:
    known, unknown = model("known", 190, fitted=NUMBER >= 0), model("lost", 190, unknown="gone")
    decision = alone(known, unknown)
    assert decision.passed is None
    assert [verdict.refusals for verdict in decision.verdicts] == [
        ["it was trained on every val image: nothing shows what it has learnt"],
        ["unknown which val images lost was trained on: gone"],
    ]


# What is told


@pytest.mark.parametrize(
    ("refused", "last"),
    [
        (5, "refused: m4 (val/macro_f1 0.5500): "),
        (6, "refused: 1 more, further down in val/macro_f1"),
        (9, "refused: 4 more, further down in val/macro_f1"),
    ],
)
def test_five_that_were_refused_are_named_and_the_others_counted(refused: int, last: str) -> None:
    held = model("held", 120)
    decision = against(held, *(model(f"m{i}", 114 - i) for i in range(refused)))
    lines = told(decision, but=None)
    assert len(lines) == min(refused, 6)
    assert lines[-1].startswith(last)
    assert len(told(decision, but=decision.verdicts[0])) == min(refused - 1, 6)
