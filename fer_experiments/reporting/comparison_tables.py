"""Evaluated models side by side, their settings, classes, pairs: the tables of `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from fer_experiments.config import FIELDS, Config
from fer_experiments.evaluation.comparison import Pair
from fer_experiments.evaluation.metrics import Report
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.reporting.tables import NONE, Link, interval
from fer_experiments.tracking import names, pages
from fer_experiments.tracking.evaluations import Evaluation, Matches
from fer_experiments.tracking.runs import RunRecord

HEADER = (
    "model",
    "val accuracy", "val macro-F1", "val leak-free images", "val leak-free accuracy",
    "val leak-free macro-F1", "val ECE", "val photo accuracy",
    "test accuracy", "test macro-F1", "test leak-free images", "test leak-free accuracy",
    "test leak-free macro-F1", "test ECE",
    "parameters", "training s", "images/s", "MB",
)  # fmt: skip
PAIR_HEADER = (
    "first", "second", "images", "macro-F1 difference", "low", "high", "p",
    "accuracy difference", "accuracy low", "accuracy high", "accuracy p", "why not compared",
)  # fmt: skip
FOOTNOTE = (
    "Ranked by macro-F1 on the leak-free images of val: those that the model was not trained on. A "
    "star marks scores on val of a model whose epoch, temperature or the like was chosen on val: "
    "they flatter; test does not. Intervals are 95 %. Differences are paired over the images that "
    "neither of the two was trained on; their intervals and p hold for all pairs at once "
    "(Bonferroni). Photo accuracy: on val's faces pasted into larger pictures and found again."
)
# Settings that a model's label tells.
_IN_LABEL = ("backbone", "stage", "recipe", "seed")


def model_row(evaluation: Evaluation) -> list[str]:
    """A model's cells under `HEADER`."""
    m = evaluation.metrics
    star = "*" if evaluation.picked_on_val else ""

    def scores(split: str) -> list[str]:
        if f"{split}/accuracy" not in m:
            return [NONE] * 6
        _, accuracy, macro_f1, ece = scores_in_words(evaluation, split)
        mark = star if split == "val" else ""
        clean = ["unknown" if evaluation.overlap_unknown else "0", NONE, NONE]
        if f"{split}/clean/accuracy" in m:
            images, *scores, _ = scores_in_words(evaluation, f"{split}/clean")
            clean = [images, *(score + mark for score in scores)]
        return [accuracy + mark, macro_f1 + mark, *clean, ece]

    def plain(name: str, form: str) -> str:
        return format(m[name], form) if name in m else NONE

    return [
        evaluation.label,
        *scores("val"),
        plain("val/photo/accuracy", ".1%"),
        *scores("test"),
        plain("weights/parameters", ",.0f"),
        plain("time/train_seconds_total", ".0f"),
        plain("time/val_images_per_second", ".0f"),
        plain("weights/file_megabytes", ".1f"),
    ]


def _told_apart(ranked: Sequence[Evaluation], *, hidden: Sequence[str] = ()) -> list[int]:
    """Columns of `HEADER` that say something: not empty, and leak-free ones where they differ."""
    left_out = set(hidden)
    for split in ("val", "test"):
        if all(e.metrics.get(f"{split}/images_with_twin") == 0 for e in ranked):
            left_out |= {head for head in HEADER if head.startswith(f"{split} leak-free")}
    rows = [model_row(e) for e in ranked]
    return [
        i
        for i, head in enumerate(HEADER)
        if head not in left_out and any(row[i] != NONE for row in rows)
    ]


