"""Tables as Markdown and CSV, and the one way in which an interval is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

NONE = "–"  # where there is no value


@dataclass(frozen=True, kw_only=True)
class Link:
    """A cell that leads somewhere."""

    text: str
    address: str  # http or https

    def __str__(self) -> str:
        return self.text


def interval(value: float, low: float | None, high: float | None, form: str) -> str:
    """`61.0% (59.4%–62.6%)`; the value alone where it has no interval."""
    if low is None or high is None:
        return format(value, form)
    return f"{value:{form}} ({low:{form}}–{high:{form}})"


def markdown(
    header: Sequence[object], rows: Sequence[Sequence[object]], *, left: int = 1
) -> list[str]:
    """Lines of a table; so many columns to the left, the others, numbers mostly, to the right."""
    marks = [*["---"] * left, *["---:"] * (len(header) - left)]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in (header, marks, *rows)]


def without_empty(
    header: Sequence[str], rows: Sequence[Sequence[object]]
) -> tuple[list[str], list[list[object]]]:
    """The table without the columns that hold nothing in any row."""
    kept = [i for i in range(len(header)) if any(row[i] not in ("", NONE) for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _cell(value: object) -> str:
    text = str(value).replace("|", "\\|")
    return f"[{text}]({value.address})" if isinstance(value, Link) else text


def to_csv(rows: Sequence[Sequence[object]]) -> str:
    """CSV with a line per row."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
