"""Pairs of models, and what is said of them."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from fer_experiments.evaluation import comparison
from fer_experiments.evaluation.comparison import Pair, equivalent, pairs, shortage
from fer_experiments.evaluation.statistics import Comparison, Difference, compare
from fer_experiments.reporting.verdicts import verdict

NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
C = len(NAMES)
SUPPORT = np.array([39, 5, 41, 75, 51, 55, 34])  # 300 in the proportions of FER-2013
LABELS = np.repeat(np.arange(C), SUPPORT)
N = len(LABELS)


def model(skill: float, seed: int) -> np.ndarray:
    """Probabilities (N, C)."""
    own = skill * np.eye(C)[LABELS]
    return softmax(np.random.default_rng(seed).normal(size=(N, C)) + own, axis=1)


def answering(named: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of a model that is 70 % sure of these classes."""
    return 0.7 * np.eye(C)[named] + 0.3 / C


def right_on(share: float, seed: int) -> np.ndarray:
    """Answers that are right on this share of each class, and one class off elsewhere."""
    rng = np.random.default_rng(seed)
    wrong = np.concatenate([rng.permutation(n) >= round(share * n) for n in SUPPORT])
    return answering((LABELS + wrong) % C)


def of(found: list[Pair], first: str, second: str) -> Pair:
    [pair] = [p for p in found if (p.first, p.second) == (first, second)]
    return pair


def test_among_eleven_models_one_that_is_40_points_better_is_shown_to_differ() -> None:
    models = {"best": right_on(0.9, 0)} | {f"m{i}": right_on(0.5, i) for i in range(1, 11)}
    found = pairs(models, LABELS, classes=C)
    assert len(found) == 55
    for pair in found:
        for difference in (pair.macro_f1, pair.accuracy):
            assert difference is not None
            if pair.first == "best":
                assert difference.p < 1e-12
                assert 0.2 < difference.low < 0.4 < difference.high < 0.6
            else:
                assert difference.p > 0.05
                assert difference.low < 0 < difference.high
    assert "best is better than m1: macro-F1 by" in verdict(found[0], NAMES)
    said = verdict(of(found, "m1", "m2"), NAMES)
    assert said.startswith("no difference shown between m1 and m2 in macro-F1: ")
    assert "no difference shown in accuracy: +0.0 points" in said


