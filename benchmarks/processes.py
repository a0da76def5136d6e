"""Processes of their own, with what they took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished process."""

    output: str
    seconds: float
    peak_megabytes: float  # resident, files that are mapped included
    anonymous_megabytes: float  # the most that was seen, without mapped files


def run(*command: str, folder: Path, failing: bool = False) -> Done:
    """Runs `python …` with a data home and an MLflow store in `folder`.

    Raises:
        RuntimeError: it failed, unless `failing` says that it should.
    """
    environment = os.environ | {
        "FER_DATA_HOME": str(folder / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("MLFLOW_EXPERIMENT_ID", None)
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        anonymous = _Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if (process.returncode != 0) != failing:
        raise RuntimeError(f"{' '.join(command)[:300]} ended with {process.returncode}:\n{text}")
    return Done(
        output=text,
        seconds=seconds,
        peak_megabytes=usage.ru_maxrss / 1024,
        anonymous_megabytes=anonymous.most(),
    )


def fer(*arguments: str, folder: Path) -> Done:
    """A command of ours, as a user types it."""
    return run("-m", "fer_experiments", *arguments, folder=folder)


def ask(module: str, folder: Path, **question: Any) -> tuple[Any, Done]:
    """One of the measuring processes: its answer is the last line, in JSON."""
    done = run("-m", f"benchmarks.{module}", json.dumps(question), folder=folder)
    return json.loads(done.output.splitlines()[-1]), done


class _Watch:
    """Looks at a process's anonymous memory five times a second, until it ends."""

    def __init__(self, pid: int) -> None:
        # Not smaps_rollup, which would walk through all pages and slow down what is measured.
        self._path = Path(f"/proc/{pid}/status")
        self._most = 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def most(self) -> float:
        """Megabytes."""
        self._thread.join()
        return self._most / 1024

    def _look(self) -> None:
        while True:
            try:
                lines = self._path.read_text().splitlines()
            except OSError:
                return  # it has ended
            if "State:\tZ (zombie)" in lines:
                return
            for line in lines:
                if line.startswith("RssAnon:"):
                    self._most = max(self._most, int(line.split()[1]))
            time.sleep(0.2)
