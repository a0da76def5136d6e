from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax
from sklearn import metrics as reference
from statsmodels.stats import contingency_tables, multitest, proportion

from fer_experiments.evaluation.statistics import (
    Difference,
    Interval,
    compare,
    intervals,
    log_losses,
    mean_interval,
    superiority,
    wilson,
)
from fer_experiments.scores import recall_of, scores_of
from tests.faults.verdicts import SUPPORT, TYPICAL

C = 7
FER, SMALL = SUPPORT[3589], SUPPORT[300]  # images by class
SCORES = ("accuracy", "macro_f1", "weighted_f1", "balanced_accuracy")
GOOD = 0.25 * TYPICAL + 0.75 * np.eye(C)  # accuracy 0.91
POOR = 0.5 * TYPICAL + 0.5 * FER / FER.sum()  # accuracy 0.41


def models(
    rng: np.random.Generator, support: np.ndarray, *skills: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels and a model's probabilities per skill; they err on the same hard images mostly."""
    labels = np.repeat(np.arange(len(support)), support)
    shape = len(labels), len(support)
    hard = 1.4 * rng.normal(size=shape)
    own = np.eye(len(support))[labels]
    return labels, [
        softmax(hard + 0.8 * rng.normal(size=shape) + skill * own, axis=1) for skill in skills
    ]


LABELS, (FIRST, SECOND) = models(np.random.default_rng(0), SMALL, 2.6, 2.2)
PREDICTED = FIRST.argmax(axis=1)
CONFUSION = reference.confusion_matrix(LABELS, PREDICTED)


def test_scores_are_scikit_learns() -> None:
    expected = {
        "accuracy": reference.accuracy_score(LABELS, PREDICTED),
        "macro_f1": reference.f1_score(LABELS, PREDICTED, average="macro"),
        "weighted_f1": reference.f1_score(LABELS, PREDICTED, average="weighted"),
        "balanced_accuracy": reference.balanced_accuracy_score(LABELS, PREDICTED),
    }
    assert scores_of(CONFUSION) == pytest.approx(expected)
    np.testing.assert_allclose(
        recall_of(CONFUSION), reference.recall_score(LABELS, PREDICTED, average=None)
    )


def test_scores_of_many_matrices_are_those_of_each() -> None:
    many = np.stack([CONFUSION, CONFUSION.T, 2 * CONFUSION]).reshape(3, 1, C, C)
    for name, values in scores_of(many).items():
        assert values.shape == (3, 1)
        each = [scores_of(one[0])[name] for one in many]
        np.testing.assert_allclose(values[:, 0], each)


def test_a_class_without_images_takes_no_part() -> None:
    confusion = np.array([[2, 0, 0], [0, 1, 1], [0, 0, 0]])
    found = scores_of(confusion)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    np.testing.assert_array_equal(recall_of(confusion), [1, 0.5, np.nan])


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (0, 40), (40, 40), (2333, 3589)])
def test_wilson_is_statsmodels(right: int, images: int) -> None:
    found = wilson(right, images)
    low, high = proportion.proportion_confint(right, images, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_accuracy_has_mcnemars_test() -> None:
    labels, [first, second] = models(np.random.default_rng(4), FER, 2.6, 2.5)
    one, other = ((p.argmax(axis=1) == labels).astype(int) for p in (first, second))
    table = np.histogram2d(one, other, bins=2)[0]
    expected = contingency_tables.mcnemar(table, exact=False, correction=False).pvalue
    found = compare(labels, first, second, classes=C).differences["accuracy"]
    assert found.p == pytest.approx(expected, rel=0.02)


def test_the_half_image_of_a_class_makes_mcnemars_test_more_careful() -> None:
    found = compare(LABELS, FIRST, SECOND, classes=C).differences["accuracy"]
    one, other = FIRST.argmax(axis=1) == LABELS, SECOND.argmax(axis=1) == LABELS
    apart = np.bincount(LABELS, weights=one != other)
    z = (one.sum() - other.sum()) / np.sqrt((SMALL * (apart + 0.25) / (SMALL + 0.5)).sum())
    assert found.p == pytest.approx(2 * stats.norm.sf(z), rel=1e-12)


@pytest.mark.parametrize("p", [[0.04], [0.01, 0.04, 0.03, 0.005], [0.6, 0.02, 0.02, 0.9, 0.0]])
def test_several_comparisons_are_corrected_as_by_statsmodels(p: list[float]) -> None:
    """Bonferroni, p and interval alike: their z values are those of p and of 0.05."""
    several = len(p)
    alone = compare(LABELS, FIRST, SECOND, classes=C)
    among = compare(LABELS, FIRST, SECOND, classes=C, comparisons=several)
    for name, one in alone.differences.items():
        p[-1] = one.p
        expected = multitest.multipletests(p, method="bonferroni")[1][-1]
        found = among.differences[name]
        assert found.p == pytest.approx(expected)
        assert (found.p == 1) or (found.low > 0 or found.high < 0) == (found.p < 0.05)
        assert found.high - found.low >= one.high - one.low
        assert found.value == one.value
    for before, after in zip(alone.recall, among.recall, strict=True):
        assert before is not None
        assert after is not None
        assert after.p == pytest.approx(min(1, several * before.p)) or before.p == 1


def test_log_losses_are_scikit_learns() -> None:
    assert log_losses(FIRST, LABELS).mean() == pytest.approx(reference.log_loss(LABELS, FIRST))
    certain = np.eye(C)[(LABELS + (LABELS == 3)) % C]
    assert log_losses(certain, LABELS).mean() == pytest.approx(
        reference.log_loss(LABELS, certain, labels=np.arange(C))
    )


def test_the_interval_is_that_of_resampling_images() -> None:
    """One by one within each class; at this size the half image of smoothing is not felt."""
    rng = np.random.default_rng(3)
    labels, [probabilities] = models(rng, FER, 2.6)
    predicted = probabilities.argmax(axis=1)
    drawn = []
    for _ in range(400):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(labels == c), FER[c], replace=True) for c in range(C)]
        )
        drawn.append(scores_of(reference.confusion_matrix(labels[rows], predicted[rows])))
    found = intervals(reference.confusion_matrix(labels, predicted))
    for name in SCORES:
        low, high = np.quantile([one[name] for one in drawn], (0.025, 0.975))
        assert found[name].low == pytest.approx(low, abs=0.15 * (high - low))
        assert found[name].high == pytest.approx(high, abs=0.15 * (high - low))


