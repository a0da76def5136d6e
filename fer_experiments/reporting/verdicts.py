"""What can be said of two models that were held against each other, in words."""

from __future__ import annotations

from collections.abc import Sequence

from fer_experiments.evaluation.comparison import SIGNIFICANCE, Pair, equivalent
from fer_experiments.evaluation.statistics import Comparison, Difference
from fer_experiments.tracking.evaluations import Evaluation


def winner(ranked: Sequence[Evaluation], paired: Sequence[Pair], split: str) -> str:
    """Who leads by which score, and whether that is shown to be better than the second.

    Args:
        ranked: the models, the best first, as `evaluations.ranked` does.
        paired: every pair of them, the best two first.
        split: on which the pairs were held against each other.
    """
    first = ranked[0]
    if len(ranked) == 1:
        return f"{first.label} is the only model: macro-F1 {_ranking_score(first)}"
    level = _rank(first) == _rank(ranked[1])
    who = f"{first.label} and {ranked[1].label} lead together" if level else f"{first.label} leads"
    against = _against_second(paired[0], split, level=level)
    tested = sum(pair.comparison is not None for pair in paired)
    if paired[0].comparison is not None and tested > 1:
        against += f" (corrected for {tested} pairs)"
    return f"{who} by macro-F1 {_ranking_score(first)}; {against}"


def _rank(e: Evaluation) -> tuple[bool, float]:
    clean = e.clean_score("val/macro_f1")
    return clean is None, e.metrics["val/macro_f1"] if clean is None else clean


def _ranking_score(e: Evaluation) -> str:
    """`0.612 on 3,500 of 3,589 images of val`: what the model is ranked by."""
    unclean, score = _rank(e)
    every = f"{e.metrics['val/images']:,.0f} images of val"
    if unclean:
        seen = "unknown" if e.overlap_unknown else "all"
        return f"({score:.3f} on {every}; images that it was trained on: {seen})"
    images = e.metrics["val/clean/images"]
    if images == e.metrics["val/images"]:
        return f"({score:.3f} on {every})"
    return f"({score:.3f} on {images:,.0f} of {every} that it was not trained on)"


def _against_second(pair: Pair, split: str, *, level: bool) -> str:
    it, second = ("the first", "the second") if level else ("it", f"the second, {pair.second}")
    macro_f1 = pair.macro_f1
    if macro_f1 is None:
        return f"{it} is not compared with {second}: {pair.not_compared}"
    of = f" of {pair.images + pair.left_out:,}" if pair.left_out else ""
    on = f"on {pair.images:,}{of} images of {split}"
    within = ""
    if pair.delta is not None and equivalent(macro_f1, pair.delta):
        within = f"equivalent within {100 * pair.delta:g} points"
    if macro_f1.p < SIGNIFICANCE:
        which = "better" if macro_f1.value > 0 else "worse"
        also = f", {within}" if within else ""
        found, points = (
            f"{it} is shown to be {which} than {second}",
            f"by {_points(macro_f1)}{also}",
        )
    else:
        found = f"no difference shown between {it} and {second}"
        if within:
            found = f"{it} and {second} are {within}"
        points = _points(macro_f1, sign=1)
    return f"{found}, {on}: {points}, p {_p(macro_f1.p)}"


def verdict(pair: Pair, class_names: Sequence[str]) -> str:
    """What can be said about the pair, with the numbers that it rests on."""
    on = f"on {pair.images:,} of {pair.images + pair.left_out:,} images"
    if pair.comparison is None:
        among = f", {on}" if pair.left_out else ""
        return f"{pair.first} and {pair.second} are not compared: {pair.not_compared}{among}"
    macro_f1, accuracy = (pair.comparison.differences[name] for name in ("macro_f1", "accuracy"))
    within = "" if pair.delta is None else f" within {100 * pair.delta:g} points"
    same = {
        name: pair.delta is not None and equivalent(difference, pair.delta)
        for name, difference in pair.comparison.differences.items()
    }
    points = _points(macro_f1, sign=1)
    if macro_f1.p < SIGNIFICANCE:
        ahead, behind = (
            (pair.first, pair.second) if macro_f1.value > 0 else (pair.second, pair.first)
        )
        opening = f"{ahead} is better than {behind}: macro-F1 by {_points(macro_f1)}"
        if same["macro_f1"]:
            opening += f", equivalent{within}"
    elif same["macro_f1"]:
        opening = f"{pair.first} and {pair.second} are equivalent{within} of macro-F1: {points}"
    else:
        opening = (
            f"no difference shown between {pair.first} and {pair.second} in macro-F1: {points}"
        )
    shown = "" if accuracy.p < SIGNIFICANCE else "no difference shown in "
    if same["accuracy"]:
        shown = f"equivalent{within} of "
    parts = [
        f"{opening}, p {_p(macro_f1.p)}",
        f"{shown}accuracy: {_points(accuracy, sign=1)}, p {_p(accuracy.p)}",
        *_by_class(pair, pair.comparison, class_names),
    ]
    return "; ".join([*parts, on] if pair.left_out else parts)


def _by_class(pair: Pair, compared: Comparison, class_names: Sequence[str]) -> list[str]:
    """On which classes a difference in recall is shown, and on which none is."""
    said: dict[str, list[str]] = {pair.first: [], pair.second: [], "": []}
    for name, difference in zip(class_names, compared.recall, strict=True):
        if difference is not None:
            better = pair.first if difference.value > 0 else pair.second
            said[better if difference.p < SIGNIFICANCE else ""].append(name)
    parts = [f"{who} finds more of {', '.join(said[who])}" for who in list(said)[:2] if said[who]]
    if said[""]:
        parts.append(f"no difference shown on {', '.join(said[''])}")
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
