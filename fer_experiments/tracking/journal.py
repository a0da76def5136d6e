"""What a run has to tell, on disk before it goes anywhere: plain JSON, an event a line.

<data home>/runs/<key>/   journal.jsonl     the events in order; the first one says what the run is
                          files/            what events carry: artifacts, the model
                          delivered.json    how much of it MLflow has, and which run it became there
                          checkpoint.npz    see training/checkpoints.py
                          lock              held by the process that writes here

Needs no MLflow: a machine without it trains all the same, and `fer sync` delivers elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fer_experiments import console
from fer_experiments.data.storage import data_home, disk_errors, locked, write_text
from fer_experiments.errors import RunError, summarize
from fer_experiments.tracking.events import (
    End,
    Event,
    Metrics,
    Params,
    Resume,
    Start,
    from_line,
    to_line,
)

_SHORTEST_ID = 4  # characters of an id that is not given whole
_EVENTS, _DELIVERED = "journal.jsonl", "delivered.json"


class Journal:
    """The folder of one run; made by `create` or `open`, both of which hold its lock."""

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.folder = folder
        self._lock = lock
        self._writing = threading.Lock()  # the load on the machine is told by a thread of its own
        self.events: list[Event] = _whole_lines(folder / _EVENTS)
        self._delivered: dict[str, Any] = _read_delivered(folder)
        # What the run holds already, so that resuming writes nothing twice.
        self._points = {
            (name, event.step)
            for event in self.events
            if isinstance(event, Metrics)
            for name in event.values
        }

    @classmethod
    def create(cls, **start: Any) -> Journal:
        """A new journal with its first event; arguments as of `Start`, without the time.

        Raises:
            DiskFullError, DataError: it cannot be written.
        """
        folder = home() / uuid.uuid4().hex
        lock = FileLock(folder / "lock")
        with _making_or_opening():
            try:
                with disk_errors(folder, 0):
                    folder.mkdir()
                    lock.acquire()
                journal = cls(folder, lock)
                journal.append(Start(time=now(), **start))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()
                raise
        return journal

    @classmethod
    def open(cls, folder: Path) -> Journal | None:
        """The journal of a process that has ended.

        None while one still writes there, and, with a warning, where it cannot be read: it would
        look empty, and what is empty is removed.
        """
        lock = FileLock(folder / "lock")
        with _making_or_opening():
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                return None
        try:
            return cls(folder, lock)
        except (OSError, ValueError) as error:
            lock.release()
            console.warn(f"{folder} cannot be read ({summarize(error)}); it is left as it is")
            return None

    @property
    def key(self) -> str:
        """What the run is called here; MLflow gives it an id of its own."""
        return self.folder.name

    @property
    def is_empty(self) -> bool:
        """Whether its process ended before it could say what the run is."""
        return not self.events

    @property
    def start(self) -> Start:
        """What the run is, unless the journal is empty."""
        first = self.events[0]
        if not isinstance(first, Start):
            raise ValueError(f"{self.folder} does not begin with what the run is")
        return first

    @property
    def run_id(self) -> str | None:
        """The run in MLflow, once it is there."""
        return self._delivered.get("run_id")

    @property
    def delivered(self) -> int:
        """How many events MLflow has."""
        return int(self._delivered.get("events", 0))

    @property
    def pending(self) -> list[Event]:
        """The events that MLflow does not have yet."""
        return self.events[self.delivered :]

    @property
    def checkpoint(self) -> Path:
        """Where training keeps its state."""
        return self.folder / "checkpoint.npz"

    def known(self, name: str) -> Any:
        """What delivery has learnt, such as `run_id` or `model_uri`; None if it has not."""
        return self._delivered.get(name)

    def remember(self, **known: Any) -> None:
        """Keeps what delivery has learnt."""
        self._delivered |= known
        write_text(self.folder / _DELIVERED, json.dumps(self._delivered))

    def append(self, event: Event) -> None:
        """Writes an event.

        Raises:
            DiskFullError, DataError: it cannot be written; then nothing of it stays.
        """
        line = to_line(event)
        path = self.folder / _EVENTS
        with self._writing, disk_errors(self.folder, len(line)), path.open("ab") as file:
            before = file.tell()
            try:
                file.write(line)
                file.flush()
                self.events.append(event)
            except BaseException:  # a full disk, or a signal in between
                if not (self.events and self.events[-1] is event):
                    os.truncate(path, before)
                raise

    def new_points(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Those of the metrics that the journal does not hold at this step."""
        with self._writing:
            new = {n: float(v) for n, v in values.items() if (n, step) not in self._points}
            self._points |= {(name, step) for name in new}
        return new

    def next_step(self, name: str) -> int:
        """The step after the last one of this metric."""
        with self._writing:
            return max((step + 1 for other, step in self._points if other == name), default=0)

    def param(self, name: str) -> str | None:
        """The value of a param, if it was written."""
        values = (e.values.get(name) for e in self.events if isinstance(e, Params))
        return next((value for value in values if value is not None), None)

    def has(self, kind: type[Event]) -> bool:
        """Whether there is an event of this kind."""
        return any(isinstance(event, kind) for event in self.events)

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """A file to fill, which an event shall carry: whole, or gone.

        Raises:
            DiskFullError, DataError: it cannot be written.
        """
        file = self.folder / "files" / uuid.uuid4().hex[:12] / name
        try:
            with disk_errors(self.folder, 0):
                file.parent.mkdir(parents=True)
                yield file
        except BaseException:
            shutil.rmtree(file.parent, ignore_errors=True)
            raise

    @property
    def ended(self) -> str | None:
        """The status that the run ended with, unless it is still under way or was cut short."""
        last = next((e for e in reversed(self.events) if isinstance(e, (End, Resume))), None)
        return last.status if isinstance(last, End) else None

    def close(self) -> None:
        """Lets go of the lock."""
        self._lock.release()

    def remove(self) -> None:
        """Removes the folder: MLflow has everything, and nobody will resume it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def home() -> Path:
    """Where the journals lie."""
    return data_home() / "runs"


@contextmanager
def _making_or_opening() -> Iterator[None]:
    """One at a time: a folder whose maker does not hold its lock yet looks left behind."""
    with locked(home() / ".lock"):
        yield


def unfinished() -> Iterator[Journal]:
    """Journals that no living process writes; the caller closes or removes each."""
    for folder in sorted(home().glob("[!.]*"), key=_age):
        if folder.is_dir() and (journal := Journal.open(folder)) is not None:
            yield journal


def stopped() -> list[tuple[str, int]]:
    """Name and bytes of each run that did not finish and that nobody is working on."""
    found = []
    for journal in unfinished():
        size = sum(file.stat().st_size for file in journal.folder.rglob("*") if file.is_file())
        found.append(("–" if journal.is_empty else journal.start.name, size))
        journal.close()
    return found


def resumable_ids() -> list[tuple[str, str, str]]:
    """Id, stage and name of each run that did not finish; no lock is taken."""
    found = []
    for folder in home().glob("[!.]*"):
        try:
            with (folder / _EVENTS).open("rb") as file:
                start = from_line(file.readline())
            if isinstance(start, Start):
                found.append((_id_of(folder), start.stage, start.name))
        except (OSError, ValueError):
            continue
    return found


def forget_stopped() -> int:
    """Removes those of which MLflow has everything; returns the bytes that were freed."""
    freed = 0
    for journal in unfinished():
        if journal.pending:  # sync delivers them
            journal.close()
            continue
        freed += sum(file.stat().st_size for file in journal.folder.rglob("*") if file.is_file())
        journal.remove()
    return freed


def find(run_id: str) -> Journal:
    """The journal of this run, by its id or the beginning of it, with its lock.

    Raises:
        RunError: there is none on this machine, there are several, or its process is still running.
    """
    found = [
        (folder, name)
        for folder in home().glob("[!.]*")
        for name in (_id_of(folder), folder.name)
        if name == run_id or (len(run_id) >= _SHORTEST_ID and name.startswith(run_id))
    ]
    folders = dict(reversed(found))
    if len(folders) > 1:
        several = ", ".join(sorted(folders.values()))
        raise RunError(
            f"Expected resume to be the beginning of one run's id. Received: {run_id}, with which "
            f"several begin: {several}"
        )
    if folders:
        journal = Journal.open(next(iter(folders)))
        if journal is None:
            raise RunError(
                f"Expected resume to name a run that has stopped. Received: {run_id[:80]}, "
                "which is still running on this machine, or cannot be read"
            )
        return journal
    raise RunError(
        "Expected resume to name an unfinished run that was started with this data home "
        f"({data_home()}). Received: {run_id[:80]}, which is finished or was started elsewhere"
    )


def _id_of(folder: Path) -> str:
    """The run's id in MLflow, or its key here as long as it is not known there, or unreadable."""
    with suppress(OSError):
        return str(_read_delivered(folder).get("run_id") or folder.name)
    return folder.name


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_ctime
    except OSError:
        return 0.0


def _read_delivered(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _DELIVERED).read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"tried": True}  # damaged: its run may be there, and is looked for
    return content if isinstance(content, dict) else {"tried": True}


def _whole_lines(path: Path) -> list[Event]:
    """The events of a journal; a last line that a killed process left unfinished is cut off."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return [from_line(line) for line in content[:whole].splitlines()]


def now() -> int:
    """The time of an event, ms since 1970."""
    return round(time.time() * 1000)
