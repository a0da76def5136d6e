"""The report of `compare`: one content, as a web page and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from matplotlib.figure import Figure

from fer_experiments.evaluation.comparison import Pair
from fer_experiments.evaluation.metrics import Report
from fer_experiments.reporting import html
from fer_experiments.reporting.comparison_tables import (
    FOOTNOTE,
    PAIR_HEADER,
    POOLED_HEADER,
    f1_by_class,
    pair_row,
    pooled_seeds,
    scores_by_model,
    settings_that_differ,
)
from fer_experiments.reporting.plot_style import looks
from fer_experiments.reporting.tables import markdown, without_empty
from fer_experiments.reporting.verdicts import verdict, winner
from fer_experiments.tracking import pages
from fer_experiments.tracking.evaluations import Evaluation
from fer_experiments.tracking.runs import RunRecord


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was compared, and what came out."""

    ranked: Sequence[Evaluation]  # the best first
    sources: Mapping[str, RunRecord | None]  # by label: what made the model; None: it is gone
    reports: Mapping[str, Report]  # by label, on the split
    paired: Sequence[Pair]
    split: str  # on which the verdicts rest
    apart: Sequence[str]  # what was not compared, and why
    when: datetime  # with its time zone

    @property
    def winner(self) -> str:
        """Who leads, and whether that is shown."""
        return winner(self.ranked, self.paired, self.split)

    @property
    def verdicts(self) -> list[str]:
        """A line for each pair."""
        said = [verdict(pair, self._first_report.class_names) for pair in self.paired]
        if self.paired and not any(pair.comparison for pair in self.paired):
            said.insert(0, f"no pair could be compared on {self.split}")
        return said

    @property
    def about(self) -> str:
        """When, on which data."""
        best = self.ranked[0]
        return (
            f"{self.when:%Y-%m-%d %H:%M %Z} · data set {best.tags['dataset_name']}, fingerprint "
            f"{best.fingerprint[:8]} · verdicts on {self.split}: {self._first_report.images:,} "
            "images"
        )

    @property
    def counts(self) -> str:
        """How many images of the split each class has."""
        first = self._first_report
        counts = zip(first.class_names, first.support, strict=True)
        return f"Images of {self.split}: " + ", ".join(f"{name} {n:,}" for name, n in counts)

    @property
    def _first_report(self) -> Report:
        return self.reports[self.ranked[0].label]

    @property
    def judged_by_class(self) -> list[int] | None:
        """Images of each class that the best two are compared on, (C,); None: all, or none."""
        if not self.paired or self.paired[0].comparison is None or not self.paired[0].left_out:
            return None
        first, second = (e.predictions(self.split) for e in self.ranked[:2])
        labels = first.labels[first.clean & second.clean]
        return [int(n) for n in np.bincount(labels, minlength=len(first.class_names))]


def web_page(compared: Compared, figures: Mapping[str, Figure]) -> str:
    """The whole comparison, with its figures by caption."""
    best, models = compared.ranked[0], len(compared.ranked)
    columns, rows = without_empty(PAIR_HEADER, [pair_row(pair) for pair in compared.paired])
    *sections, verdicts = _sections(compared)
    sections = [
        *sections,
        replace(verdicts, columns=columns, rows=rows),
        html.Section(heading="Pictures", figures=figures),
        html.Section(heading="How to read this", text=FOOTNOTE),
    ]
    name = best.tags["dataset_name"]
    title = f"Comparison of {models} model{'s' * (models > 1)} on {name}"
    return html.page(title, compared.about, sections, lead=compared.winner)


def text(compared: Compared, *, most_verdicts: int | None = None) -> str:
    """The comparison as Markdown, without pictures and the table of pairs.

    Args:
        compared: the models.
        most_verdicts: so many are told in words, and of the classes only how many images they have:
            MLflow ends a note after 8,000 characters; None: everything.
    """
    lines = [f"**{compared.winner}**", "", compared.about]
    lines += ["", compared.counts] if most_verdicts is not None else []
    for section in _sections(compared, most_verdicts=most_verdicts):
        if section.is_filled:
            lines += ["", f"### {section.heading}"]
            lines += ["", section.text] if section.text else []
            lines += ["", *(f"- {point}" for point in section.points)] if section.points else []
            lines += ["", *markdown(section.columns, section.rows)] if section.rows else []
    return "\n".join([*lines, "", FOOTNOTE])


def shown_verdicts(compared: Compared, most: int | None) -> list[str]:
    """The first of the verdicts, and how many more there are."""
    every = compared.verdicts
    if most is None or len(every) <= most:
        return every
    more = f"and {len(every) - most} more pairs: see {compared.split}_pairs.csv"
    return [*every[:most], more]


def _sections(compared: Compared, *, most_verdicts: int | None = None) -> list[html.Section]:
    ranked, split = compared.ranked, compared.split
    colours = looks(e.label for e in ranked)
    models = [html.Model(label=label, colour=look["color"]) for label, look in colours.items()]
    differing = settings_that_differ(ranked, compared.sources)
    heads, classes = f1_by_class(compared.reports, compared.judged_by_class)
    alike = len(ranked) > 1 and not differing
    served = "" if pages.has_server() else " (to start them: make ui, or fer ui)"
    sections = [
        html.Section(
            heading="Models",
            text=f"Links open MLflow's pages at {pages.address()}{served}.",
            columns=["score", *models],
            rows=scores_by_model(ranked, compared.sources),
        ),
        html.Section(
            heading="Settings that differ",
            text="None: the models were made with equal settings." if alike else "",
            columns=["setting", *models],
            rows=differing,
        ),
        html.Section(heading="Seeds pooled", columns=POOLED_HEADER, rows=pooled_seeds(ranked)),
    ]
    if most_verdicts is None:
        what = f"Classes of {split}: images, and F1 of each model on them"
        sections.append(html.Section(heading=what, columns=[*heads, *models], rows=classes))
    return [*sections, _verdicts(compared, most_verdicts)]


def _verdicts(compared: Compared, most: int | None) -> html.Section:
    return html.Section(
        heading=f"Verdicts on {compared.split}",
        points=[*shown_verdicts(compared, most), *compared.apart],
    )
