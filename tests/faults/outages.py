"""A tracking server that is killed while a training writes to it, and comes back later.

What is killed is a real `mlflow server`, or the PostgreSQL behind it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer_experiments.console import quieten
from tests.faults.comparison import State, check, look
from tests.faults.jobs import spread, train, under_way
from tests.faults.moments import SEED, Tally, generator
from tests.faults.processes import Ended, Place, Running, remove, working
from tests.faults.results import NotTried, Result
from tests.faults.servers import MlflowServer, missing_postgresql, postgresql

_MOMENTS, _QUICK_MOMENTS = 10, 2
_AWAY, _QUICK_AWAY = (5.0, 30.0), (5.0, 8.0)  # seconds
_DATABASE_EVERY = 3  # one of so many outages is the database's, where that is a server too
_LITTLE_PATIENCE = "5"  # seconds, for the moment at which the server stays away
_MOST_DRAWS = 5  # a training may be over before the moment that was drawn for it


class Stoppable(Protocol):
    """What an outage takes away and brings back."""

    def kill(self) -> None:
        """Takes it away."""

    def start(self) -> None:
        """Brings it back."""


@dataclass(frozen=True, kw_only=True)
class _Reference:
    """A training while the server was there all the time."""

    state: State
    begun: float  # seconds after the start, the run was in MLflow
    seconds: float


def sqlite(folder: Path, *, quick: bool, moments: int | None = None) -> Result:
    """Outages of a server on SQLite."""
    name = "outage_sqlite"
    home = folder / name
    home.mkdir()
    server = MlflowServer(home, f"sqlite:///{home}/mlflow.db")
    try:
        return _outages(name, home, server, [server], quick=quick, moments=moments)
    finally:
        server.kill()


def postgresql_(folder: Path, *, quick: bool, moments: int | None = None) -> Result:
    """Outages of a server on PostgreSQL, and of PostgreSQL itself."""
    name = "outage_postgresql"
    if reason := missing_postgresql():
        return Result(name=name, tried=0, survived=0, note=f"not tried: {reason}")
    home = folder / name
    home.mkdir()
    with postgresql() as database:
        server = MlflowServer(home, database.uri)
        try:
            return _outages(name, home, server, [server, database], quick=quick, moments=moments)
        finally:
            server.kill()


def _outages(
    name: str,
    home: Path,
    server: MlflowServer,
    victims: Sequence[Stoppable],
    *,
    quick: bool,
    moments: int | None,
) -> Result:
    moments = moments or (_QUICK_MOMENTS if quick else _MOMENTS)
    rng = generator(name)
    tally = Tally(name=name, planned=moments)
    server.start()
    reference = _undisturbed(home, server, quick=quick)
    hit: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for i in range(moments):
        others = victims[1:]
        victim = others[0] if others and i % _DATABASE_EVERY == 0 else server
        away = float(rng.uniform(*(_QUICK_AWAY if quick else _AWAY)))
        to_the_end = moments > 1 and i == moments - 1
        experiment = f"{name}-{i}"
        place, what, problems = _outage(
            home, server, server if to_the_end else victim, reference, rng,
            experiment=experiment, quick=quick, away=None if to_the_end else away,
        )  # fmt: skip
        if not problems:
            problems += check(place, reference.state, experiment=experiment, resumed=False)
        stages[what.rpartition(", in ")[2].split(",")[0]] += 1
        hit["to the end" if to_the_end else "database" if victim is not server else "server"] += 1
        tally.add(what, problems)
        if not problems:
            remove(place)
    least, most = _QUICK_AWAY if quick else _AWAY
    parts = [f"mlflow server killed {hit['server']}×"]
    if hit["database"]:
        parts.append(f"PostgreSQL stopped at once {hit['database']}×")
    parts.append(f"away {least:.0f} to {most:.0f} s")
    if hit["to the end"]:
        parts.append(f"{hit['to the end']}× away to the end, then fer sync")
    return tally.result(
        f"{', '.join(parts)}; in {spread(stages)}; params, tags, metrics, tables, artifacts and "
        f"model as undisturbed, nothing twice; seed {SEED}"
    )


def _undisturbed(home: Path, server: MlflowServer, *, quick: bool) -> _Reference:
    place = Place.make(home / "undisturbed", tracking_uri=server.uri)
    with working(place.start(*train(quick=quick, experiment="undisturbed").arguments)) as job:
        _wait_for_run(job, place, "undisturbed")
        begun = job.seconds
        ended = job.wait()
    if ended.code:
        raise RuntimeError(f"Expected an undisturbed job to end with 0: {ended.last_words}")
    print(f"  undisturbed: {ended.seconds:.1f} s, in MLflow after {begun:.1f} s", flush=True)
    state = look(place, experiment="undisturbed")
    return _Reference(state=state, begun=begun, seconds=ended.seconds)


def _outage(
    home: Path,
    server: MlflowServer,
    victim: Stoppable,
    reference: _Reference,
    rng: np.random.Generator,
    *,
    experiment: str,
    quick: bool,
    away: float | None,
) -> tuple[Place, str, list[str]]:
    """A training with one outage: where it ran, what was done, what was wrong with its end.

    Args:
        home: where places are made.
        server: that it writes to.
        victim: what is taken away.
        reference: how long it takes undisturbed.
        rng: draws the moment.
        experiment: that it writes to.
        quick: a small training.
        away: for how many seconds; None: until the training has ended.
    """
    arguments = train(quick=quick, experiment=experiment).arguments
    patience = {} if away is not None else {"FER_TRACKING_PATIENCE": _LITTLE_PATIENCE}
    longest = reference.seconds - reference.begun
    for draw in range(_MOST_DRAWS):
        after = float(rng.uniform(0, longest / (draw + 1)))
        place = Place.make(home / f"{experiment}-{draw}", tracking_uri=server.uri)
        with working(place.start(*arguments, **patience)) as job:
            _wait_for_run(job, place, experiment)
            time.sleep(after)
            if job.is_over:
                # The next draw writes to the same experiment, which shall hold its run alone.
                _forget(place, experiment)
                continue
            victim.kill()
            stage = under_way(place, job.text())
            what = f"{type(victim).__name__} away {job.seconds:.1f} s into train, in {stage}"
            if away is None:
                return place, f"{what}, to the end", _sync(place, victim, job.wait())
            time.sleep(away)
            victim.start()
            ended = job.wait()
        return place, f"{what}, for {away:.0f} s", _complaints(ended, 0)
    raise NotTried(f"the training was over {_MOST_DRAWS} times before the outage")


def _sync(place: Place, victim: Stoppable, trained: Ended) -> list[str]:
    """The training ended while the server was away; `fer sync` without it, then with it."""
    problems = _complaints(trained, 0)
    if "Warning" not in trained.err:
        problems.append("no warning that something waits to be delivered")
    problems += _complaints(place.fer("sync", FER_TRACKING_PATIENCE=_LITTLE_PATIENCE), 1)
    begun = place.fer(*train(quick=True).arguments)
    problems += _complaints(begun, 1)
    if begun.err.count("Error:") != 1:
        problems.append(f"not one line of error without a server: {begun.err[-300:]}")
    victim.start()
    return problems + _complaints(place.fer("sync"), 0)


def _complaints(ended: Ended, code: int) -> list[str]:
    problems = []
    if ended.code != code:
        problems.append(f"{ended.last_words} (expected {code})")
    if "Traceback" in ended.out + ended.err:
        problems.append(f"fer {ended.arguments[0]} printed a traceback")
    return problems


def _wait_for_run(job: Running, place: Place, experiment: str) -> None:
    """Waits until the run stands in MLflow, or the job has ended without."""
    while not job.is_over and not _runs(place, experiment):
        time.sleep(0.05)


def _runs(place: Place, experiment: str) -> list[Any]:
    client = _client(place)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def _forget(place: Place, experiment: str) -> None:
    for run in _runs(place, experiment):
        _client(place).delete_run(run.info.run_id)


def _client(place: Place) -> Any:
    quieten()
    from mlflow.tracking import MlflowClient

    return MlflowClient(place.tracking_uri)
