"""What `predict` prints: a table, CSV or JSON Lines, as the answers come; and how it ends."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from typing import Any

from fer_experiments import console
from fer_experiments.errors import DataError, FerError, escaped
from fer_experiments.stages.predict import Predictions, Row

# Characters of a name in the terminal's table; longer ones move their row.
_WIDEST_NAME = 60


def tell(found: Predictions, *, form: str, strict: bool) -> None:
    """Prints a row after another, then what is to be said of all.

    Args:
        found: yields the rows.
        form: `table`, `csv` or `json`.
        strict: whether a single picture without an answer is a failure.

    Raises:
        DataError: no picture has an answer.
        FerError: with `strict`, some have none.
    """
    started, count = time.monotonic(), 0
    if form == "csv":
        console.say(_csv_line(found.columns))
    table = _Table(found.predictor.class_names)
    try:
        for row in found.rows():
            count += 1
            if form == "json":
                console.result(row.as_json())
            elif form == "csv":
                console.say(_csv_line(found.as_cells(row)))
            else:
                table.add(row)
    except KeyboardInterrupt:
        if found.count:  # a camera is ended so
            raise
    if form == "json":
        console.result({"summary": found.summary()})
    elif form == "table":
        console.say(f"model: {found.answered}")
    if not found.count and count:
        seconds = time.monotonic() - started
        console.complain(f"{count / seconds:.1f} pictures a second")
    _close(found, strict=strict)


def _close(found: Predictions, *, strict: bool) -> None:
    for how, count in found.whites.items():
        console.complain(f"{count} of more than 8 bits: {how}")
    for kind in found.left_out:
        console.complain(f"left out: {kind}")
    if found.shrunk:
        console.complain(
            f"{found.shrunk} pictures are much larger than the model's "
            f"{found.predictor.image_size} pixels: pass --detector auto if they show more than a "
            "face"
        )
    if found.searched and found.photo_warning:
        console.warn(found.photo_warning)
    failures = "; ".join(found.failures)
    if found.count and not found.judged:
        raise DataError(f"None of {found.count} files has an answer: {failures}")
    if failures and strict:
        raise FerError(f"Expected an answer for every picture (--strict). Received: {failures}")
    if failures:
        console.complain(failures)


class _Table:
    """A table in the terminal whose rows come one after another."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = class_names
        self._widths = [max(len(escaped(name)), 6) for name in class_names]
        self._likeliest = max(9, *self._widths)
        self._first = 0  # width of the names of files

    def add(self, row: Row) -> None:
        """Prints it, the head before the first."""
        name = escaped(row.file)
        if row.time is not None:
            name += f" {row.time:.1f} s"
        if row.faces > 1:
            name += f" face {row.face}"
        if not self._first:
            self._first = min(max(len(name) + 4, 20), _WIDEST_NAME)
            self._line("file", "predicted", self._names)
        if row.error is not None:
            console.say(f"{name:{self._first}}  {row.error}")
            return
        shares = [f"{row.probabilities[each]:.1%}" for each in self._names]
        self._line(name, row.predicted or "", shares)

    def _line(self, name: str, predicted: str, cells: Sequence[str]) -> None:
        columns = zip(map(escaped, cells), self._widths, strict=True)
        numbers = "  ".join(cell.rjust(width) for cell, width in columns)
        console.say(f"{name:{self._first}}  {escaped(predicted):{self._likeliest}}  {numbers}")


def _csv_line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
