"""Verdicts on disk, notes about survivors, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.mutants.areas import AREAS
from fer_experiments.evaluation.statistics import wilson

_FOLDER = Path(__file__).parent
RESULTS, NOTES = _FOLDER / "results.json", _FOLDER / "notes.json"
PAGE = _FOLDER.parent.parent / "docs" / "results" / "mutants.md"

Row = dict[str, Any]


def read(path: Path) -> dict[str, Row]:
    """By key of the change; nothing where there is no file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, rows: Mapping[str, Row]) -> None:
    """Beside, then renamed."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)


def write_page(rows: Mapping[str, Row], *, drawn: int, known: int, seed: int) -> None:
    """docs/results/mutants.md."""
    PAGE.write_text("\n".join(_page(rows, drawn=drawn, known=known, seed=seed)), encoding="utf-8")


def _page(rows: Mapping[str, Row], *, drawn: int, known: int, seed: int) -> list[str]:
    notes = read(NOTES)
    killed = sum(row["killed"] for row in rows.values())
    found = wilson(killed, len(rows))
    survivors = {key: row for key, row in rows.items() if not row["killed"]}
    equal = [key for key in survivors if notes.get(key, {}).get("equal")]
    lines = [
        "# Careless changes, and whether the tests notice",
        "",
        "`make mutants` changes the code in one place at a time and runs the tests of that area "
        "that are not slow, in a copy of the tree. The changes are those of "
        "[mutmut](https://github.com/boxed/mutmut): another comparison, an argument left out, "
        "a condition turned round, a value that is None. Its own runner forks a process in which "
        "Keras has computed, and cannot draw a sample, so the runner is ours (benchmarks/mutants). "
        "Texts with a space in them, `strict=` and what stands outside functions are left alone.",
        "",
        f"Of {known:,} changes {drawn} were drawn (seed {seed}, each file by its share of them), "
        f"{len(rows)} of them tried. The tests noticed **{killed}, {found.value:.1%} "
        f"(95 % interval {found.low:.1%} to {found.high:.1%})**. Of the {len(survivors)} others, "
        f"{len(equal)} change nothing that could be seen.",
        "",
        "| area | files | tried | noticed | share |",
        "|---|---|---:|---:|---:|",
    ]
    for area in AREAS:
        own = [row for row in rows.values() if row["area"] == area.name]
        if own:
            noticed = sum(row["killed"] for row in own)
            files = ", ".join(f"`{name}`" for name in area.files)
            lines.append(
                f"| {area.name} | {files} | {len(own)} | {noticed} | {noticed / len(own):.0%} |"
            )
    lines += ["", "## Not noticed", ""]
    for key, row in sorted(survivors.items(), key=lambda item: (item[1]["file"], item[1]["line"])):
        note = notes.get(key, {})
        kind = "equal: " if note.get("equal") else ""
        lines += [
            f"- `{row['file'].removeprefix('fer_experiments/')}`, `{row['function']}` ({key}): "
            f"{kind}{note.get('why', 'not looked at yet')}",
            "",
            "  ```diff",
            f"  - {row['before']}",
            f"  + {row['after']}",
            "  ```",
        ]
    return [*lines, ""]
