"""`compare`: every evaluated model on the same data, side by side, and each pair's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from fer_experiments import console
from fer_experiments.data.prepared import by_fingerprint
from fer_experiments.evaluation import comparison
from fer_experiments.evaluation.comparison import Pair
from fer_experiments.reporting import figures, html, image_grids
from fer_experiments.reporting.comparison_tables import (
    FOOTNOTE,
    HEADER,
    PAIR_HEADER,
    POOLED_HEADER,
    model_row,
    pair_row,
    pooled_seeds,
    set_apart,
    terminal_table,
)
from fer_experiments.reporting.tables import markdown, to_csv
from fer_experiments.reporting.verdicts import verdict
from fer_experiments.stages import common
from fer_experiments.stages.contestants import contestants, left_out
from fer_experiments.tracking.evaluations import Evaluation, evaluations
from fer_experiments.tracking.evaluations import ranked as by_rank
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.runs import compare_link, histories
from fer_experiments.tracking.views import closing_lines
from fer_experiments.tracking.writer import Writer

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
        verdicts = [verdict(pair, class_names) for pair in paired]
        if paired and not any(pair.comparison for pair in paired):
            verdicts.insert(0, f"no pair could be compared on {split}")
        shown = verdicts[:_MOST_VERDICTS]
        if len(verdicts) > len(shown):
            shown.append(f"and {len(verdicts) - len(shown)} more pairs: see {split}_pairs.csv")
        apart = [*set_apart(found), *left_out(found.same, ranked)]

        writer.metrics({"models": len(ranked), "best/val_macro_f1": best.metrics["val/macro_f1"]})
        _write_tables(writer, ranked, paired, split)
        _write_pages(writer, name, ranked, paired, split, verdicts, shown, apart)
        console.table(*terminal_table(ranked))
        if pooled := pooled_seeds(ranked):
            console.table(POOLED_HEADER, pooled)
        link = compare_link([e.run.id for e in ranked], [e.run.experiment_id for e in ranked])
        # Where the models were evaluated: this run may be in another experiment.
        in_views = [] if writer.nested else closing_lines(best.run.experiment_id)
        common.close(
            writer,
            [*shown, FOOTNOTE, *apart, f"side by side in MLflow: {link}", *in_views],
            following=common.following(writer, "register", dataset=dataset),
        )
    return common.result(writer, {"models": float(len(ranked))}, verdicts[:1])


def _write_pages(
    writer: Writer,
    name: str,
    ranked: Sequence[Evaluation],
    paired: Sequence[Pair],
    split: str,
    verdicts: Sequence[str],
    shown: Sequence[str],
    apart: Sequence[str],
) -> None:
    """The comparison as Markdown, which is the run's note too, and as a page with all pictures."""
    pooled = pooled_seeds(ranked)
    text = [
        *markdown(HEADER, [model_row(e) for e in ranked]),
        *(["", *markdown(POOLED_HEADER, pooled)] if pooled else []),
        "",
        *(f"- {line}" for line in shown),
        "",
        FOOTNOTE,
        *apart,
    ]
    writer.text("\n".join([*text, ""]), "comparison.md")
    writer.note("\n".join(text))
    sections = [
        html.Section(heading="Models", columns=HEADER, rows=[model_row(e) for e in ranked]),
        html.Section(heading="Seeds pooled", columns=POOLED_HEADER, rows=pooled),
        html.Section(
            heading=f"Verdicts on {split}",
            points=[*verdicts, *apart],
            columns=PAIR_HEADER,
            rows=[pair_row(pair) for pair in paired],
        ),
        html.Section(heading="Pictures", figures=_draw(writer, ranked, paired, split)),
    ]
    page = html.page(name, f"Verdicts from {split}. {FOOTNOTE}", sections)
    writer.text(page, "comparison.html")


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
    writer.text(to_csv([[*keys, *names], *rows]), "comparison.csv")
    if paired:
        writer.text(to_csv([PAIR_HEADER, *map(pair_row, paired)]), f"{split}_pairs.csv")
    columns = zip(*map(model_row, ranked), strict=True)
    writer.table(
        {head: list(values) for head, values in zip(HEADER, columns, strict=True)},
        "comparison.json",
    )


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
    return image_grids.disagreement(
        images,
        labels,
        first.probabilities,
        second.probabilities,
        first.class_names,
        names=(pair.first, pair.second),
        title=f"{split}: where the best two disagree",
    )