def test_the_paired_interval_is_that_of_resampling_images() -> None:
    rng = np.random.default_rng(4)
    labels, [first, second] = models(rng, FER, 2.6, 2.5)
    one, other = first.argmax(axis=1), second.argmax(axis=1)
    drawn = []
    for _ in range(400):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(labels == c), FER[c], replace=True) for c in range(C)]
        )
        a, b = (
            scores_of(np.bincount(C * labels[rows] + named[rows], minlength=C * C).reshape(C, C))
            for named in (one, other)
        )
        drawn.append({name: a[name] - b[name] for name in SCORES})
    found = compare(labels, first, second, classes=C).differences
    for name in SCORES:
        low, high = np.quantile([one[name] for one in drawn], (0.025, 0.975))
        assert found[name].low == pytest.approx(low, abs=0.15 * (high - low))
        assert found[name].high == pytest.approx(high, abs=0.15 * (high - low))


@pytest.mark.parametrize("skill", [2.5, 5.0])
def test_the_paired_interval_is_as_wide_as_a_large_bootstraps_near_and_far_from_0(
    skill: float,
) -> None:
    rng = np.random.default_rng(4)
    labels, [first, second] = models(rng, FER, 2.6, skill)
    joint = np.zeros((C, C, C))  # true, by the first, by the second
    np.add.at(joint, (labels, first.argmax(axis=1), second.argmax(axis=1)), 1)
    rows = [
        rng.multinomial(n, cells.ravel() / n, size=20_000).reshape(-1, C, C)
        for n, cells in zip(FER, joint, strict=True)
    ]
    drawn = np.stack(rows, axis=1)
    a, b = scores_of(drawn.sum(axis=3)), scores_of(drawn.sum(axis=2))
    found = compare(labels, first, second, classes=C, comparisons=10).differences
    for name in SCORES:
        low, high = np.quantile(a[name] - b[name], (0.0025, 0.9975))
        assert found[name].high - found[name].low == pytest.approx(high - low, rel=0.05)
        assert found[name].low == pytest.approx(low, abs=0.05 * (high - low))


