"""`python -m tests.faults [--quick] [--only NAME …]`: injects faults, counts what survives.

Writes benchmarks/faults.json, a list of {name, tried, survived, note}, and the table in
docs/results/reliability.md; with --quick, benchmarks/quick-faults.json alone.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path

from tests.faults import report, table
from tests.faults.results import NotTried

_AT_ONCE = 2
_NOT_TRIED = 3  # exit code: nothing was lost, but not everything was tried


def main() -> int:
    """Runs the faults, two at a time; a row is on disk as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 or 3 moments each, small jobs")
    parser.add_argument(
        "--only", nargs="+", choices=table.FAULTS, metavar="NAME", help="these alone"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this folder, and leave what was lost"
    )
    asked = parser.parse_args()
    path, page = (report.QUICK_ROWS, None) if asked.quick else (report.ROWS, report.PAGE)
    rows = report.read(path)
    lost: list[str] = []
    not_tried: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="fer-faults-") as temporary,
        # Processes, because each of them imports Keras to look at models. One job keeps little
        # more than one core busy.
        ProcessPoolExecutor(
            _AT_ONCE, mp_context=get_context("spawn"), initializer=table.end_in_order
        ) as pool,
        _together(pool),
    ):
        folder = (asked.keep or Path(temporary)).absolute()
        futures = {
            pool.submit(table.run, name, folder / name, quick=asked.quick): name
            for name in asked.only or table.FAULTS
        }
        for future in as_completed(futures):
            name = futures[future]
            try:
                result, minutes = future.result()
            except NotTried as trouble:
                print(f"{name}: not tried: {trouble}", flush=True)
                not_tried.append(name)
                continue
            except Exception:
                # The others are still worth their time; this one has no row to show.
                traceback.print_exc()
                lost.append(name)
                continue
            print(f"{name}: {result.survived} of {result.tried} in {minutes:.1f} min", flush=True)
            print(f"  {result.note}", flush=True)
            rows[name] = result
            report.write((rows[n] for n in table.FAULTS if n in rows), path, page=page)
            if result.survived < result.tried:
                lost.append(name)
    if lost:
        print(f"not survived: {', '.join(lost)}", file=sys.stderr)
    if not_tried:
        print(f"not tried: {', '.join(not_tried)}; run them again", file=sys.stderr)
    return 1 if lost else _NOT_TRIED if not_tried else 0


@contextmanager
def _together(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the processes of the pool too, with the servers that they started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    except BaseException:
        for child in active_children():
            child.terminate()
        pool.shutdown(cancel_futures=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
