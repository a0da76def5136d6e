"""`fer` as its user starts it: a process of its own, with a data home and a store of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parents[2]
# Seconds after which a command counts as hanging; the longest undisturbed job takes a tenth.
PATIENCE = 300.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that has ended."""

    arguments: tuple[str, ...]
    code: int  # as a shell has it: 128 + the signal that ended it
    out: str
    err: str
    seconds: float

    @property
    def last_words(self) -> str:
        """The last line of what it said, for a report."""
        lines = [line for line in (self.out + "\n" + self.err).splitlines() if line.strip()]
        return f"fer {self.arguments[0]} ended with {self.code}: {lines[-1][:300] if lines else ''}"


class Running:
    """A process that has been started, in a process group of its own."""

    def __init__(
        self, arguments: tuple[str, ...], process: subprocess.Popen[bytes], out: Path, err: Path
    ) -> None:
        self.arguments = arguments
        self._process = process
        self._out, self._err = out, err
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def text(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Sends the signal to the process alone, as `kill` does."""
        self._process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Waits until it has ended, and ends what it may have left running.

        One that goes on for longer than `patience` seconds is killed; its code is then 124, as
        that of `timeout`.
        """
        hangs = ""
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            code, hangs = 124, f"\nstill running after {patience:.0f} s"
        finally:
            seconds = self.seconds
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return Ended(
            arguments=self.arguments,
            code=128 - code if code < 0 else code,
            out=self.text(),
            err=self._err.read_text(errors="replace") + hangs,
            seconds=seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """A row of MLflow's table of runs."""

    run_id: str
    stage: str  # "" as long as it has no such tag
    status: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder, and in it, unless they lie elsewhere, a data home and a store."""

    folder: Path  # holds what the processes print
    data: Path
    store: Path  # where commands run: a local store keeps artifacts there
    tracking_uri: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        data: Path | None = None,
        store: Path | None = None,
        tracking_uri: str | None = None,
        **environment: str,
    ) -> Place:
        """Makes the folder; the store is a fresh SQLite database unless a server is named."""
        folder.mkdir(parents=True)
        store = store or folder
        return cls(
            folder=folder,
            data=data or folder / "data",
            store=store,
            tracking_uri=tracking_uri or f"sqlite:///{store}/mlflow.db",
            environment=environment,
        )

    @property
    def database(self) -> Path | None:
        """The file of a SQLite store."""
        if not self.tracking_uri.startswith("sqlite:///"):
            return None
        return Path(self.tracking_uri.removeprefix("sqlite:///"))

    def start(self, *arguments: str, **environment: str) -> Running:
        """Starts `fer` with these arguments."""
        number = len(list(self.folder.glob("*.out")))
        out, err = (self.folder / f"{number}.{kind}" for kind in ("out", "err"))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "FER_", "PYTEST_"))
        }
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fer_experiments", *arguments],
                cwd=self.store,
                env={
                    **inherited,
                    "FER_DATA_HOME": str(self.data),
                    "MLFLOW_TRACKING_URI": self.tracking_uri,
                    "PYTHONPATH": str(ROOT),
                    "CUDA_VISIBLE_DEVICES": "",  # equal to 1e-4 is promised of CPUs
                    **self.environment,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
        return Running(arguments, process, out, err)

    def fer(self, *arguments: str, **environment: str) -> Ended:
        """`fer` with these arguments, from start to end."""
        return self.start(*arguments, **environment).wait()

    def runs(self, *, change_nothing: bool = True) -> list[Run]:
        """The runs of a SQLite store, newest first; none where there is no whole database yet.

        Args:
            change_nothing: look at a store that is in use; otherwise SQLite may undo what a
                killed process left half-written, as it does for whoever opens it next.
        """
        query = (
            "SELECT runs.run_uuid, tags.value, runs.status FROM runs LEFT JOIN tags "
            "ON tags.run_uuid = runs.run_uuid AND tags.key = 'stage' "
            "WHERE runs.lifecycle_stage = 'active' ORDER BY runs.start_time DESC, runs.rowid DESC"
        )
        return [
            Run(run_id=run_id, stage=stage or "", status=status)
            for run_id, stage, status in self._select(query, change_nothing=change_nothing)
        ]

    def tag(self, run_id: str, key: str) -> str:
        """A tag of a run in a SQLite store; "" if it has none."""
        found = self._select("SELECT value FROM tags WHERE run_uuid = ? AND key = ?", run_id, key)
        return str(found[0][0]) if found else ""

    def _select(
        self, query: str, *values: str, change_nothing: bool = True
    ) -> list[tuple[Any, ...]]:
        database = self.database
        if database is None or not database.exists():
            return []
        address = f"file:{quote(str(database))}?mode={'ro' if change_nothing else 'rw'}"
        with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as connection:
            return connection.execute(query, values).fetchall()
        return []


@contextmanager
def working(process: Running) -> Iterator[Running]:
    """Leaves no process behind, whatever happens meanwhile."""
    try:
        yield process
    finally:
        if not process.is_over:
            process.signal(signal.SIGKILL)
            process.wait()


def remove(place: Place) -> None:
    """Frees what a place that served its purpose takes."""
    shutil.rmtree(place.folder, ignore_errors=True)
