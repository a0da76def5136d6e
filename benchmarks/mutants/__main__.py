"""`python -m benchmarks.mutants [--number N] [--seed S] [--only AREA …]`: changes the code, tests.

The quick tests of the area judge; `--again --slow` tries what survived them by the slow ones too.

Goes on from benchmarks/mutants/results.json, which has a verdict for each change that was tried and
is still the same change; writes docs/results/mutants.md. benchmarks/mutants/notes.json says of
survivors why they are none, or why they may stay.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.mutants import results
from benchmarks.mutants.areas import AREAS
from benchmarks.mutants.draw import count, draw
from benchmarks.mutants.judge import ROOT, Judge, patience


def main() -> None:
    """Draws, tries what has no verdict yet, and writes after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--number", type=int, default=300, help="changes to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[a.name for a in AREAS], metavar="AREA")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    parser.add_argument("--slow", action="store_true", help="by the tests marked slow, too")
    parser.add_argument("--at-once", type=int, default=2, help="copies of the tree that are tested")
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    asked = parser.parse_args()
    drawn = draw(ROOT, asked.number, asked.seed)
    before = results.read(asked.results)
    keys = {change.key for changes in drawn.values() for change in changes}
    rows = {
        key: row
        for key, row in before.items()
        if key in keys and (row["killed"] or not asked.again)
    }
    with tempfile.TemporaryDirectory(prefix="fer-mutants-") as folder:
        judge = Judge(Path(folder), asked.at_once, slow=asked.slow)
        for area in AREAS:
            left = [change for change in drawn[area.name] if change.key not in rows]
            if not left or (asked.only and area.name not in asked.only):
                continue
            seconds = judge.check(area)
            print(f"{area.name}: {len(left)} changes, tests take {seconds:.0f} s", flush=True)
            for verdict in judge.run(area, left, patience=patience(seconds)):
                change = verdict.change
                assert change is not None
                rows[change.key] = {
                    "area": area.name,
                    "file": change.file,
                    "function": change.function,
                    "line": change.line,
                    "before": change.before,
                    "after": change.after,
                    "killed": verdict.killed,
                    "by": verdict.by,
                    "seconds": round(verdict.seconds, 1),
                }
                results.write(asked.results, rows)
                if not verdict.killed:
                    place = f"{change.file}:{change.line} {change.function}"
                    print(f"{change.key} {place}\n  - {change.before}\n  + {change.after}")
    killed = sum(row["killed"] for row in rows.values())
    print(f"noticed: {killed} of {len(rows)}; drawn: {len(keys)}")
    if asked.results == results.RESULTS:
        results.write_page(rows, drawn=len(keys), known=count(ROOT), seed=asked.seed)


if __name__ == "__main__":
    main()
