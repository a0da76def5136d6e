"""Models on the same images, each pair held against each other, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fer_experiments.evaluation.statistics import Comparison, Difference, compare, holm

# A difference that arises by chance less often than this is called one.
SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models on the same images; every difference is `first` less `second`."""

    first: str
    second: str
    comparison: Comparison
    p_macro_f1: float  # paired bootstrap, corrected for the number of pairs (Holm)
    p_accuracy: float  # McNemar's exact test, corrected likewise

    @property
    def macro_f1(self) -> Difference:
        """Of macro-F1, 0 to 1."""
        return self.comparison.differences["macro_f1"]

    @property
    def accuracy(self) -> Difference:
        """Of accuracy, 0 to 1."""
        return self.comparison.differences["accuracy"]


def pairs(models: Mapping[str, np.ndarray], labels: np.ndarray, *, classes: int) -> list[Pair]:
    """Every pair of models.

    Args:
        models: probabilities (N, C) by label, in the order of rank: of two, the one named earlier
            comes first.
        labels: (N,).
        classes: C.
    """
    names = list(combinations(models, 2))
    found = [compare(labels, models[a], models[b], classes=classes) for a, b in names]
    by_macro_f1 = holm([c.differences["macro_f1"].p for c in found])
    by_accuracy = holm([c.mcnemar.p for c in found])
    return [
        Pair(first=a, second=b, comparison=c, p_macro_f1=float(f1), p_accuracy=float(accuracy))
        for (a, b), c, f1, accuracy in zip(names, found, by_macro_f1, by_accuracy, strict=True)
    ]


def verdict(pair: Pair, class_names: Sequence[str]) -> str:
    """What can be said about the pair, with the numbers that it rests on."""
    macro_f1, accuracy = pair.macro_f1, pair.accuracy
    if pair.p_macro_f1 < SIGNIFICANCE:
        ahead, behind = (
            (pair.first, pair.second) if macro_f1.value > 0 else (pair.second, pair.first)
        )
        opening = f"{ahead} is better than {behind}: macro-F1 by {_points(macro_f1)}"
    else:
        opening = (
            f"{pair.first} and {pair.second} do not differ in macro-F1: {_points(macro_f1, sign=1)}"
        )
    parts = [f"{opening}, p {_p(pair.p_macro_f1)}"]
    differs = "" if pair.p_accuracy < SIGNIFICANCE else "no difference in "
    parts.append(f"{differs}accuracy: {_points(accuracy, sign=1)}, p {_p(pair.p_accuracy)}")
    return "; ".join([*parts, *_by_class(pair, class_names)])


def _by_class(pair: Pair, class_names: Sequence[str]) -> list[str]:
    """On which classes the recall differs, corrected for the number of classes."""
    known = [
        (name, d)
        for name, d in zip(class_names, pair.comparison.recall, strict=True)
        if d is not None
    ]
    adjusted = holm([d.p for _, d in known])
    said: dict[str, list[str]] = {pair.first: [], pair.second: [], "": []}
    for (name, d), p in zip(known, adjusted, strict=True):
        better = pair.first if d.value > 0 else pair.second
        said[better if p < SIGNIFICANCE else ""].append(name)
    parts = [f"{who} finds more of {', '.join(said[who])}" for who in list(said)[:2] if said[who]]
    if said[""]:
        parts.append(f"on {', '.join(said[''])} they do not differ")
    return parts


def _points(difference: Difference, *, sign: int = 0) -> str:
    """`2.1 points (95 % interval 0.9 to 3.3)`: hundredths of the score."""
    value, low, high = (100 * v for v in (difference.value, difference.low, difference.high))
    if not sign and value < 0:
        value, low, high = -value, -high, -low
    form = "+.1f" if sign else ".1f"
    return f"{value:{form}} points (95 % interval {low:{form}} to {high:{form}})"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
