import math

import numpy as np
import pytest
from sklearn import metrics as reference

from fer_experiments.evaluation.metrics import report
from fer_experiments.tracking.writer import metric_name

NAMES = ("angry", "happy", "sad")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 500)
PROBABILITIES = RNG.dirichlet((1, 1, 1), 500).astype(np.float32)


def test_scores_are_scikit_learns() -> None:
    r = report(PROBABILITIES, LABELS, NAMES, split="val")
    predicted = PROBABILITIES.argmax(axis=1)
    assert r.accuracy == reference.accuracy_score(LABELS, predicted)
    assert r.balanced_accuracy == pytest.approx(
        reference.balanced_accuracy_score(LABELS, predicted)
    )
    assert r.macro_f1 == pytest.approx(reference.f1_score(LABELS, predicted, average="macro"))
    assert r.weighted_f1 == pytest.approx(reference.f1_score(LABELS, predicted, average="weighted"))
    assert r.log_loss == pytest.approx(
        -np.log(PROBABILITIES[np.arange(500), LABELS].astype(float)).mean(), rel=1e-6
    )
    np.testing.assert_array_equal(r.confusion, reference.confusion_matrix(LABELS, predicted))
    assert r.images == 500


def test_the_interval_is_wilsons() -> None:
    r = report(PROBABILITIES, LABELS, NAMES, split="val")
    p, n, z = r.accuracy, 500, 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    interval = r.intervals["accuracy"]
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert r.scores()["interval/accuracy_low"] == interval.low


def test_every_score_lies_in_its_interval() -> None:
    r = report(PROBABILITIES, LABELS, NAMES, split="val")
    scores = r.scores()
    for name in ("accuracy", "macro_f1", "weighted_f1", "balanced_accuracy"):
        assert scores[f"interval/{name}_low"] < scores[name] < scores[f"interval/{name}_high"]
        assert r.intervals[name].value == pytest.approx(scores[name])


def test_ranking_and_calibration_are_scikit_learns() -> None:
    scores = report(PROBABILITIES, LABELS, NAMES, split="val").scores()
    for i, name in enumerate(NAMES):
        own, its = i == LABELS, PROBABILITIES[:, i]
        assert scores[f"per_class/roc_auc_{name}"] == reference.roc_auc_score(own, its)
        assert scores[f"per_class/average_precision_{name}"] == (
            reference.average_precision_score(own, its)
        )
    wide = PROBABILITIES.astype(float)
    wide /= wide.sum(axis=1, keepdims=True)
    assert scores["macro_roc_auc"] == pytest.approx(
        reference.roc_auc_score(LABELS, wide, multi_class="ovr"), abs=1e-6
    )
    assert scores["calibration/brier"] == pytest.approx(
        reference.brier_score_loss(LABELS, wide, scale_by_half=False), abs=1e-6
    )
    assert 0 < scores["calibration/ece"] < 1


def test_one_who_knows_the_label_scores_100_percent() -> None:
    r = report(np.eye(3)[LABELS], LABELS, NAMES, split="test")
    assert r.accuracy == r.macro_f1 == r.balanced_accuracy == 1.0
    assert r.log_loss == pytest.approx(0.0, abs=1e-9)


def test_one_who_knows_shuffled_labels_scores_chance() -> None:
    r = report(np.eye(3)[RNG.permutation(LABELS)], LABELS, NAMES, split="test")
    assert r.intervals["accuracy"].low < 1 / 3 < r.intervals["accuracy"].high


def test_a_class_without_images_takes_no_part() -> None:
    labels = np.array([0, 0, 1, 1])
    r = report(np.eye(3)[[0, 0, 1, 2]], labels, NAMES, split="val")
    assert r.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    assert r.balanced_accuracy == pytest.approx(0.75)
    assert "per_class/f1_sad" not in r.scores()
    assert "per_class/roc_auc_sad" not in r.scores()
    assert np.isnan(r.roc_auc[2])
    assert r.macro_roc_auc == pytest.approx(r.roc_auc[:2].mean())


def test_a_single_class_has_no_rank_to_score() -> None:
    r = report(np.eye(3)[[0, 0, 1]], np.zeros(3, dtype=int), NAMES, split="val")
    scores = r.scores()
    assert not {"macro_roc_auc", "per_class/roc_auc_angry"} & set(scores)
    assert "per_class/recall_angry" in scores
    assert np.isfinite(list(scores.values())).all()


def test_mean_scores_of_images_have_intervals() -> None:
    r = report(PROBABILITIES, LABELS, NAMES, split="val")
    for name, value in (("log_loss", r.log_loss), ("brier", r.calibration.brier)):
        interval = r.intervals[name]
        assert interval.value == pytest.approx(value)
        assert interval.low < value < interval.high
        assert r.scores()[f"interval/{name}_low"] == interval.low


def test_one_image_is_judged() -> None:
    scores = report(np.eye(3)[[0]], np.array([0]), NAMES, split="val").scores()
    assert "interval/log_loss_low" not in scores  # nothing is known of the spread
    assert scores["interval/macro_f1_high"] == 1
    assert scores["interval/macro_f1_low"] < 0.3


def test_every_class_has_scores_of_its_own_whatever_it_is_called() -> None:
    names = ("sad", "sad(1)", "sad[1]", "sad_1_", "so-so. : ok", "très triste", "joy!", "x" * 300)
    labels = np.arange(400) % 8
    confused = np.where(np.arange(400) % 80 < 8 * labels, labels, 7)
    r = report(np.eye(8)[confused], labels, names, split="test")
    recall = {
        name.removeprefix("per_class/recall_"): value
        for name, value in r.scores().items()
        if name.startswith("per_class/recall_")
    }
    assert list(recall.values()) == pytest.approx(r.recall.tolist())
    assert len(set(r.recall)) == 8
    # Ordinary names, and those that are alone in what is left of them, stand as ever.
    assert [list(recall)[i] for i in (0, 3, 4, 5, 6)] == [
        "sad", "sad_1_", "so-so. : ok", "très triste", "joy_",
    ]  # fmt: skip
    for name in (f"test/{name}" for name in r.scores()):
        assert metric_name(name) == name
        assert len(name) <= 250  # what MLflow takes
    other = report(np.eye(3)[labels % 3], labels % 3, ("sad[1]", "sad(1)", "glad"), split="test")
    again = [name for name in other.scores() if name.startswith("per_class/recall_sad")]
    assert set(again) == {f"per_class/recall_{list(recall)[i]}" for i in (1, 2)}


def test_a_constant_prediction_shows() -> None:
    r = report(np.tile([0.2, 0.5, 0.3], (500, 1)), LABELS, NAMES, split="val")
    assert r.predicted_classes == 1
    assert r.scores()["per_class/recall_happy"] == 1.0


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [(np.ones((2, 3)), np.zeros(3)), (np.ones((2, 2)), np.zeros(2)), (np.ones((0, 3)), np.ones(0))],
)
def test_shapes_that_do_not_agree_are_refused(
    probabilities: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="Expected probabilities"):
        report(probabilities, labels, NAMES, split="val")
