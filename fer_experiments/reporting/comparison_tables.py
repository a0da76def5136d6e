"""Evaluated models side by side, seeds pooled, pairs: heads and rows of the tables of `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from fer_experiments.evaluation.comparison import Pair
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.reporting.tables import NONE, interval
from fer_experiments.tracking.evaluations import Evaluation, Matches

HEADER = (
    "model",
    "val accuracy", "val macro-F1", "val clean images", "val clean accuracy", "val clean macro-F1",
    "val ECE",
    "test accuracy", "test macro-F1", "test clean images", "test clean accuracy",
    "test clean macro-F1", "test ECE",
    "parameters", "training s", "images/s", "MB",
)  # fmt: skip
PAIR_HEADER = (
    "first", "second", "images", "macro-F1 difference", "low", "high", "p",
    "accuracy difference", "accuracy low", "accuracy high", "accuracy p", "why not compared",
)  # fmt: skip
FOOTNOTE = (
    "Ranked by macro-F1 on the clean images of val: those that the model was not trained on. A "
    "star marks scores on val of a model whose epoch, temperature or the like was chosen on val: "
    "they flatter; test does not. Intervals are 95 %. Differences are paired over the images that "
    "neither of the two was trained on; their intervals and p hold for all pairs at once "
    "(Bonferroni)."
)


def model_row(evaluation: Evaluation) -> list[str]:
    """A model's cells under `HEADER`."""
    m = evaluation.metrics
    star = "*" if evaluation.picked_on_val else ""

    def scores(split: str) -> list[str]:
        if f"{split}/accuracy" not in m:
            return ["–"] * 6
        _, accuracy, macro_f1, ece = scores_in_words(evaluation, split)
        mark = star if split == "val" else ""
        clean = ["unknown" if evaluation.overlap_unknown else "0", "–", "–"]
        if f"{split}/clean/accuracy" in m:
            images, *scores, _ = scores_in_words(evaluation, f"{split}/clean")
            clean = [images, *(score + mark for score in scores)]
        return [accuracy + mark, macro_f1 + mark, *clean, ece]

    def plain(name: str, form: str) -> str:
        return format(m[name], form) if name in m else "–"

    return [
        evaluation.label,
        *scores("val"),
        *scores("test"),
        plain("weights/parameters", ",.0f"),
        plain("time/train_seconds_total", ".0f"),
        plain("time/val_images_per_second", ".0f"),
        plain("weights/file_megabytes", ".1f"),
    ]


def terminal_table(ranked: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """The columns that fit, without those that nobody has; clean ones where they differ."""
    hidden = {"MB"}
    for split in ("val", "test"):
        hidden |= {f"{split} clean images", f"{split} clean accuracy"}
        if all(e.metrics.get(f"{split}/images_with_twin") == 0 for e in ranked):
            hidden.add(f"{split} clean macro-F1")
    wanted = [i for i, head in enumerate(HEADER) if head not in hidden]
    rows = [model_row(e) for e in ranked]
    wanted = [i for i in wanted if any(row[i] != "–" for row in rows)]
    return [HEADER[i] for i in wanted], [[row[i] for i in wanted] for row in rows]


POOLED_HEADER = ("seeds pooled", "seeds", "split", "accuracy", "macro-F1")


def pooled_seeds(ranked: Sequence[Evaluation]) -> list[list[str]]:
    """Mean and standard deviation over seeds, where models differ in the seed alone."""
    families: dict[tuple[object, ...], list[Evaluation]] = {}
    for e in ranked:
        families.setdefault(e.family, []).append(e)
    rows = []
    for members in families.values():
        seeds = sorted({int(e.run.params["seed"]) for e in members})
        if len(seeds) < 2:
            continue
        by_age = sorted(members, key=lambda e: e.run.started)
        one_each = {e.run.params["seed"]: e for e in by_age}.values()  # the newest of each
        for split in ("val", "test"):
            if all(f"{split}/accuracy" in e.metrics for e in one_each):
                first = next(iter(one_each))
                rows.append(
                    [
                        f"{first.tags['backbone']} {first.tags['source_stage']} "
                        f"{first.tags['recipe']}",
                        ", ".join(map(str, seeds)),
                        split,
                        *(
                            f"{mean(values):{form}} ± {stdev(values):{form}}"
                            for score, form in (("accuracy", ".1%"), ("macro_f1", ".3f"))
                            for values in [[e.metrics[f"{split}/{score}"] for e in one_each]]
                        ),
                    ]
                )
    return rows


def pair_row(pair: Pair) -> list[str]:
    """A pair's cells under `PAIR_HEADER`."""
    cells = [pair.first, pair.second, str(pair.images)]
    for d, form in ((pair.macro_f1, ".4f"), (pair.accuracy, ".4g")):
        cells += ["–"] * 4 if d is None else [*_signed(d), f"{d.p:{form}}"]
    return [*cells, pair.not_compared or ""]


def _signed(difference: Difference) -> list[str]:
    return [f"{v:+.4f}" for v in (difference.value, difference.low, difference.high)]


def set_apart(found: Matches) -> list[str]:
    """Names what was left out because it was judged on other images, or otherwise."""
    lines = []
    for why, those in (
        ("judged on other data", found.other),
        ("judged by an older version of the scores (run fer evaluate again)", found.older),
    ):
        if those:
            names = ", ".join(
                f"{e.label} on {e.tags['dataset_name']} {e.fingerprint[:8]}" for e in those[:5]
            )
            more = f" and {len(those) - 5} more" if len(those) > 5 else ""
            lines.append(f"not compared, {why}: {names}{more}")
    return lines


def scores_in_words(evaluation: Evaluation, split: str) -> list[str]:
    """Images, accuracy, macro-F1, calibration error; the first two scores with intervals."""
    m = evaluation.metrics

    def score(name: str, form: str) -> str:
        low, high = (m.get(f"{split}/interval/{name}_{end}") for end in ("low", "high"))
        return interval(m[f"{split}/{name}"], low, high, form)

    ece = m.get(f"{split}/calibration/ece")
    return [
        f"{m[f'{split}/images']:.0f}",
        score("accuracy", ".1%"),
        score("macro_f1", ".3f"),
        NONE if ece is None else f"{ece:.3f}",
    ]
