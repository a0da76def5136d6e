"""A disk that fills up at different moments of a job: that of the data home, or of the store.

The disk is a small tmpfs, which root alone can mount; a filler file leaves as much room as the
moment wants, and makes room when it is removed.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.comparison import State, check, look
from tests.faults.jobs import Job, clean
from tests.faults.moments import SEED, Tally, generator
from tests.faults.processes import Ended, Place, Running, remove, working
from tests.faults.results import Result

_MOMENTS, _QUICK_MOMENTS = 10, 2
_ROOMY = 1 << 30  # bytes, for the job that no disk disturbs
_KINDS = ("data home", "store")
# Words of the warning that features are not kept; the job continues without them.
_FALLBACK = "Training continues without what does not fit"


def run(folder: Path, *, quick: bool, moments: int | None = None) -> Result:
    """Fills disks, frees them, resumes, and compares."""
    name = "disk_full"
    moments = moments or (_QUICK_MOMENTS if quick else _MOMENTS)
    if reason := _cannot_mount(folder):
        return Result(name=name, tried=0, survived=0, note=f"not tried: {reason}")
    rng = generator(name)
    tally = Tally(name=name, planned=moments)
    job = clean(quick=quick)
    needs, expected = _undisturbed(folder, job)
    ends: Counter[str] = Counter()
    each = math.ceil(moments / len(_KINDS))
    for i in range(moments):
        kind = _KINDS[i % len(_KINDS)]
        # One moment in each of equal parts of what the job needs.
        share = (i // len(_KINDS) + float(rng.uniform(0, 1))) / each
        free = int(share * needs[kind])
        with _disk(folder / f"{name}-{i}-disk", needs[kind] + free + (8 << 20)) as disk:
            what, problems = _fill(
                folder / f"{name}-{i}", disk, job, expected, kind=kind, free=free, ends=ends
            )
        tally.add(f"{what} ({free / 1e6:.2f} of {needs[kind] / 1e6:.2f} MB free)", problems)
    return tally.result(
        f"tmpfs of the data home or the store with 0 to 100 % of the room that the job needs: "
        f"{ends['error']}× one line and exit code 1, {ends['warning']}× on without the feature "
        f"cache, {ends['enough']}× enough; after room was made, the same result; seed {SEED}"
    )


def _fill(
    folder: Path,
    disk: Path,
    job: Job,
    expected: State,
    *,
    kind: str,
    free: int,
    ends: Counter[str],
) -> tuple[str, list[str]]:
    """One moment: what happened, and what was wrong."""
    of_data = kind == "data home"
    place = Place.make(
        folder, data=disk / "data" if of_data else None, store=None if of_data else disk
    )
    filler = disk / "filler"
    _write(filler, shutil.disk_usage(disk).free - free)
    ended = place.fer(*job.arguments)
    fallback = _FALLBACK in ended.err
    problems = []
    if ended.code == 0:
        how = "warning" if fallback else "enough"
        what = f"{kind} full, went on without the cache" if fallback else f"{kind} large enough"
        filler.unlink()
    else:
        how, what = "error", f"{kind} full {ended.seconds:.1f} s into the job"
        problems += _ended_badly(ended)
        if of_data:
            problems += _told(place, job)
        filler.unlink()
        problems += _go_on(place, job)
    ends[how] += 1
    problems += check(place, expected, fallback=fallback)
    if not problems:
        remove(place)
    return what, problems


def _ended_badly(ended: Ended) -> list[str]:
    """What is wrong with how a command ended that found a disk full."""
    problems = []
    if ended.code != 1:
        problems.append(f"{ended.last_words} (expected 1)")
    lines = [line for line in ended.err.splitlines() if line.startswith("Error: ")]
    if len(lines) != 1 or "Traceback" in ended.err:
        problems.append(f"not one line of error: {ended.err[-300:]!r}")
    elif "full" not in lines[0]:
        problems.append(f"the error does not say that a disk is full: {lines[0][:200]}")
    return problems


def _told(place: Place, job: Job) -> list[str]:
    """What is wrong with what the store, which has room, says of the run."""
    problems = []
    for run in place.runs():
        if run.status == "RUNNING":
            problems.append(f"{run.stage} run is still RUNNING")
        if run.stage == job.stage:
            if run.status != "FAILED":
                problems.append(f"{run.stage} run is {run.status} instead of FAILED")
            if "full" not in place.tag(run.run_id, "failure_reason"):
                problems.append(f"{run.stage} run does not say that a disk is full")
    return problems


def _go_on(place: Place, job: Job) -> list[str]:
    runs = [run for run in place.runs(change_nothing=False) if run.stage == job.stage]
    if runs and runs[0].status == "FINISHED":
        return []
    ended = place.fer(*(job.going_on(runs[0].run_id) if runs else job.arguments))
    return [ended.last_words] if ended.code else []


def _undisturbed(folder: Path, job: Job) -> tuple[dict[str, int], State]:
    """The most bytes that the job takes on each disk, and what it leaves."""
    with (
        _disk(folder / "disk-of-data", _ROOMY) as data,
        _disk(folder / "disk-of-store", _ROOMY) as store,
    ):
        place = Place.make(folder / "undisturbed-disks", data=data / "data", store=store)
        most = {"data home": 0, "store": 0}
        with working(place.start(*job.arguments)) as running:
            disks = {"data home": data, "store": store}
            watch = threading.Thread(target=_watch, args=(running, disks, most))
            watch.start()
            ended = running.wait()
            watch.join()
        if ended.code:
            raise RuntimeError(f"Expected an undisturbed job to end with 0: {ended.last_words}")
        state = look(place)
    needs = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in most.items())
    print(f"  undisturbed: {ended.seconds:.1f} s, at most {needs}", flush=True)
    return most, state


def _watch(running: Running, disks: dict[str, Path], most: dict[str, int]) -> None:
    while not running.is_over:
        for kind, disk in disks.items():
            most[kind] = max(most[kind], shutil.disk_usage(disk).used)
        time.sleep(0.02)


@contextmanager
def _disk(where: Path, size: int) -> Iterator[Path]:
    """A disk of its own of so many bytes."""
    where.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(where)],
        check=True,
        capture_output=True,
    )
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, capture_output=True)


def _cannot_mount(folder: Path) -> str | None:
    """Why no disk can be mounted here, if so."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return "a small tmpfs can be mounted by root only"
    try:
        with _disk(folder / "trial-disk", 1 << 20):
            return None
    except subprocess.CalledProcessError as error:
        return f"no tmpfs can be mounted: {error.stderr.decode().strip()[:200]}"


def _write(path: Path, size: int) -> None:
    """A file of so many bytes that really take room."""
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - start)))