def test_intervals_and_p_hold_for_all_pairs_at_once() -> None:
    models = {"a": model(2.6, 1), "b": model(2.2, 2), "c": model(2.0, 3)}
    found = pairs(models, LABELS, classes=C)
    assert [(p.first, p.second) for p in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in found:
        alone = compare(LABELS, models[pair.first], models[pair.second], classes=C)
        assert pair.comparison is not None
        for name, difference in pair.comparison.differences.items():
            assert difference.p == pytest.approx(min(1, 3 * alone.differences[name].p))
            assert difference.low < alone.differences[name].low
        one = [d.p for d in alone.recall if d is not None]
        # Of one class's recall: McNemar's test, with one image more.
        both = [models[m].argmax(axis=1) == LABELS for m in (pair.first, pair.second)]
        apart = np.bincount(LABELS, weights=both[0] != both[1])
        lead = np.bincount(LABELS, weights=both[0].astype(int) - both[1])
        z = lead / np.sqrt(SUPPORT * (apart + 0.5) / (SUPPORT + 1))
        expected = 2 * stats.norm.sf(np.abs(z))
        assert one == pytest.approx(np.minimum(1, C * expected))
        several = [d.p for d in pair.comparison.recall if d is not None]
        assert several == pytest.approx(np.minimum(1, 3 * C * expected))


def test_fifty_models_are_compared_and_equal_ones_are_not_told_apart() -> None:
    models = {str(i): model(2.2, i) for i in range(49)} | {"best": model(4.0, 49)}
    found = pairs(models, LABELS, classes=C)
    assert len(found) == 1225
    for pair in found:
        assert pair.macro_f1 is not None
        assert (pair.macro_f1.p < 0.05) == (pair.second == "best"), pair


def test_copies_with_the_same_answers_are_not_tested_and_change_no_other_verdict() -> None:
    a, b = model(2.6, 1), model(1.9, 2)
    softer = softmax(np.log(a) / 3, axis=1)
    plain = pairs({"a": a, "b": b}, LABELS, classes=C)
    found = pairs({"a": a, "softer": softer, "b": b}, LABELS, classes=C)
    copies = of(found, "a", "softer")
    assert copies.not_compared == "they name the same class of every image"
    assert (copies.comparison, copies.macro_f1, copies.accuracy) == (None, None, None)
    assert verdict(copies, NAMES) == (
        "a and softer are not compared: they name the same class of every image"
    )
    # Two pairs are tested, not three.
    assert plain[0].macro_f1 is not None
    for name in ("a", "softer"):
        difference = of(found, name, "b").macro_f1
        assert difference is not None
        assert difference.p == pytest.approx(2 * plain[0].macro_f1.p)
    assert pairs({"a": a, "softer": softer}, LABELS, classes=C)[0].comparison is None
    assert pairs({"a": a}, LABELS, classes=C) == []


def test_a_pair_is_judged_on_the_images_that_neither_was_trained_on() -> None:
    models = {"a": model(2.6, 1), "b": model(2.0, 2), "c": model(2.2, 3)}
    usable = {"a": np.arange(N) % 10 != 0, "b": np.arange(N) % 7 != 0}
    found = pairs(models, LABELS, classes=C, usable=usable)
    both = usable["a"] & usable["b"]
    for names, images in ((("a", "b"), both), (("a", "c"), usable["a"]), (("b", "c"), usable["b"])):
        pair = of(found, *names)
        assert (pair.images, pair.left_out) == (images.sum(), (~images).sum())
        one, other = (models[m][images] for m in names)
        expected = compare(LABELS[images], one, other, classes=C, comparisons=3)
        assert pair.comparison == expected
        assert verdict(pair, NAMES).endswith(f"; on {images.sum()} of 300 images")
    assert "images" not in verdict(pairs(models, LABELS, classes=C)[0], NAMES)


def test_on_too_few_images_or_without_a_class_nothing_is_said() -> None:
    models = {"a": model(2.6, 1), "b": model(2.0, 2), "c": model(2.2, 3)}
    few = np.arange(N) % 3 != 0  # 200 images
    fewer = few & (np.arange(N) != 1)
    found = pairs(models, LABELS, classes=C, usable={"a": few, "b": fewer})
    assert of(found, "a", "c").not_compared is None
    assert of(found, "a", "c").images == 200
    assert of(found, "a", "b").not_compared == "199 images are left, fewer than 200"
    assert verdict(of(found, "a", "b"), NAMES) == (
        "a and b are not compared: 199 images are left, fewer than 200, on 199 of 300 images"
    )
    assert comparison.MINIMUM_IMAGES == 200
    assert shortage(LABELS[:150], np.full(150, True)) == "150 images, fewer than 200"

    without = {"b": LABELS != 1}
    found = pairs(models, LABELS, classes=C, usable=without, class_names=NAMES)
    assert of(found, "a", "b").not_compared == "no image is left of disgust"
    assert of(found, "a", "c").not_compared is None
    assert shortage(LABELS, (LABELS != 1) & (LABELS != 6)) == "no image is left of class 1, class 6"
    # A class that the split never had is not gone.
    assert shortage(LABELS[LABELS != 1], np.full(N - 5, True)) is None


def test_of_two_models_the_better_one_is_named_with_the_difference_in_its_favour() -> None:
    models = {"worse": right_on(0.5, 1), "better": right_on(0.9, 0)}
    [pair] = pairs(models, LABELS, classes=C)
    assert pair.macro_f1 is not None and pair.accuracy is not None
    value, low, high = (
        100 * v for v in (pair.macro_f1.value, pair.macro_f1.low, pair.macro_f1.high)
    )
    assert low < value < high < 0
    accuracy = pair.accuracy
    assert verdict(pair, NAMES).startswith(
        f"better is better than worse: macro-F1 by {-value:.1f} points (95 % interval "
        f"{-high:.1f} to {-low:.1f}), p below 0.001; accuracy: {100 * accuracy.value:+.1f} points "
        f"(95 % interval {100 * accuracy.low:+.1f} to {100 * accuracy.high:+.1f}), p below 0.001; "
    )


def test_models_are_equivalent_only_by_a_delta_that_was_given() -> None:
    a = right_on(0.8, 0)
    named = a.argmax(axis=1)
    named[[0, 50, 250]] = (LABELS[[0, 50, 250]] + 2) % C
    b = answering(named)
    for delta, said in (
        (None, "no difference shown between a and b in macro-F1: "),
        (0.005, "no difference shown between a and b in macro-F1: "),
        (0.05, "a and b are equivalent within 5 points of macro-F1: "),
    ):
        [pair] = pairs({"a": a, "b": b}, LABELS, classes=C, delta=delta)
        assert verdict(pair, NAMES).startswith(said)
        assert ("equivalent" in verdict(pair, NAMES)) is (delta == 0.05)
        difference = pair.macro_f1
        assert difference is not None
        if delta:
            # Two one-sided tests: the difference is above -delta, and below delta.
            error = (difference.high - difference.value) / stats.norm.ppf(0.975)
            p = max(
                stats.norm.sf((difference.value + delta) / error),
                stats.norm.sf((delta - difference.value) / error),
            )
            assert equivalent(difference, delta) is bool(p < 0.025) is (delta == 0.05)
    for wrong in (0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="Expected delta to be above 0"):
            pairs({"a": a, "b": b}, LABELS, classes=C, delta=wrong)


@pytest.mark.parametrize(
    ("low", "high", "same"),
    [(-0.01, 0.01, True), (0.005, 0.015, True), (-0.03, 0.01, False), (-0.01, 0.03, False)],
)
def test_an_interval_that_reaches_delta_on_either_side_shows_no_equivalence(
    low: float, high: float, same: bool
) -> None:
    difference = Difference(value=(low + high) / 2, low=low, high=high, p=0.5)
    assert equivalent(difference, 0.02) is same


def test_a_difference_may_be_sure_and_small() -> None:
    sure = Difference(value=0.01, low=0.004, high=0.016, p=0.001)
    pair = Pair(
        first="a",
        second="b",
        images=300,
        left_out=0,
        not_compared=None,
        comparison=Comparison(differences={"macro_f1": sure, "accuracy": sure}, recall=()),
        delta=0.02,
    )
    assert verdict(pair, ()) == (
        "a is better than b: macro-F1 by 1.0 points (95 % interval 0.4 to 1.6), equivalent within "
        "2 points, p 0.001; equivalent within 2 points of accuracy: +1.0 points (95 % interval "
        "+0.4 to +1.6), p 0.001"
    )


def test_a_verdict_names_who_is_ahead_and_on_which_classes() -> None:
    named = right_on(0.6, 0).argmax(axis=1)
    better = np.where((LABELS == 3) | (LABELS == 5), LABELS, named)
    worse = np.where(LABELS == 4, (LABELS + 1) % C, better)
    models = {"plain": answering(named), "better": answering(better), "odd": answering(worse)}
    found = pairs(models, LABELS, classes=C)
    said = verdict(of(found, "plain", "better"), NAMES)
    assert said.startswith("better is better than plain: macro-F1 by ")
    assert "better finds more of happy, sad; " in said
    assert said.endswith("no difference shown on angry, disgust, fear, neutral, surprise")
    said = verdict(of(found, "better", "odd"), NAMES)
    assert said.startswith("better is better than odd: macro-F1 by ")
    assert "better finds more of neutral; " in said
    assert "odd finds" not in said
    said = verdict(of(found, "plain", "odd"), NAMES)
    assert "plain finds more of neutral; odd finds more of happy, sad; " in said
