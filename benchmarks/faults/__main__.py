"""`python -m benchmarks.faults [--quick] [--only NAME …]`: injects faults, counts what survives.

Writes benchmarks/faults.json, a list of {name, tried, survived, note}, and the table in
docs/reliability.md; with --quick, benchmarks/quick-faults.json alone.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from benchmarks.faults import report
from benchmarks.faults.results import Result

_AT_ONCE = 2
# Name -> module and function, imported when it is its turn; the longest first.
FAULTS = {
    "kill9": ("signals", "kill9"),
    "sigterm": ("signals", "sigterm"),
    "outage_sqlite": ("outages", "sqlite"),
    "outage_postgresql": ("outages", "postgresql_"),
    "disk_full": ("disks", "run"),
    "parallel": ("parallel", "run"),
    "bad_input": ("bad_input", "run"),
    "secrets": ("secrets", "run"),
}


def main() -> int:
    """Runs the faults, two at a time; a row is on disk as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 or 3 moments each, small jobs")
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="NAME", help="these alone")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this folder, and leave what was lost"
    )
    asked = parser.parse_args()
    path, page = (report.QUICK_ROWS, None) if asked.quick else (report.ROWS, report.PAGE)
    rows = report.read(path)
    lost: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="fer-faults-") as temporary,
        # Processes, because each of them imports Keras to look at models. One job keeps little
        # more than one core busy.
        ProcessPoolExecutor(_AT_ONCE, mp_context=get_context("spawn")) as pool,
    ):
        folder = (asked.keep or Path(temporary)).absolute()
        futures = {
            pool.submit(_run, name, folder / name, quick=asked.quick): name
            for name in asked.only or FAULTS
        }
        for future in as_completed(futures):
            name = futures[future]
            try:
                result, minutes = future.result()
            except Exception:
                # The others are still worth their time; this one has no row to show.
                traceback.print_exc()
                lost.append(name)
                continue
            print(f"{name}: {result.survived} of {result.tried} in {minutes:.1f} min", flush=True)
            print(f"  {result.note}", flush=True)
            rows[name] = result
            report.write((rows[n] for n in FAULTS if n in rows), path, page=page)
            if result.survived < result.tried:
                lost.append(name)
    if lost:
        print(f"not survived: {', '.join(lost)}", file=sys.stderr)
    return 1 if lost else 0


def _run(name: str, folder: Path, *, quick: bool) -> tuple[Result, float]:
    """A fault's row, and the minutes that it took."""
    folder.mkdir(parents=True)
    started = time.monotonic()
    module, function = FAULTS[name]
    run: Callable[..., Result] = getattr(
        importlib.import_module(f"benchmarks.faults.{module}"), function
    )
    result = replace(run(folder, quick=quick), name=name)
    return result, (time.monotonic() - started) / 60


if __name__ == "__main__":
    sys.exit(main())
