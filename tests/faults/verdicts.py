"""Verdicts where the truth is known: simulated models, held against each other as `fer` does.

A model is a table of how often it gives which answer to which class. Three of five images are
equally hard for all models, so that their answers are correlated; on the others each draws its own.
Images have FER-2013's proportions of classes: 3,589 as PublicTest has, or 300, five of them of the
rarest class.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from scipy import stats

from fer_experiments.evaluation.comparison import SIGNIFICANCE, Pair, pairs
from fer_experiments.evaluation.statistics import superiority
from fer_experiments.scores import recall_of, scores_of
from tests.faults.moments import generator
from tests.faults.results import Result

SUPPORT = {
    3589: np.array([467, 56, 496, 895, 607, 653, 415]),
    300: np.array([39, 5, 41, 75, 51, 55, 34]),
}
# Rows sum to 1; accuracy 0.65, and the classes that are mixed up are those of the field.
TYPICAL = np.array(
    [
        [0.58, 0.01, 0.12, 0.04, 0.11, 0.12, 0.02],
        [0.25, 0.52, 0.08, 0.04, 0.03, 0.07, 0.01],
        [0.12, 0.01, 0.45, 0.04, 0.12, 0.18, 0.08],
        [0.02, 0.00, 0.02, 0.87, 0.05, 0.03, 0.01],
        [0.06, 0.00, 0.06, 0.08, 0.65, 0.13, 0.02],
        [0.11, 0.00, 0.12, 0.05, 0.19, 0.51, 0.02],
        [0.03, 0.00, 0.09, 0.05, 0.03, 0.02, 0.78],
    ]
)
C = len(TYPICAL)
_SHARED = 0.6
# Equally good models: how many, and how many families of them are drawn.
FAMILIES = {2: 20_000, 11: 400, 50: 60}
QUICK_FAMILIES = {2: 60, 11: 20, 50: 2}
_MOST_UNLIKE = 4000  # families of models that are not all the same
CANDIDATES = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often something happened, and how often it may, or must, at least."""

    what: str
    hits: int
    tried: int
    at_most: float = 1.0
    at_least: float = 0.0

    @property
    def percent(self) -> float:
        """Of those tried."""
        return 100 * self.hits / self.tried

    @property
    def problems(self) -> list[str]:
        """Whether it is surely more, or fewer, than may be: one of a thousand chances errs."""
        over = stats.binomtest(self.hits, self.tried, self.at_most, alternative="greater")
        under = stats.binomtest(self.hits, self.tried, self.at_least, alternative="less")
        if min(over.pvalue, under.pvalue) >= 0.001:
            return []
        return [f"expected {100 * self.at_least:g} to {100 * self.at_most:g} %"]


def run(folder: Path, *, quick: bool) -> Result:
    """Simulates; nothing is written."""
    rng = generator("verdicts")
    families = QUICK_FAMILIES if quick else FAMILIES
    rounds = 20 if quick else 400
    every = chain(
        *(equal_models(rng, images, families) for images in SUPPORT),
        *(unequal_models(rng, images, families) for images in SUPPORT),
        *(gates(rng, images, rounds=rounds) for images in SUPPORT),
    )
    found: list[Share] = []
    lost: list[str] = []
    for share in every:
        found.append(share)
        line = f"{share.what}: {share.percent:.1f} % of {share.tried:,}"
        print("  " + "; ".join([line, *share.problems]), flush=True)
        if share.problems:
            lost.append(line)
    seconds = _seconds_of_fifty(rng)
    if seconds >= 60:
        lost.append("50 models take more than a minute")
    note = _note(found, seconds) + (f". Lost: {' | '.join(lost[:3])}" if lost else "")
    tried = len(found) + 1
    return Result(name="verdicts", tried=tried, survived=tried - len(lost), note=note)


def better(share: float) -> np.ndarray:
    """`TYPICAL`, right on this share of its mistakes as well (below 0: wrong more often)."""
    if share < 0:
        return (1 + share) * TYPICAL - share / C
    return (1 - share) * TYPICAL + share * np.eye(C)


