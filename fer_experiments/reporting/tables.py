"""Tables as Markdown and CSV, and the one way in which an interval is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

NONE = "–"  # where there is no value


def interval(value: float, low: float | None, high: float | None, form: str) -> str:
    """`61.0% (59.4%–62.6%)`; the value alone where it has no interval."""
    if low is None or high is None:
        return format(value, form)
    return f"{value:{form}} ({low:{form}}–{high:{form}})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of a table; so many columns to the left, the others, numbers mostly, to the right."""
    marks = [*["---"] * left, *["---:"] * (len(header) - left)]
    return ["| " + " | ".join(line) + " |" for line in (header, marks, *rows)]


def to_csv(rows: Sequence[Sequence[object]]) -> str:
    """CSV with a line per row."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
