"""`kill -9` and SIGTERM at random moments of a job, which then goes on.

A moment is drawn either over the whole job, or within one of its stages: then the stage's begin is
waited for, and a part of the time that it took undisturbed. Which stage it really was is read from
what the dead process left.
"""

from __future__ import annotations

import json
import signal
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.comparison import check
from tests.faults.jobs import (
    Job,
    Undisturbed,
    augmented,
    cached,
    changes,
    epochs,
    finetune,
    prepare,
    spread,
    train,
    under_way,
    undisturbed,
)
from tests.faults.moments import SEED, Tally, generator
from tests.faults.processes import Ended, Place, Running, remove, working
from tests.faults.results import NotTried, Result

# Each of these is hit as often as the number of moments allows; the rest falls where it falls.
AIMED_AT = ("prepare", "cache", "train", "fine-tune", "log", "register")
_MOMENTS, _QUICK_MOMENTS = {"kill9": 30, "sigterm": 10}, {"kill9": 3, "sigterm": 2}
_KILLED_TWICE = 5  # one of so many moments of kill9 hits what goes on once more
_SIGTERM_PATIENCE = 30.0  # seconds; container runtimes give 10 to 30 before they kill
_MOST_DRAWS = 5  # a job may be over before the moment that was drawn for it


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A moment of a job."""

    seconds: float  # since its start, or since its stage began
    stage: str | None = None
    occurrence: int = 1  # which time it is in this stage

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s" + ("" if self.stage is None else f" into {self.stage}")


def kill9(folder: Path, *, quick: bool, moments: int | None = None) -> Result:
    """Kills prepare, cache, train, fine-tune, log, register; types on, and compares."""
    moments = moments or (_QUICK_MOMENTS if quick else _MOMENTS)["kill9"]
    rng = generator("kill9")
    tally = Tally(name="kill9", planned=moments)
    ways: list[Callable[..., Job]] = [cached, augmented]
    hit: Counter[str] = Counter()
    twice = 0
    for i in range(moments):
        reference = undisturbed(folder, ways[i % len(ways)](quick=quick))
        aim = _aim(reference, hit, rng, everywhere=i < moments // 3)
        again = i % _KILLED_TWICE == _KILLED_TWICE - 1
        place, ended, stage = _strike(folder, reference, aim, signal.SIGKILL, rng, f"kill9-{i}")
        hit[stage] += 1
        twice += again
        what = f"killed {ended.seconds:.1f} s into {reference.job.name}, in {stage}"
        problems = _not_kept(place, stage, epochs(ended.out))
        if again:
            what += ", and once more"
            problems += _strike_again(place, reference, float(rng.uniform(3, reference.seconds)))
        problems += _go_on(place, reference.job)
        problems += check(place, reference.state)
        tally.add(what, problems)
        if not problems:
            remove(place)
    return tally.result(
        f"kill -9 in {spread(hit)}"
        + (f"; {twice} of them hit what went on once more" if twice else "")
        + f"; weights and metrics equal to 1e-4; seed {SEED}"
    )


def sigterm(folder: Path, *, quick: bool, moments: int | None = None) -> Result:
    """Ends jobs with SIGTERM; looks at once how they ended; types on, and compares."""
    moments = moments or (_QUICK_MOMENTS if quick else _MOMENTS)["sigterm"]
    rng = generator("sigterm")
    tally = Tally(name="sigterm", planned=moments)
    ways: list[Callable[..., Job]] = [augmented, train, cached, finetune]
    hit: Counter[str] = Counter()
    for i in range(moments):
        reference = undisturbed(folder, ways[i % len(ways)](quick=quick))
        aim = Aim(seconds=float(rng.uniform(0, reference.seconds)))
        place, ended, stage = _strike(folder, reference, aim, signal.SIGTERM, rng, f"sigterm-{i}")
        hit[stage] += 1
        problems = _ended_well(place, reference.job, ended)
        problems += _not_kept(place, stage, epochs(ended.out))
        problems += _go_on(place, reference.job)
        problems += check(place, reference.state)
        what = f"SIGTERM {ended.seconds:.1f} s into {reference.job.name}, in {stage}"
        tally.add(what, problems)
        if not problems:
            remove(place)
    return tally.result(
        f"SIGTERM in {spread(hit)}; of main, train and finetune; exit code 143, run KILLED with a "
        f"note how to go on; weights and metrics equal to 1e-4; seed {SEED}"
    )


def _aim(
    reference: Undisturbed, hit: Counter[str], rng: np.random.Generator, *, everywhere: bool
) -> Aim:
    """Anywhere in the job, or in the stage that was hit least."""
    stages = [stage for stage in AIMED_AT if reference.spans_of(stage)]
    if everywhere or not stages:
        return Aim(seconds=float(rng.uniform(0, reference.seconds)))
    stage = min(stages, key=lambda stage: hit[stage])
    spans = reference.spans_of(stage)
    occurrence = int(rng.integers(len(spans)))
    length = spans[occurrence].end - spans[occurrence].begin
    return Aim(seconds=float(rng.uniform(0, length)), stage=stage, occurrence=occurrence + 1)


def _strike(
    folder: Path,
    reference: Undisturbed,
    aim: Aim,
    number: signal.Signals,
    rng: np.random.Generator,
    name: str,
) -> tuple[Place, Ended, str]:
    """Starts the job and sends the signal; the stage that it hit.

    Raises:
        NotTried: the job is over before the moment, time and again.
    """
    for draw in range(_MOST_DRAWS):
        place = Place.make(folder / f"{name}-{draw}")
        prepare(place, reference.job)
        with working(place.start(*reference.job.arguments)) as job:
            if _wait_for(aim, job, place):
                # Where a signal is handled, what follows it leaves the stage.
                stage = under_way(place, job.text())
                job.signal(number)
                ended = job.wait(_SIGTERM_PATIENCE)
                if number == signal.SIGKILL:
                    stage = under_way(place, ended.out)
                return place, ended, stage
        remove(place)
        shorter = float(rng.uniform(0, aim.seconds))
        aim = Aim(seconds=shorter, stage=aim.stage, occurrence=aim.occurrence)
    raise NotTried(f"{reference.job.name} was over {_MOST_DRAWS} times before {aim}")


def _wait_for(aim: Aim, job: Running, place: Place) -> bool:
    """Waits for the moment; whether the job is still running then."""
    if aim.stage is not None:
        entered = 0
        for _, stage in changes(job, place):
            entered += stage == aim.stage
            if entered == aim.occurrence:
                break
    until = aim.seconds + (0 if aim.stage is None else job.seconds)
    while job.seconds < until and not job.is_over:
        time.sleep(0.002)
    return not job.is_over


def _strike_again(place: Place, reference: Undisturbed, seconds: float) -> list[str]:
    """Goes on, and kills that as well, unless it is done before."""
    arguments = _command(place, reference.job)
    if arguments is None:
        return []
    with working(place.start(*arguments)) as job:
        if _wait_for(Aim(seconds=seconds), job, place):
            job.signal(signal.SIGKILL)
        ended = job.wait()
    return [] if ended.code in (0, 128 + signal.SIGKILL) else [ended.last_words]


def _command(place: Place, job: Job) -> tuple[str, ...] | None:
    """What a user types who looks at the store; None: it is finished."""
    for run in place.runs(change_nothing=False):
        if run.stage == job.stage:
            return None if run.status == "FINISHED" else job.going_on(run.run_id)
    return job.arguments


def _go_on(place: Place, job: Job) -> list[str]:
    """Types the command that goes on; what is wrong with how that went."""
    # A job that had finished all but its process: any command sees to what it left.
    ended = place.fer(*(_command(place, job) or ("registry",)))
    return [ended.last_words] if ended.code else []


def _not_kept(place: Place, stage: str, told: Sequence[int]) -> list[str]:
    """Epochs that a job has told of, and that are not in the checkpoint that it left."""
    if stage not in ("train", "fine-tune") or not told:
        return []
    kept = [0]
    for path in place.data.glob("runs/*/checkpoint.npz"):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                history = json.loads(str(arrays["about"]))["history"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            return [f"a checkpoint cannot be read: {error}"]
        kept.append(int(history[-1]["epoch"]))
    lost = [epoch for epoch in told if epoch > max(kept)]
    return [f"epochs {lost} had ended, and would be trained again"] if lost else []


def _ended_well(place: Place, job: Job, ended: Ended) -> list[str]:
    """What is wrong with how a job ended that was asked to."""
    if ended.code == 0:
        return []  # it was at its end anyway
    problems = []
    if ended.code != 128 + signal.SIGTERM:
        problems.append(f"exit code {ended.code} instead of 143")
    if "Traceback" in ended.err:
        problems.append("a traceback was printed")
    runs = place.runs(change_nothing=False)
    problems += [f"{run.stage} run is still RUNNING" for run in runs if run.status == "RUNNING"]
    own = next((run for run in runs if run.stage == job.stage), None)
    if own is not None and own.status != "FINISHED":
        if own.status != "KILLED":
            problems.append(f"{own.stage} run is {own.status} instead of KILLED")
        if "--resume" not in place.tag(own.run_id, "mlflow.note.content"):
            problems.append("its note does not say how to go on")
    return problems
