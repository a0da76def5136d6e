"""`compare`: every evaluated model on the same data, side by side, and each pair's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from matplotlib.figure import Figure

from fer_experiments import console
from fer_experiments.data.prepared import by_fingerprint
from fer_experiments.evaluation import comparison
from fer_experiments.evaluation.comparison import Pair
from fer_experiments.reporting import figures, image_grids
from fer_experiments.reporting.comparison_page import Compared, shown_verdicts, text, web_page
from fer_experiments.reporting.comparison_tables import (
    FOOTNOTE,
    HEADER,
    PAIR_HEADER,
    POOLED_HEADER,
    model_row,
    pair_row,
    pooled_seeds,
    set_apart,
    settings_that_differ,
    terminal_table,
)
from fer_experiments.reporting.tables import to_csv
from fer_experiments.stages import common
from fer_experiments.stages.contestants import contestants, left_out
from fer_experiments.tracking.evaluations import Evaluation, evaluations
from fer_experiments.tracking.evaluations import ranked as by_rank
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.runs import compare_link, find_run, histories
from fer_experiments.tracking.views import closing_lines
from fer_experiments.tracking.writer import Writer

# Verdicts that the terminal and the note show; the tables hold all.
_MOST_VERDICTS = 6
_MOST_ROWS = 20  # of a figure
_LONGEST_NOTE = 8000  # characters that MLflow keeps of a tag


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
        compared = Compared(
            ranked=ranked,
            sources={e.label: find_run(e.tags["source_run_id"]) for e in ranked},
            reports={e.label: e.report(split) for e in ranked},
            paired=_pairs(ranked, split, delta),
            split=split,
            apart=[*set_apart(found), *left_out(found.same, ranked)],
            when=datetime.now(UTC),
        )
        writer.metrics({"models": len(ranked), "best/val_macro_f1": best.metrics["val/macro_f1"]})
        _write_tables(writer, compared)
        writer.text(web_page(compared, _draw(writer, compared)), "comparison.html")
        writer.text(text(compared) + "\n", "comparison.md")
        writer.note(_note(compared))
        _say(writer, compared, dataset)
    return common.result(writer, {"models": float(len(ranked))}, [compared.winner])


def _note(compared: Compared) -> str:
    """As many verdicts as MLflow keeps of a note."""
    notes = [text(compared, most_verdicts=most) for most in range(_MOST_VERDICTS, -1, -1)]
    return next((note for note in notes if len(note) <= _LONGEST_NOTE), notes[-1])


def _say(writer: Writer, compared: Compared, dataset: str | None) -> None:
    """The winner first, then tables and verdicts, in lines that fit the terminal."""
    ranked = compared.ranked
    console.say(console.fitted(compared.winner))
    console.say(console.fitted(compared.about))
    console.say()
    console.table(*terminal_table(ranked), fit=True)
    if settings := settings_that_differ(ranked, compared.sources, whole=False):
        console.say()
        header, *rows = zip(["model", *(e.label for e in ranked)], *settings, strict=True)
        console.table(header, rows, fit=True)
    if pooled := pooled_seeds(ranked):
        console.say()
        console.table(POOLED_HEADER, pooled, fit=True)
    console.say()
    link = compare_link([e.run.id for e in ranked], [e.run.experiment_id for e in ranked])
    prose = [*shown_verdicts(compared, _MOST_VERDICTS), FOOTNOTE, *compared.apart]
    # Where the models were evaluated: this run may be in another experiment.
    in_views = [] if writer.nested else closing_lines(ranked[0].run.experiment_id)
    common.close(
        writer,
        [*map(console.fitted, prose), f"side by side in MLflow: {link}", *in_views],
        following=common.following(writer, "register", dataset=dataset),
    )


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


def _write_tables(writer: Writer, compared: Compared) -> None:
    ranked = compared.ranked
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
    writer.text(to_csv([[*keys, *names], *rows]), "comparison.csv")
    if compared.paired:
        pairs = [PAIR_HEADER, *map(pair_row, compared.paired)]
        writer.text(to_csv(pairs), f"{compared.split}_pairs.csv")
    columns = zip(*map(model_row, ranked), strict=True)
    writer.table(
        {head: list(values) for head, values in zip(HEADER, columns, strict=True)},
        "comparison.json",
    )


def _draw(writer: Writer, compared: Compared) -> dict[str, Figure]:
    """Draws and logs; returns the figures by what they show."""
    split, reports, paired = compared.split, compared.reports, compared.paired
    models = list(reports)  # in one order, so that each has one colour
    drawn = {
        "scores": figures.headline_scores(reports, title=f"{split}: accuracy and macro-F1"),
        "per_class_f1": figures.per_class_f1(reports, title=f"{split}: F1 of each class"),
    }
    rows = {(p.first, p.second): p.macro_f1 for p in paired if p.macro_f1 is not None}
    if rows:
        rows = dict(list(rows.items())[:_MOST_ROWS])
        title = f"{split}: paired differences"
        drawn["differences"] = figures.differences(
            rows, score="macro-F1", title=title, models=models
        )
    disagreement = _disagreement(compared.ranked, paired[0], split) if paired else None
    if disagreement is not None:
        drawn["disagreement"] = disagreement
    curves = {e.label: h for e in compared.ranked if (h := histories(e.tags["source_run_id"]))}
    if curves:
        drawn["learning_curves"] = figures.learning_curves_overlaid(
            curves, title="Learning curves on val", models=models
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
    return image_grids.disagreement(
        images,
        labels,
        first.probabilities,
        second.probabilities,
        first.class_names,
        names=(pair.first, pair.second),
        title=f"{split}: where the best two disagree",
    )
