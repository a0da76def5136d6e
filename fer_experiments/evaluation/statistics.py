"""How sure a score is, and whether two models differ: counts in, intervals and p values out.

Everything is about other images with as many of each class as the split has, and every class is
given half an image more, a quarter right and a quarter wrong: otherwise a class whose five images
are all named rightly would have no spread at all.

**Intervals of a score** are bootstrapped: images are resampled within their class, by drawing each
row of the confusion matrix anew from a multinomial distribution, which is hundreds of times faster
than resampling images. The interval is the percentile one, widened to the measured value where need
be. That was chosen by simulation, 1,000 draws of each of three models, of accuracy 0.41, 0.65 and
0.91, 7 classes in the proportions of FER-2013:

- On 3,589 images, 93.9 to 95.8 % of the 95 % intervals hold the truth (macro-F1: 94.3 to 95.5 %).
- On 300 images, 5 of them of one class, 92.4 to 97.9 % do. Without the half image it is 86 to 96 %
  with percentile intervals and, of 600 draws, 83 to 95 % with basic and 87 to 95 % with BCa ones.

**Differences of two models** are not resampled, so that p has no smallest value and can be
corrected for any number of comparisons. Each image moves the difference by what its two answers add
to the two scores (the delta method); a score test holds the difference against the spread that it
would have if the models were equally good, that is, if each image could as well have had its two
answers the other way round. For accuracy that is McNemar's test without its continuity correction.
The interval takes the spread at the difference in question, as Wilson's does for a share: when the
test is passed, the classes' differences are taken to shrink in proportion, and the interval holds
all differences that would pass; otherwise it has the spread of no difference. So it leaves 0 out
exactly where p is below 0.05.

In the simulation of `make faults ARGS="--only verdicts"`, of models that give the same
answer for six or more images of ten:

- Equal models are told apart in 5.0 % of 20,000 pairs by macro-F1, 4.9 % by accuracy and 5.1 % by
  log-loss on 3,589 images; in 2.5, 4.7 and 5.0 % on 300. Corrected for all pairs, some are in 0 to
  4.2 % of 400 families of 11 and in 0 to 1.7 % of 60 families of 50.
- The intervals hold the truth in 94.2 to 95.4 % of 4,000 pairs of unequal models on 3,589 and on
  300 images, and all 55 of 11 models do in 95.0 to 98.2 % of 400 families, but for those of recall
  on 300 images: 92.2 % (89.2 to 94.6), with five images of one class. With half an image they did
  so in 89 % of pairs, since five images often show no disagreement; one whole image is added there.
- Of 400 pairs, two points of macro-F1 are seen in 45 % on 3,589 images, eight in 54 % on 300; 35
  points among 11 models on 300 images always.
- A promotion rule that asks `superiority` replaces an equally good champion in 0 to 3.0 % of 400
  times, with 1, 2, 5, 10, 20 and 50 candidates, by macro-F1 and by log-loss.

Everything is deterministic: resampling starts from a seed of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from fer_experiments.scores import recall_of, scores_of

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
EXTRA = 0.5  # images that smoothing adds to a class
EXTRA_ALONE = 1.0  # the same, where the recall of one class is compared
SCORES = ("accuracy", "macro_f1", "weighted_f1", "balanced_accuracy")  # of the named classes


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with the interval that holds the truth for 95 % of samples of images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A score of the first model less that of the second on the same images, 95 % interval.

    Interval and p are of one kind: corrected for the same number of comparisons, and the interval
    leaves 0 out exactly where p is below 0.05.
    """

    value: float
    low: float
    high: float
    p: float  # two-sided, of no difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images."""

    differences: Mapping[str, Difference]  # by score; log_loss in nats, where less is better
    recall: tuple[Difference | None, ...]  # (C,), None for a class without images


def wilson(right: int, images: int) -> Interval:
    """The share of images that are named rightly, with Wilson's interval."""
    interval = stats.binomtest(right, images).proportion_ci(LEVEL, method="wilson")
    share = right / images
    # Rounding may put a bound past the share itself when that is 0 or 1.
    return Interval(
        value=share,
        low=min(float(interval.low), share),
        high=max(float(interval.high), share),
    )


