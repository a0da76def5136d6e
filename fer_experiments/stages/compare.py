"""`compare`: every evaluated model on the same data, side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fer_experiments import console
from fer_experiments.errors import RunError
from fer_experiments.evaluation import figures
from fer_experiments.evaluation.metrics import Report, report
from fer_experiments.stages import common
from fer_experiments.tracking.runs import compare_link, open_run, search, stored_arrays
from fer_experiments.tracking.writer import Writer


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The newest evaluation of one model."""

    run: Any  # mlflow.entities.Run
    label: str

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags."""
        return dict(self.run.data.tags)

    @property
    def metrics(self) -> dict[str, float]:
        """The run's scores."""
        return dict(self.run.data.metrics)

    @property
    def fingerprint(self) -> str:
        """The data that the model was judged on."""
        return self.tags["dataset_fingerprint"]


def evaluations(
    *, dataset: str | None = None, experiment: str | None = None, fingerprint: str | None = None
) -> tuple[list[Evaluation], list[Evaluation]]:
    """The newest evaluation of each model on the data meant, and those on other data.

    Args:
        dataset: a dataset's name or the `dataset` that it was made from; None: of the newest run.
        experiment: look nowhere else.
        fingerprint: the very data, if it is known.

    Raises:
        RunError: no evaluated run.
    """
    runs = [
        run
        for run in search("evaluate", experiment=experiment)
        if dataset is None
        or dataset in (run.data.tags["dataset_name"], run.data.params.get("dataset"))
    ]
    if not runs:
        on = f" on dataset={dataset}" if dataset else ""
        raise RunError(f"Expected an evaluated run{on}. Found: none; run fer evaluate first")
    newest: dict[tuple[str, str], Any] = {}
    for run in runs:
        tags = run.data.tags
        newest.setdefault((tags["model_uri"], tags["dataset_fingerprint"]), run)
    found = [Evaluation(run=run, label=_label(run)) for run in newest.values()]
    same = fingerprint or found[0].fingerprint
    return (
        _with_unique_labels([e for e in found if e.fingerprint == same]),
        [e for e in found if e.fingerprint != same],
    )


def run(
    *,
    dataset: str | None = None,
    experiment: str | None = None,
    fingerprint: str | None = None,
) -> common.StageResult:
    """Writes and prints the table, and draws what a table does not show."""
    same, other = evaluations(dataset=dataset, experiment=experiment, fingerprint=fingerprint)
    ranked = sorted(same, key=lambda e: e.metrics["val/macro_f1"], reverse=True)
    name = f"compare {len(ranked)} on {ranked[0].tags['dataset_name']}"
    with open_run("compare", name, experiment=experiment) as writer:
        writer.tags({key: ranked[0].tags[key] for key in ("dataset_name", "dataset_fingerprint")})
        reports = {
            split: {e.label: r for e in ranked if (r := _stored_report(e, split)) is not None}
            for split in ("val", "test")
        }
        _write_tables(writer, ranked)
        _draw(writer, reports)
        best = ranked[0]
        writer.metrics({"models": len(ranked), "best/val_macro_f1": best.metrics["val/macro_f1"]})
        console.table(_HEADER, [_row(e) for e in ranked])
        apart = _apart(other)
        writer.note("\n".join([_markdown(ranked), "", _FOOTNOTE, *apart]))
        link = compare_link(
            [e.run.info.run_id for e in ranked], [e.run.info.experiment_id for e in ranked]
        )
        common.close(
            writer,
            [_FOOTNOTE, *apart, f"side by side in MLflow: {link}"],
            following="fer register",
        )
    return common.StageResult(run_id=writer.run_id, scores={"models": float(len(ranked))})


_FOOTNOTE = (
    "Intervals are 95 % (Wilson). Where a run keeps its best epoch, that epoch was picked on val, "
    "so val flatters; test does not."
)
_HEADER = (
    "model", "val accuracy", "val macro-F1", "test accuracy", "test macro-F1",
    "parameters", "training s", "images/s",
)  # fmt: skip


def _label(run: Any) -> str:
    params = run.data.params
    tags = run.data.tags
    return (
        f"{tags['backbone']} {tags.get('source_stage', '')} {tags['recipe']} s{params['seed']}"
    ).replace("  ", " ")


def _with_unique_labels(found: Sequence[Evaluation]) -> list[Evaluation]:
    labels = [e.label for e in found]
    return [
        e
        if labels.count(e.label) == 1
        else Evaluation(run=e.run, label=f"{e.label} {e.tags['source_run_id'][:6]}")
        for e in found
    ]


def _stored_report(evaluation: Evaluation, split: str) -> Report | None:
    if f"{split}/accuracy" not in evaluation.metrics:
        return None
    stored = stored_arrays(evaluation.run.info.run_id, f"{split}/probabilities.npz")
    return report(
        stored["probabilities"],
        stored["labels"],
        [str(name) for name in stored["class_names"]],
        split=split,
    )


def _row(evaluation: Evaluation) -> list[str]:
    m = evaluation.metrics

    def accuracy(split: str) -> str:
        if f"{split}/accuracy" not in m:
            return "–"
        low, high = (m[f"{split}/interval/accuracy_{end}"] for end in ("low", "high"))
        return f"{m[f'{split}/accuracy']:.1%} ({low:.1%}–{high:.1%})"

    def plain(name: str, form: str) -> str:
        return format(m[name], form) if name in m else "–"

    return [
        evaluation.label,
        accuracy("val"),
        plain("val/macro_f1", ".3f"),
        accuracy("test"),
        plain("test/macro_f1", ".3f"),
        plain("weights/parameters", ",.0f"),
        plain("time/train_seconds_total", ".0f"),
        plain("time/val_images_per_second", ".0f"),
    ]


def _markdown(ranked: Sequence[Evaluation]) -> str:
    rows = [list(_HEADER), ["---", *["---:"] * (len(_HEADER) - 1)], *map(_row, ranked)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _write_tables(writer: Writer, ranked: Sequence[Evaluation]) -> None:
    writer.text(_markdown(ranked) + f"\n\n{_FOOTNOTE}\n", "comparison.md")
    names = sorted({name for e in ranked for name in e.metrics if not name.startswith("system/")})
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["model", "run_id", "source_run_id", "model_uri", *names])
    for e in ranked:
        keys = [e.label, e.run.info.run_id, e.tags["source_run_id"], e.tags["model_uri"]]
        table.writerow([*keys, *(e.metrics.get(name, "") for name in names)])
    writer.text(text.getvalue(), "comparison.csv")
    columns = zip(*map(_row, ranked), strict=True)
    writer.table(
        {head: list(values) for head, values in zip(_HEADER, columns, strict=True)},
        "comparison.json",
    )


def _draw(writer: Writer, reports: dict[str, dict[str, Report]]) -> None:
    for split, by_model in reports.items():
        if by_model:
            writer.figure(
                figures.headline_scores(by_model, title=f"{split}: accuracy and macro-F1"),
                f"{split}_scores.png",
            )
            writer.figure(
                figures.per_class_f1(by_model, title=f"{split}: F1 of each class"),
                f"{split}_per_class_f1.png",
            )


def _apart(other: Sequence[Evaluation]) -> list[str]:
    """Names what was left out because it was judged on other images."""
    if not other:
        return []
    names = ", ".join(
        f"{e.label} on {e.tags['dataset_name']} {e.fingerprint[:8]}" for e in other[:5]
    )
    more = f" and {len(other) - 5} more" if len(other) > 5 else ""
    return [f"not compared, judged on other data: {names}{more}"]