def test_the_mean_of_one_class_has_students_interval() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    found = mean_interval(values, np.zeros(40, dtype=int))
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_mean_by_class_is_tighter_than_without_classes() -> None:
    values = LABELS + np.random.default_rng(0).normal(size=len(LABELS))
    within, over = mean_interval(values, LABELS), mean_interval(values, 0 * LABELS)
    assert within.value == pytest.approx(over.value)
    assert within.high - within.low < 0.8 * (over.high - over.low)


def coverage(share: np.ndarray, support: np.ndarray, draws: int) -> dict[str, float]:
    """Percent of intervals, of models that name classes with these shares, that hold the truth."""
    rng = np.random.default_rng(5)
    share = share / share.sum(axis=1, keepdims=True)
    truth = scores_of(share * support[:, None])
    hits: Counter[str] = Counter()
    for _ in range(draws):
        confusion = np.stack([rng.multinomial(*row) for row in zip(support, share, strict=True)])
        for name, found in intervals(confusion, resamples=500).items():
            hits[name] += int(found.low <= truth[name] <= found.high)
    return {name: 100 * hits[name] / draws for name in SCORES}


@pytest.mark.slow
@pytest.mark.parametrize("share", [TYPICAL, GOOD, POOR], ids=["typical", "good", "poor"])
def test_95_percent_of_intervals_cover_the_truth(share: np.ndarray) -> None:
    found = coverage(share, FER, 1000)
    assert all(93 <= percent <= 97 for percent in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("share", [TYPICAL, GOOD, POOR], ids=["typical", "good", "poor"])
def test_95_percent_do_of_300_images_and_a_class_of_5(share: np.ndarray) -> None:
    found = coverage(share, SMALL, 1000)
    # A class of five spoils it: one image of it moves macro-F1 by about three points.
    assert all(92 <= percent <= 99 for percent in found.values()), found


def alarms(support: np.ndarray, first: float, second: float, pairs: int) -> dict[str, float]:
    """Percent of pairs of models with these skills that are told apart at p = 0.05."""
    rng = np.random.default_rng(6)
    found: Counter[str] = Counter()
    for _ in range(pairs):
        labels, probabilities = models(rng, support, first, second)
        compared = compare(labels, *probabilities, classes=C)
        for name, difference in compared.differences.items():
            found[name] += difference.p <= 0.05
    return {name: 100 * found[name] / pairs for name in (*SCORES, "log_loss")}


@pytest.mark.slow
def test_equal_models_are_told_apart_5_percent_of_the_time() -> None:
    found = alarms(SMALL, 2.6, 2.6, 1000)
    assert all(percent <= 6.5 for percent in found.values()), found
    assert found["weighted_f1"] > 3
    assert found["log_loss"] > 3


def test_models_that_differ_by_10_points_of_300_images_are_told_apart() -> None:
    """Skill 3.3 for 2.6 is 0.66 for 0.55 of accuracy, and both name the same class of 0.6."""
    found = alarms(SMALL, 3.3, 2.6, 100)
    assert found["accuracy"] >= 80
    assert found["weighted_f1"] >= 80
    assert found["log_loss"] >= 80


def test_a_comparison_is_the_same_each_time_and_mirrored_when_turned() -> None:
    there = compare(LABELS, FIRST, SECOND, classes=C)
    assert there == compare(LABELS, FIRST, SECOND, classes=C)
    back = compare(LABELS, SECOND, FIRST, classes=C)
    for name, difference in there.differences.items():
        other = back.differences[name]
        assert difference.value == pytest.approx(-other.value)
        assert difference.low == pytest.approx(-other.high)
        assert difference.p == pytest.approx(other.p)


def test_a_comparison_states_what_the_scores_differ_by() -> None:
    found = compare(LABELS, FIRST, SECOND, classes=C)
    other = SECOND.argmax(axis=1)
    a, b = scores_of(CONFUSION), scores_of(reference.confusion_matrix(LABELS, other))
    for name in SCORES:
        assert found.differences[name].value == pytest.approx(a[name] - b[name])
    assert found.differences["log_loss"].value == pytest.approx(
        reference.log_loss(LABELS, FIRST) - reference.log_loss(LABELS, SECOND)
    )
    one, two = (reference.recall_score(LABELS, named, average=None) for named in (PREDICTED, other))
    assert [r.value for r in found.recall if r] == pytest.approx(one - two)


@given(
    seed=st.integers(0, 2**32 - 1),
    support=st.lists(st.integers(0, 60), min_size=1, max_size=C).filter(any),
    skill=st.floats(0, 9),
    comparisons=st.integers(1, 1225),
)
@settings(deadline=None, max_examples=150)
def test_an_interval_leaves_0_out_exactly_where_p_is_below_5_percent(
    seed: int, support: list[int], skill: float, comparisons: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, [first, second] = models(rng, np.array(support), 2.6, skill)
    found = compare(labels, first, second, classes=len(support), comparisons=comparisons)
    for difference in (*found.differences.values(), *filter(None, found.recall)):
        assert difference.low <= difference.value <= difference.high
        assert 0 <= difference.p <= 1
        assert (difference.low > 0 or difference.high < 0) == (difference.p < 0.05)


@pytest.mark.parametrize("score", SCORES)
def test_p_is_that_of_swapping_the_two_answers_of_images(score: str) -> None:
    """By 20,000 resamples: each image's answers as they are, or the other way round."""
    rng = np.random.default_rng(7)
    labels, [first, second] = models(rng, FER, 2.6, 2.53)
    joint = np.zeros((C, C, C), dtype=int)  # true, by the first, by the second
    np.add.at(joint, (labels, first.argmax(axis=1), second.argmax(axis=1)), 1)
    swapped = rng.binomial(joint, 0.5, size=(20_000, C, C, C))
    drawn = joint - swapped + swapped.transpose(0, 1, 3, 2)
    apart = scores_of(drawn.sum(axis=3))[score] - scores_of(drawn.sum(axis=2))[score]
    found = compare(labels, first, second, classes=C).differences[score]
    expected = np.mean(np.abs(apart) > abs(found.value) - 1e-12)
    assert 0.01 < expected < 0.5
    assert found.p == pytest.approx(expected, rel=0.1)


def test_p_is_not_bounded_by_a_number_of_resamples() -> None:
    labels, [first, second] = models(np.random.default_rng(1), SMALL, 2.6, 8.0)
    found = compare(labels, first, second, classes=C, comparisons=1225)
    assert all(difference.p < 1e-6 for difference in found.differences.values())


def test_the_gate_is_corrected_for_the_candidates_that_were_looked_at() -> None:
    asked: dict[str, Any] = {"classes": C, "metric": "macro_f1"}
    alone = superiority(LABELS, FIRST, SECOND, **asked, candidates=1)
    assert alone == compare(LABELS, FIRST, SECOND, classes=C).differences["macro_f1"]
    among = superiority(LABELS, FIRST, SECOND, **asked, candidates=10)
    assert among.p == pytest.approx(10 * alone.p)
    assert alone.value - alone.low < among.value - among.low
    for wrong in ({"metric": "val/macro_f1"}, {"candidates": 0}):
        with pytest.raises(ValueError, match=r"Expected (metric|comparisons) to be"):
            superiority(LABELS, FIRST, SECOND, **{**asked, "candidates": 1, **wrong})


def champions_replaced(candidates: int, rounds: int) -> float:
    """Percent of champions replaced by the best of as many candidates, all equally good."""
    rng = np.random.default_rng(8)
    replaced = 0
    for _ in range(rounds):
        labels, [champion, *others] = models(rng, SMALL, *[2.6] * (candidates + 1))
        replaced += any(
            superiority(
                labels, one, champion, classes=C, metric="macro_f1", candidates=candidates
            ).low
            > 0
            for one in others
        )
    return 100 * replaced / rounds


@pytest.mark.slow
@pytest.mark.parametrize("candidates", [1, 10])
def test_an_equally_good_champion_is_replaced_in_at_most_5_percent(candidates: int) -> None:
    assert champions_replaced(candidates, 400) <= 5


def test_the_log_loss_of_one_class_is_tested_as_by_scipy() -> None:
    labels, [first, second] = models(np.random.default_rng(1), np.array([0, 60]), 1.0, 0.8)
    found = compare(labels, first, second, classes=2).differences["log_loss"]
    expected = stats.ttest_rel(log_losses(first, labels), log_losses(second, labels))
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_a_model_does_not_differ_from_itself() -> None:
    nothing = Difference(value=0.0, low=0.0, high=0.0, p=1.0)
    found = compare(LABELS, FIRST, FIRST, classes=C)
    assert set(found.differences.values()) | set(found.recall) == {nothing}


def test_models_that_name_the_same_classes_may_differ_in_log_loss() -> None:
    softer = softmax(np.log(FIRST) / 3, axis=1)
    found = compare(LABELS, FIRST, softer, classes=C).differences
    assert found["macro_f1"].p == 1
    assert found["log_loss"].p < 0.01


def test_a_perfect_model_is_not_certain_to_stay_so() -> None:
    for found in intervals(np.diag(SMALL)).values():
        assert 0.9 < found.low < found.high == found.value == 1
    certain = np.eye(C)[LABELS]
    compared = compare(LABELS, certain, certain[:, ::-1], classes=C)
    for name in SCORES:
        difference = compared.differences[name]
        assert difference.low < difference.value < difference.high <= 1


def test_one_image_says_nothing() -> None:
    label = np.array([2])
    for found in intervals(reference.confusion_matrix(label, label, labels=range(C))).values():
        assert found.low < 0.3
        assert found.high == 1
    assert mean_interval(np.array([0.7]), label) == Interval(value=0.7, low=-np.inf, high=np.inf)
    compared = compare(label, np.eye(C)[[2]], 0.5 * np.eye(C)[[2]] + 0.5 / C, classes=C)
    assert all(found.p > 0.2 for found in compared.differences.values())
    compared = compare(label, np.eye(C)[[2]], np.eye(C)[[3]], classes=C)
    assert all(found.p > 0.2 for found in compared.differences.values())
    assert [r is None for r in compared.recall] == [i != 2 for i in range(C)]


def test_classes_of_one_image_borrow_the_spread_of_the_others() -> None:
    values, labels = np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, 0, 0, 1])
    found = mean_interval(values, labels)
    error = np.sqrt(4 * 4) / 4  # four images, each with the variance 4 of class 0
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 2) * error)


