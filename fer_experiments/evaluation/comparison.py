"""Models on the same images, each pair held against each other, and the verdict in words.

The family is all pairs that are tested: intervals and p of macro-F1 hold for all of them at once
(Bonferroni), those of accuracy likewise, those of recall for all pairs and classes. So no more than
5 % of such tables hold any false alarm about a score, and 95 % of them have the truth in every
interval of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fer_experiments.evaluation.statistics import Comparison, Difference, compare

# A difference that arises by chance less often than this is called one.
SIGNIFICANCE = 0.05
# On fewer images than this, or without a class, no two models are held against each other.
MINIMUM_IMAGES = 200
_SAME_ANSWERS = "they name the same class of every image"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models on the same images; every difference is `first` less `second`."""

    first: str
    second: str
    images: int  # that both may be judged on
    left_out: int  # the others
    not_compared: str | None  # why nothing was tested; None: it was
    comparison: Comparison | None  # corrected for the number of pairs; None: nothing was tested
    delta: float | None = None  # below this, 0 to 1, a difference of shares does not matter

    @property
    def macro_f1(self) -> Difference | None:
        """Of macro-F1, 0 to 1."""
        return None if self.comparison is None else self.comparison.differences["macro_f1"]

    @property
    def accuracy(self) -> Difference | None:
        """Of accuracy, 0 to 1."""
        return None if self.comparison is None else self.comparison.differences["accuracy"]


def pairs(
    models: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    classes: int,
    usable: Mapping[str, np.ndarray] | None = None,
    delta: float | None = None,
    class_names: Sequence[str] | None = None,
) -> list[Pair]:
    """Every pair of models, on the images that both may be judged on.

    Pairs on fewer than `MINIMUM_IMAGES` images, without a class that `labels` have, or with the
    same answer for every image are not tested and do not count among the pairs that are.

    Args:
        models: probabilities (N, C) by label, in the order of rank: of two, the one named earlier
            comes first.
        labels: (N,).
        classes: C.
        usable: (N,) bool by label, the images that the model was not trained on; a model that is
            missing here may be judged on all.
        delta: a difference of macro-F1 or accuracy below this, 0 to 1, does not matter; None: no
            pair is called equivalent.
        class_names: C names in label order, to name a class that is gone.

    Raises:
        ValueError: the shapes do not agree, or delta is not above 0.
    """
    if delta is not None and not delta > 0:
        raise ValueError(f"Expected delta to be above 0. Received: {delta}")
    masks = {name: np.full(len(labels), True) for name in models} | dict(usable or {})
    common = {(a, b): masks[a] & masks[b] for a, b in combinations(models, 2)}
    named = {name: probabilities.argmax(axis=1) for name, probabilities in models.items()}
    refused = {
        (a, b): shortage(labels, images, class_names)
        or (_SAME_ANSWERS if np.array_equal(named[a][images], named[b][images]) else None)
        for (a, b), images in common.items()
    }
    tested = sum(why is None for why in refused.values())

    def compared(a: str, b: str) -> Comparison | None:
        images = common[a, b]
        if refused[a, b] is not None:
            return None
        one, other = models[a][images], models[b][images]
        return compare(labels[images], one, other, classes=classes, comparisons=tested)

    return [
        Pair(
            first=a,
            second=b,
            images=int(images.sum()),
            left_out=int((~images).sum()),
            not_compared=refused[a, b],
            comparison=compared(a, b),
            delta=delta,
        )
        for (a, b), images in common.items()
    ]


def shortage(
    labels: np.ndarray, usable: np.ndarray, class_names: Sequence[str] | None = None
) -> str | None:
    """Why no verdict can rest on the usable images, (N,) bool, of those with these labels (N,).

    They are too few, or a class that the labels have is gone; None: a verdict can.
    """
    left = int(usable.sum())
    if left < MINIMUM_IMAGES:
        are_left = " are left" if left < len(usable) else ""
        return f"{left} images{are_left}, fewer than {MINIMUM_IMAGES}"
    gone = np.setdiff1d(labels, labels[usable])
    if len(gone):
        names = [f"class {i}" if class_names is None else class_names[i] for i in gone]
        return f"no image is left of {', '.join(names)}"
    return None


def equivalent(difference: Difference, delta: float) -> bool:
    """Whether the models differ by less than `delta`, by two one-sided tests (TOST).

    Each is made at the level of one end of the interval: both succeed where the interval lies
    between -delta and delta.
    """
    return -delta < difference.low and difference.high < delta