def intervals(confusion: np.ndarray, *, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Every score of a confusion matrix (C, C) of at least one image, with its interval.

    Accuracy has Wilson's, the others the smoothed bootstrap's.
    """
    C = len(confusion)
    kinds = _right_or_wrong(C)  # (C, C)
    drawn = scores_of(_redrawn(confusion, EXTRA * kinds, resamples))  # each (resamples,)
    measured = scores_of(confusion)
    found = {name: _interval(float(measured[name]), drawn[name]) for name in measured}
    return found | {"accuracy": wilson(int(np.trace(confusion)), int(np.sum(confusion)))}


def mean_interval(values: np.ndarray, labels: np.ndarray) -> Interval:
    """The mean of a score by image, such as its log-loss, values and labels (N,).

    Student's t with the spread within each class and Satterthwaite's degrees of freedom. Without
    two images of any class nothing is known of the spread: the interval is -inf to inf.
    """
    mean, error, freedom = _mean_by_class(values, labels)
    reach = float(stats.t.ppf(TAILS[1], freedom)) * error if freedom else np.inf
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    classes: int,
    comparisons: int = 1,
) -> Comparison:
    """Compares two models on the same images; differences are the first less the second.

    Scores of the named classes have the score test described above, log-loss has Student's t as in
    `mean_interval` on the differences by image. Models that name the same class of every image
    differ by 0 in the former, interval 0 to 0, p 1.

    Args:
        labels: int, (N,), 0 to classes-1.
        first: probabilities, (N, classes), in the order of `labels`.
        second: the same of the other model.
        classes: how many there are.
        comparisons: how many pairs are looked at: each score's interval and p are corrected for
            that number, those of recall for the number of classes as well (Bonferroni).

    Raises:
        ValueError: the shapes do not agree, or there is no image or no comparison.
    """
    shape = (len(labels), classes)
    if not len(labels) or labels.ndim != 1 or first.shape != shape or second.shape != shape:
        raise ValueError(
            f"Expected labels (N,), N above 0, and two arrays of probabilities (N, {classes}). "
            f"Received: labels {labels.shape}, first {first.shape}, second {second.shape}"
        )
    if comparisons < 1:
        raise ValueError(f"Expected comparisons to be at least 1. Received: {comparisons}")
    named = first.argmax(axis=1), second.argmax(axis=1)
    cells = np.ravel_multi_index((labels, *named), (classes,) * 3)
    joint = np.bincount(cells, minlength=classes**3).reshape((classes,) * 3)
    found = _differences(joint, comparisons)
    losses = log_losses(first, labels) - log_losses(second, labels)
    tested = dict(zip(SCORES, found, strict=False))
    return Comparison(
        differences=tested | {"log_loss": _mean_difference(losses, labels, comparisons)},
        recall=tuple(
            difference if images else None
            for difference, images in zip(found[len(SCORES) :], joint.sum(axis=(1, 2)), strict=True)
        ),
    )


def superiority(
    labels: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray,
    *,
    classes: int,
    metric: str,
    candidates: int,
) -> Difference:
    """Whether a candidate is better than the champion, when several candidates were looked at.

    Args:
        labels: int, (N,), 0 to classes-1.
        candidate: probabilities, (N, classes), in the order of `labels`.
        champion: the same of the champion.
        classes: how many there are.
        metric: accuracy, balanced_accuracy, macro_f1, weighted_f1 or log_loss.
        candidates: how many were looked at to find this one; interval and p are corrected for it.

    Returns:
        The candidate's score less the champion's. It is better where the interval lies above 0
        (log_loss: below).

    Raises:
        ValueError: the metric is none of these, or see `compare`.
    """
    if metric not in (*SCORES, "log_loss"):
        raise ValueError(
            f"Expected metric to be one of {', '.join((*SCORES, 'log_loss'))}. Received: {metric}"
        )
    found = compare(labels, candidate, champion, classes=classes, comparisons=candidates)
    return found.differences[metric]


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-loss of each image in nats, (N,): their mean is scikit-learn's `log_loss`."""
    wide = probabilities.astype(np.float64)
    of_label = wide[np.arange(len(labels)), labels] / wide.sum(axis=1)
    return np.asarray(-np.log(np.maximum(of_label, np.finfo(np.float64).eps)))


def _right_or_wrong(classes: int) -> np.ndarray:
    """A row per true class: half on the class itself, half spread over the others, (C, C)."""
    if classes == 1:
        return np.ones((1, 1))
    return np.where(np.eye(classes, dtype=bool), 0.5, 0.5 / (classes - 1))


def _redrawn(counts: np.ndarray, extra: np.ndarray, resamples: int) -> np.ndarray:
    """Rows of counts (C, K) drawn anew `resamples` times, smoothed by `extra`, (resamples, C, K).

    Each row keeps its sum, so a row of zeros stays one.
    """
    rng = np.random.default_rng(SEED)
    images = np.asarray(counts).sum(axis=1).astype(int)
    shares = counts + extra
    shares = shares / shares.sum(axis=1, keepdims=True)
    return np.stack(
        [rng.multinomial(n, p, size=resamples) for n, p in zip(images, shares, strict=True)], axis=1
    )


def _differences(joint: np.ndarray, comparisons: int) -> list[Difference]:
    """Of each of `SCORES`, then of each class's recall, from counts (true, first, second)."""
    C = len(joint)
    first, second = joint.sum(axis=2), joint.sum(axis=1)
    values = _values(first) - _values(second)  # (S,)
    present = int(np.count_nonzero(first.any(axis=1)))
    several = [comparisons] * len(SCORES) + [comparisons * present] * C
    if not (joint * ~np.eye(C, dtype=bool)).any():  # both name the same class of every image
        return [Difference(value=0.0, low=0.0, high=0.0, p=1.0)] * len(values)
    kinds = _right_or_wrong(C)
    extra = np.repeat([EXTRA, EXTRA_ALONE], [len(SCORES), C])[:, None, None, None]
    shares = joint + extra * kinds[:, :, None] * kinds[:, None, :]
    shares = shares / shares.sum(axis=(2, 3), keepdims=True)  # (S, C, C, C)
    images = first.sum(axis=1)  # (C,)

    # By how much an image of a class, named so by the first and so by the second, moves the
    # difference, (S, C, C, C): where it is, and half-way between the models, where it would be 0.
    here = _slopes(first)[..., :, None] - _slopes(second)[..., None, :]
    between = _slopes((first + second) / 2)
    between = between[..., :, None] - between[..., None, :]
    centre = (shares * here).sum(axis=(2, 3))  # (S, C)
    spread = (images * ((shares * here**2).sum(axis=(2, 3)) - centre**2)).sum(axis=1)
    without = (images * (shares * between**2).sum(axis=(2, 3))).sum(axis=1)
    return [
        _score_test(float(value), max(float(own), 0.0), float(none), n)
        for value, own, none, n in zip(values, spread, without, several, strict=True)
    ]


def _values(confusion: np.ndarray) -> np.ndarray:
    """`SCORES`, then the recall of each class (0 without images), of a confusion matrix, (S,)."""
    scores = scores_of(confusion)
    return np.array([*(scores[name] for name in SCORES), *np.nan_to_num(recall_of(confusion))])


def _slopes(confusion: np.ndarray) -> np.ndarray:
    """Of `_values`, (S, C, C): what one more image of a class (row) named so (column) adds.

    Images by class are fixed, so a slope means something beside others of its row alone.
    """
    C = len(confusion)
    itself = np.eye(C)
    right, support, named = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    present = support > 0
    both = np.where(present, support + named, 1)
    f1 = present * (2 * itself / both - 2 * right / both**2)
    recall = itself / np.where(present, support, 1)
    images, classes = support.sum(), present.sum()
    return np.stack(
        [
            itself / images,
            f1 / classes,
            f1 * support / images,
            recall / classes,
            *(recall * itself[:, [c]] for c in range(C)),
        ]
    )


def _score_test(value: float, spread: float, without: float, comparisons: int) -> Difference:
    """A difference with its variance, and the variance that it would have if there were none."""
    without = max(without, spread)
    z = abs(value) / math.sqrt(without) if without else 0.0  # a single class: always right
    bound = -float(special.ndtri(TAILS[0] / comparisons))
    variance = without
    if z > bound:
        variance = spread / (1 - (bound / value) ** 2 * (without - spread))
    half = bound * math.sqrt(variance)
    return Difference(
        value=value,
        low=max(value - half, -1.0),
        high=min(value + half, 1.0),
        p=min(1.0, comparisons * 2 * float(special.ndtr(-z))),
    )


def _interval(value: float, resampled: np.ndarray) -> Interval:
    low, high = np.quantile(resampled, TAILS)
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def _mean_difference(values: np.ndarray, labels: np.ndarray, comparisons: int) -> Difference:
    if not values.any():
        return Difference(value=0.0, low=0.0, high=0.0, p=1.0)
    mean, error, freedom = _mean_by_class(values, labels)
    if not freedom:
        return Difference(value=mean, low=-np.inf, high=np.inf, p=1.0)
    half = float(stats.t.isf(TAILS[0] / comparisons, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else 0.0
    return Difference(value=mean, low=mean - half, high=mean + half, p=min(1.0, comparisons * p))


def _mean_by_class(values: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Mean, its standard error and degrees of freedom when the images of each class are fixed.

    A class of one image is taken to spread like the others together.
    """
    mean = float(values.mean())
    _, of_class, images = np.unique(labels, return_inverse=True, return_counts=True)
    centred = values - (np.bincount(of_class, weights=values) / images)[of_class]
    squares = np.bincount(of_class, weights=centred**2)
    within = len(values) - len(images)
    if not within:
        return mean, np.inf, 0.0
    several = images > 1
    freedom = images[several] - 1
    alone = np.count_nonzero(~several)
    weights = images[several] + alone * freedom / within
    parts = weights * squares[several] / freedom / len(values) ** 2
    total = parts.sum()
    if not total:
        return mean, 0.0, float(within)
    return mean, float(np.sqrt(total)), float(total**2 / (parts**2 / freedom).sum())