def terminal_table(ranked: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """A row per model, with the columns that matter most."""
    splits = ("val", "test")
    hidden = [f"{s} leak-free {what}" for s in splits for what in ("images", "accuracy")]
    wanted = _told_apart(ranked, hidden=["MB", *hidden])
    rows = [model_row(e) for e in ranked]
    return [HEADER[i] for i in wanted], [[row[i] for i in wanted] for row in rows]


def scores_by_model(
    ranked: Sequence[Evaluation], sources: Mapping[str, RunRecord | None]
) -> list[list[object]]:
    """A row per score and a column per model, after the row's name; the last rows link the runs.

    Args:
        ranked: the models.
        sources: by label, the run that made the model; None: it is gone.
    """
    cells = [model_row(e) for e in ranked]
    # The first is the model's label, which heads its column.
    rows: list[list[object]] = [
        [HEADER[i], *(row[i] for row in cells)] for i in _told_apart(ranked)[1:]
    ]
    return [
        *rows,
        ["training run", *(_training(e, sources[e.label]) for e in ranked)],
        ["evaluation run", *(_link(e.run.id[:8], e.run) for e in ranked)],
    ]


def _training(evaluation: Evaluation, source: RunRecord | None) -> Link | str:
    what = f"{evaluation.tags[names.SOURCE_STAGE]} {evaluation.tags[names.SOURCE_RUN][:8]}"
    return f"{what} (deleted)" if source is None else _link(what, source)


def _link(text: str, run: RunRecord) -> Link:
    return Link(text=text, address=pages.run(run.experiment_id, run.id))


def settings_that_differ(
    ranked: Sequence[Evaluation], sources: Mapping[str, RunRecord | None], *, whole: bool = True
) -> list[list[str]]:
    """A row per setting that is not the same for all models: its name, then each model's value.

    Args:
        ranked: the models.
        sources: see `scores_by_model`; their settings are the evaluation's where they are gone.
        whole: those that a model's label tells, too.
    """
    # What a setting was before there was such a setting.
    before = {name: str(value) for name, value in Config.from_stored({}).flat().items()}
    of_models = []
    for e in ranked:
        source = sources[e.label]
        own = {} if source is None else source.params
        of_models.append({**before, **e.run.params, **own, "stage": e.tags[names.SOURCE_STAGE]})
    rows = [
        [name, *("none" if of[name] == "None" else of[name] for of in of_models)]
        for name in ("stage", "recipe", *FIELDS)
        if whole or name not in _IN_LABEL
    ]
    return [row for row in rows if len(set(row[1:])) > 1]


CLASS_HEADER = ("class", "images", "judging the best two")


def f1_by_class(
    reports: Mapping[str, Report], judged: Sequence[int] | None
) -> tuple[list[str], list[list[str]]]:
    """A row per class: how many images it has, and each model's F1 on them; then their sum.

    Args:
        reports: of the models by label, at least one, of the same images.
        judged: how many images of each class the best two are compared on, (C,), if these are not
            all; None: all, or the best two are not compared.

    Returns:
        The heads before the models' columns, and the rows.
    """
    first = next(iter(reports.values()))
    rows = []
    for i, name in enumerate(first.class_names):
        counts = [first.support[i]] if judged is None else [first.support[i], judged[i]]
        f1 = [f"{report.f1[i]:.3f}" if report.support[i] else NONE for report in reports.values()]
        rows.append([name, *(f"{count:,}" for count in counts), *f1])
    sums = [first.images] if judged is None else [first.images, sum(judged)]
    scores = [f"{report.macro_f1:.3f}" for report in reports.values()]
    rows.append(["all images, macro-F1", *(f"{count:,}" for count in sums), *scores])
    return list(CLASS_HEADER[: 1 + len(sums)]), rows


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
    for d in (pair.macro_f1, pair.accuracy):
        cells += [NONE] * 4 if d is None else [*_signed(d), f"{d.p:.4g}"]
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
            named = ", ".join(
                f"{e.label} on {e.tags['dataset_name']} {e.fingerprint[:8]}" for e in those[:5]
            )
            more = f" and {len(those) - 5} more" if len(those) > 5 else ""
            lines.append(f"not compared, {why}: {named}{more}")
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