def test_one_class_alone_is_taken() -> None:
    labels = np.zeros(5, dtype=int)
    assert intervals(np.array([[5]]))["macro_f1"] == Interval(value=1, low=1, high=1)
    ones = np.ones((5, 1))
    assert compare(labels, ones, ones, classes=1).differences["accuracy"].p == 1


@pytest.mark.parametrize(
    ("labels", "first", "second"),
    [
        (np.zeros(0, dtype=int), np.ones((0, C)), np.ones((0, C))),
        (LABELS, FIRST, SECOND[:-1]),
        (LABELS, FIRST[:, :-1], SECOND),
        (LABELS[:, None], FIRST, SECOND),
    ],
)
def test_what_does_not_fit_is_refused(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="Expected labels"):
        compare(labels, first, second, classes=C)


def test_a_difference_that_is_the_same_on_every_image_is_certain() -> None:
    labels = np.repeat([0, 1], 2)  # so few that the sums are exact
    first, second = (
        np.where(np.eye(2, dtype=bool)[labels], sure, 1 - sure) for sure in (0.75, 0.5)
    )
    found = compare(labels, first, second, classes=2).differences["log_loss"]
    assert found.value == found.low == found.high == pytest.approx(np.log(0.5 / 0.75))
    assert found.p == 0