def otherwise(support: np.ndarray) -> np.ndarray:
    """As good as `TYPICAL` in macro-F1: more is found of the rarest class, less of the others."""
    low, high = -0.5, 0.0
    for _ in range(40):
        share = (low + high) / 2
        table = better(share)
        table[1] = better(0.6)[1]
        if _truth(table, support)["macro_f1"] < _truth(TYPICAL, support)["macro_f1"]:
            low = share
        else:
            high = share
    return table


def draw(rng: np.random.Generator, tables: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """What models with these tables say of the images: probabilities (M, N, C)."""
    M, N = len(tables), len(labels)
    hard = np.where(rng.random(N) < _SHARED, rng.random(N), rng.random((M, N)))  # (M, N)
    bounds = np.stack([table.cumsum(axis=1) / table.sum(axis=1, keepdims=True) for table in tables])
    named = np.minimum((hard[..., None] >= bounds[:, labels]).sum(axis=2), C - 1)
    sure = rng.uniform(0.3, 0.99, size=(M, N, 1))
    return np.where(np.eye(C, dtype=bool)[named], sure, (1 - sure) / (C - 1))


def equal_models(
    rng: np.random.Generator, images: int, families: Mapping[int, int]
) -> Iterator[Share]:
    """How often any of several equally good models is told apart from any other."""
    kinds = {"equal models": [TYPICAL], "unlike models": [TYPICAL, otherwise(SUPPORT[images])]}
    for kind, tables in kinds.items():
        for models, most in families.items():
            tried = most if kind == "equal models" else min(most, _MOST_UNLIKE)
            if len(tables) > 1 and models > 11:
                continue
            alarms: Counter[str] = Counter()
            for found in _families(rng, images, _in_turn(tables, models), tried):
                alarms.update(_any_below(found, SIGNIFICANCE))
            # Unlike models are equally good in macro-F1 alone.
            scores = ("macro_f1", "accuracy", "log_loss", "recall")[: 4 if len(tables) == 1 else 1]
            for score in scores:
                yield Share(
                    what=f"{models} {kind}, {images:,} images: some differ in {score}",
                    hits=alarms[score],
                    tried=tried,
                    at_most=SIGNIFICANCE,
                )


def unequal_models(
    rng: np.random.Generator, images: int, families: Mapping[int, int]
) -> Iterator[Share]:
    """How often all intervals hold the truth, and how often a difference is found."""
    support = SUPPORT[images]
    for models, tried in ((m, min(families[m], _MOST_UNLIKE)) for m in families if m <= 11):
        tables = [better(share) for share in np.linspace(0.5, -0.2, models)]
        truths = [_truth(table, support) for table in tables]
        hits: Counter[str] = Counter()
        for found in _families(rng, images, tables, tried):
            hits.update(_all_hold(found, truths))
        for score in ("macro_f1", "accuracy", "recall"):
            yield Share(
                what=f"{models} models, {images:,} images: all intervals of {score} hold the truth",
                hits=hits[score],
                tried=tried,
                at_least=1 - SIGNIFICANCE,
            )
    # A share of TYPICAL's mistakes that gives about so many points of macro-F1.
    for models, points in ((2, 2), (11, 3), (2, 8), (11, 12), (11, 35)):
        if (images == 300) != (points > 3):
            continue
        table = _by_points(points, support)
        tried = families[11]
        seen = 0
        for found in _families(rng, images, [table, *[TYPICAL] * (models - 1)], tried):
            seen += sum(p.macro_f1 is not None and p.macro_f1.low > 0 for p in found[: models - 1])
        yield Share(
            what=f"{models} models, {images:,} images: {points} points of macro-F1 are found",
            hits=seen,
            tried=tried * (models - 1),
            at_least=0.99 if points == 35 else 0.2,
        )


def gates(rng: np.random.Generator, images: int, *, rounds: int) -> Iterator[Share]:
    """How often an equally good champion is replaced by the first candidate that passes."""
    labels = np.repeat(np.arange(C), SUPPORT[images])
    for candidates in CANDIDATES:
        replaced: Counter[str] = Counter()
        for _ in range(rounds):
            champion, *others = draw(rng, [TYPICAL] * (candidates + 1), labels)
            for metric in ("macro_f1", "log_loss"):
                sign = -1 if metric == "log_loss" else 1
                replaced[metric] += any(
                    sign * difference.value > 0 and difference.p < SIGNIFICANCE
                    for other in others
                    for difference in [
                        superiority(
                            labels,
                            other,
                            champion,
                            classes=C,
                            metric=metric,
                            candidates=candidates,
                        )
                    ]
                )
        for metric, hits in replaced.items():
            yield Share(
                what=f"gate, {candidates} candidates, {images:,} images: as good in {metric}, yet "
                "replaced",
                hits=hits,
                tried=rounds,
                at_most=SIGNIFICANCE,
            )


def _families(
    rng: np.random.Generator, images: int, tables: Sequence[np.ndarray], tried: int
) -> Iterator[list[Pair]]:
    labels = np.repeat(np.arange(C), SUPPORT[images])
    for _ in range(tried):
        said = draw(rng, tables, labels)
        yield pairs({str(i): p for i, p in enumerate(said)}, labels, classes=C)


def _in_turn(tables: Sequence[np.ndarray], models: int) -> list[np.ndarray]:
    return [tables[i % len(tables)] for i in range(models)]


def _truth(table: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    expected = support[:, None] * table / table.sum(axis=1, keepdims=True)
    return {**scores_of(expected), "recall": recall_of(expected)}


def _by_points(points: float, support: np.ndarray) -> np.ndarray:
    """A table whose macro-F1 is so many hundredths above `TYPICAL`'s."""
    low, high = 0.0, 1.0
    aim = float(_truth(TYPICAL, support)["macro_f1"]) + points / 100
    for _ in range(40):
        share = (low + high) / 2
        low, high = (
            (share, high) if _truth(better(share), support)["macro_f1"] < aim else (low, share)
        )
    return better(share)


def _any_below(found: Sequence[Pair], level: float) -> dict[str, int]:
    compared = [p.comparison for p in found if p.comparison is not None]
    by_score = {
        score: [c.differences[score].p for c in compared]
        for score in ("macro_f1", "accuracy", "log_loss")
    }
    by_score["recall"] = [d.p for c in compared for d in c.recall if d is not None]
    return {score: int(any(p < level for p in values)) for score, values in by_score.items()}


def _all_hold(found: Sequence[Pair], truths: Sequence[Mapping[str, np.ndarray]]) -> dict[str, int]:
    hold = {"macro_f1": 1, "accuracy": 1, "recall": 1}
    for pair in found:
        if pair.comparison is None:
            continue
        one, other = truths[int(pair.first)], truths[int(pair.second)]
        for score in ("macro_f1", "accuracy"):
            d = pair.comparison.differences[score]
            hold[score] &= d.low <= one[score] - other[score] <= d.high
        true_differences = one["recall"] - other["recall"]
        for of_class, truth in zip(pair.comparison.recall, true_differences, strict=True):
            hold["recall"] &= of_class is None or of_class.low <= truth <= of_class.high
    return {score: int(value) for score, value in hold.items()}


def _seconds_of_fifty(rng: np.random.Generator) -> float:
    labels = np.repeat(np.arange(C), SUPPORT[3589])
    said = draw(rng, [better(share) for share in np.linspace(0.5, -0.2, 50)], labels)
    started = time.perf_counter()
    pairs({str(i): p for i, p in enumerate(said)}, labels, classes=C)
    return time.perf_counter() - started


def _note(found: Sequence[Share], seconds: float) -> str:
    """The row's note: the least and the most of each kind."""

    def of(words: str) -> str:
        shares = [s.percent for s in found if words in s.what]
        return f"{min(shares):.1f} to {max(shares):.1f} %"

    power = [
        f"{s.what.split(': ')[1].removesuffix(' are found')} among {s.what.split(',')[0]} on "
        f"{s.what.split(', ', 1)[1].split(':')[0]} in {s.percent:.0f} %"
        for s in found
        if s.what.endswith("are found")
    ]
    return (
        f"simulated models whose truth is known, 2 to 50 at once on 300 and 3,589 images: some of "
        f"equally good ones said to differ in macro-F1 in {of('differ in macro_f1')} of families, "
        f"in accuracy in {of('differ in accuracy')}, in log-loss in {of('differ in log_loss')}; "
        f"all simultaneous intervals hold the truth in {of('hold the truth')}; found: "
        f"{', '.join(power)}; an equally good champion replaced in {of('yet replaced')} with 1 to "
        f"50 candidates; 50 models compared in {seconds:.0f} s"
    )
