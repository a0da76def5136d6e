"""`compare`: every evaluated model on the same data, side by side, and each pair's verdict."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev

from matplotlib.figure import Figure

from fer_experiments import console
from fer_experiments.data.prepared import by_fingerprint
from fer_experiments.evaluation import comparison, figures, galleries, html
from fer_experiments.evaluation.comparison import Pair
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.stages import common
from fer_experiments.stages.contestants import contestants, left_out
from fer_experiments.tracking.evaluations import Evaluation, Found, evaluations
from fer_experiments.tracking.evaluations import ranked as by_rank
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.runs import compare_link, histories
from fer_experiments.tracking.writer import Writer

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
# Verdicts that the terminal and the note show; the tables hold all.
_MOST_VERDICTS = 6
_MOST_ROWS = 20  # of a figure


def run(
    *,
    dataset: str | None = None,
    experiment: str | None = None,
    parent: Writer | None = None,
    fingerprint: str | None = None,
    every_form: bool = False,
    delta: float | None = None,
) -> common.StageResult:
    """Writes and prints the tables and verdicts, and draws what a table does not show.

    Args:
        dataset: see `evaluations`.
        experiment: where to write, and the only place to look.
        parent: the run of the job that this is a stage of.
        fingerprint: the very data, if it is known.
        every_form: every form of a model; see `contestants`.
        delta: see `comparison.pairs`.
    """
    found = evaluations(dataset=dataset, experiment=experiment, fingerprint=fingerprint)
    ranked = by_rank(found.same if every_form else contestants(found.same) or found.same)
    best = ranked[0]
    name = f"compare {len(ranked)} on {best.tags['dataset_name']}"
    with open_run("compare", name, experiment=experiment, parent=parent) as writer:
        writer.tags({key: best.tags[key] for key in ("dataset_name", "dataset_fingerprint")})
        # Verdicts rest on test where there is one: no choice was made on it.
        split = "test" if all("test/accuracy" in e.metrics for e in ranked) else "val"
        paired = _pairs(ranked, split, delta)
        class_names = best.predictions(split).class_names
        verdicts = [comparison.verdict(pair, class_names) for pair in paired]
        if paired and not any(pair.comparison for pair in paired):
            verdicts.insert(0, f"no pair could be compared on {split}")
        shown = verdicts[:_MOST_VERDICTS]
        if len(verdicts) > len(shown):
            shown.append(f"and {len(verdicts) - len(shown)} more pairs: see {split}_pairs.csv")
        pooled = _pooled(ranked)
        apart = [*_apart(found), *left_out(found.same, ranked)]

        writer.metrics({"models": len(ranked), "best/val_macro_f1": best.metrics["val/macro_f1"]})
        _write_tables(writer, ranked, paired, split)
        text = [
            *_markdown(HEADER, [_row(e) for e in ranked]),
            *(["", *_markdown(_POOLED_HEADER, pooled)] if pooled else []),
            "",
            *(f"- {line}" for line in shown),
            "",
            FOOTNOTE,
            *apart,
        ]
        writer.text("\n".join([*text, ""]), "comparison.md")
        writer.note("\n".join(text))
        sections = [
            html.Section(heading="Models", columns=HEADER, rows=[_row(e) for e in ranked]),
            *_pooled_section(pooled),
            html.Section(
                heading=f"Verdicts on {split}",
                points=[*verdicts, *apart],
                columns=PAIR_HEADER,
                rows=[_pair_row(pair) for pair in paired],
            ),
            html.Section(heading="Pictures", figures=_draw(writer, ranked, paired, split)),
        ]
        page = html.page(name, f"Verdicts from {split}. {FOOTNOTE}", sections)
        writer.text(page, "comparison.html")
        console.table(*_for_terminal(ranked))
        if pooled:
            console.table(_POOLED_HEADER, pooled)
        link = compare_link([e.run.id for e in ranked], [e.run.experiment_id for e in ranked])
        common.close(
            writer,
            [*shown, FOOTNOTE, *apart, f"side by side in MLflow: {link}"],
            following=common.following(writer, "register", dataset=dataset),
        )
    return common.StageResult(run_id=writer.run_id, scores={"models": float(len(ranked))})


def _pairs(ranked: Sequence[Evaluation], split: str, delta: float | None) -> list[Pair]:
    said = {e.label: e.predictions(split) for e in ranked}
    first = said[ranked[0].label]
    found = comparison.pairs(
        {label: s.probabilities for label, s in said.items()},
        first.labels,
        classes=len(first.class_names),
        class_names=first.class_names,
        usable={label: s.clean for label, s in said.items()},
        delta=delta,
    )
    unknown = {e.label: e.overlap_unknown for e in ranked if e.overlap_unknown}

    def told(pair: Pair) -> Pair:
        for label in (pair.first, pair.second):
            if label in unknown:
                why = f"unknown which images {label} was trained on: {unknown[label]}"
                return replace(pair, not_compared=why)
        return pair

    return [told(pair) for pair in found]


def _row(evaluation: Evaluation) -> list[str]:
    m = evaluation.metrics
    star = "*" if evaluation.picked_on_val else ""

    def scores(split: str) -> list[str]:
        if f"{split}/accuracy" not in m:
            return ["–"] * 6
        _, accuracy, macro_f1, ece = evaluation.scores_in_words(split)
        mark = star if split == "val" else ""
        clean = ["unknown" if evaluation.overlap_unknown else "0", "–", "–"]
        if f"{split}/clean/accuracy" in m:
            images, *scores, _ = evaluation.scores_in_words(f"{split}/clean")
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


def _for_terminal(ranked: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """The columns that fit, without those that nobody has; clean ones where they differ."""
    hidden = {"MB"}
    for split in ("val", "test"):
        hidden |= {f"{split} clean images", f"{split} clean accuracy"}
        if all(e.metrics.get(f"{split}/images_with_twin") == 0 for e in ranked):
            hidden.add(f"{split} clean macro-F1")
    wanted = [i for i, head in enumerate(HEADER) if head not in hidden]
    rows = [_row(e) for e in ranked]
    wanted = [i for i in wanted if any(row[i] != "–" for row in rows)]
    return [HEADER[i] for i in wanted], [[row[i] for i in wanted] for row in rows]


_POOLED_HEADER = ("seeds pooled", "seeds", "split", "accuracy", "macro-F1")


def _pooled(ranked: Sequence[Evaluation]) -> list[list[str]]:
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


def _pooled_section(rows: list[list[str]]) -> list[html.Section]:
    if not rows:
        return []
    return [html.Section(heading="Seeds pooled", columns=_POOLED_HEADER, rows=rows)]


def _pair_row(pair: Pair) -> list[str]:
    cells = [pair.first, pair.second, str(pair.images)]
    for d, form in ((pair.macro_f1, ".4f"), (pair.accuracy, ".4g")):
        cells += ["–"] * 4 if d is None else [*_signed(d), f"{d.p:{form}}"]
    return [*cells, pair.not_compared or ""]


def _signed(difference: Difference) -> list[str]:
    return [f"{v:+.4f}" for v in (difference.value, difference.low, difference.high)]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _write_tables(
    writer: Writer, ranked: Sequence[Evaluation], paired: Sequence[Pair], split: str
) -> None:
    names = sorted({name for e in ranked for name in e.metrics if not name.startswith("system/")})
    rows = [
        [
            e.label,
            e.run.id,
            e.tags["source_run_id"],
            e.tags["model_uri"],
            e.picked_on_val,
            *(e.metrics.get(name, "") for name in names),
        ]
        for e in ranked
    ]
    keys = ["model", "run_id", "source_run_id", "model_uri", "picked_on_val"]
    writer.text(_csv([[*keys, *names], *rows]), "comparison.csv")
    if paired:
        writer.text(_csv([PAIR_HEADER, *map(_pair_row, paired)]), f"{split}_pairs.csv")
    columns = zip(*map(_row, ranked), strict=True)
    writer.table(
        {head: list(values) for head, values in zip(HEADER, columns, strict=True)},
        "comparison.json",
    )


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _draw(
    writer: Writer, ranked: Sequence[Evaluation], paired: Sequence[Pair], split: str
) -> dict[str, Figure]:
    """Draws and logs; returns the figures by what they show."""
    reports = {e.label: e.report(split) for e in ranked}
    drawn = {
        "scores": figures.headline_scores(reports, title=f"{split}: accuracy and macro-F1"),
        "per_class_f1": figures.per_class_f1(reports, title=f"{split}: F1 of each class"),
    }
    rows = {f"{p.first} − {p.second}": p.macro_f1 for p in paired if p.macro_f1 is not None}
    if rows:
        rows = dict(list(rows.items())[:_MOST_ROWS])
        title = f"{split}: paired differences"
        drawn["differences"] = figures.differences(rows, score="macro-F1", title=title)
    disagreement = _disagreement(ranked, paired[0], split) if paired else None
    if disagreement is not None:
        drawn["disagreement"] = disagreement
    curves = {e.label: h for e in ranked if (h := histories(e.tags["source_run_id"]))}
    if curves:
        drawn["learning_curves"] = figures.learning_curves_overlaid(
            curves, title="Learning curves on val"
        )
    for name, figure in drawn.items():
        writer.figure(figure, f"{name}.png" if name == "learning_curves" else f"{split}_{name}.png")
    return {name.replace("_", " "): figure for name, figure in drawn.items()}


def _disagreement(ranked: Sequence[Evaluation], pair: Pair, split: str) -> Figure | None:
    """Images that the best two judge differently; None where the images lie elsewhere."""
    prepared = by_fingerprint(ranked[0].fingerprint)
    if prepared is None:
        return None
    first, second = (e.predictions(split) for e in ranked[:2])
    images, labels = prepared.split(split)
    return galleries.disagreement(
        images,
        labels,
        first.probabilities,
        second.probabilities,
        first.class_names,
        names=(pair.first, pair.second),
        title=f"{split}: where the best two disagree",
    )


def _apart(found: Found) -> list[str]:
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
