"""The faults by name, and one of them run; what a process of the pool imports."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from tests.faults.results import Result

# Name -> module and function, imported when it is its turn; the longest first.
FAULTS = {
    "kill9": ("signals", "kill9"),
    "sigterm": ("signals", "sigterm"),
    "outage_sqlite": ("outages", "sqlite"),
    "outage_postgresql": ("outages", "postgresql_"),
    "disk_full": ("disks", "run"),
    "parallel": ("parallel", "run"),
    "verdicts": ("verdicts", "run"),
    "bad_input": ("bad_input", "run"),
    "layouts": ("layouts", "run"),
    "secrets": ("secrets", "run"),
}


_ended = False


def end_in_order() -> None:
    """From here on SIGTERM ends this process's work as an exception does: everything is tidied."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: Any) -> NoReturn:
    global _ended
    _ended = True
    sys.exit(128 + number)


def run(name: str, folder: Path, *, quick: bool) -> tuple[Result, float]:
    """A fault's row, and the minutes that it took."""
    if _ended:
        sys.exit(128 + signal.SIGTERM)  # it waited in the queue
    folder.mkdir(parents=True)
    started = time.monotonic()
    module, function = FAULTS[name]
    inject: Callable[..., Result] = getattr(
        importlib.import_module(f"tests.faults.{module}"), function
    )
    result = replace(inject(folder, quick=quick), name=name)
    return result, (time.monotonic() - started) / 60
