"""Where the rows are kept, and the table of them in docs/results/reliability.md."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.faults.processes import ROOT
from tests.faults.results import Result

ROWS = ROOT / "benchmarks" / "faults.json"
# Small numbers are for a quick look: they replace nothing, and git ignores their file.
QUICK_ROWS = ROOT / "benchmarks" / "quick-faults.json"
PAGE = ROOT / "docs" / "results" / "reliability.md"
_BEGIN, _END = "<!-- faults: begin -->", "<!-- faults: end -->"


def read(path: Path) -> dict[str, Result]:
    """The rows of earlier runs, by name."""
    if not path.exists():
        return {}
    return {row["name"]: Result(**row) for row in json.loads(path.read_text())}


def write(results: Iterable[Result], path: Path, *, page: Path | None = None) -> None:
    """Writes the rows, and their table into the page."""
    rows = list(results)
    _replace(path, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    if page is not None:
        table = "\n".join([_BEGIN, "", *markdown(rows), "", _END])
        # A function, because notes may hold backslashes.
        marked = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
        _replace(page, marked.sub(lambda _: table, page.read_text()))


def markdown(rows: Iterable[Result]) -> list[str]:
    """The table."""
    lines = ["| fault | tried | survived | what was done |", "|---|---:|---:|---|"]
    for row in rows:
        note = row.note.replace("|", "\\|")
        lines.append(f"| `{row.name}` | {row.tried} | {row.survived} | {note} |")
    return lines


def _replace(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(content)
    temporary.replace(path)
