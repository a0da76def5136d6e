"""`runs`: what stands in the store, by stage, with the ids that other commands take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fer_experiments import console
from fer_experiments.tracking import store
from fer_experiments.tracking.runs import RunRecord, recent, score_of_kept_epoch

_SCORES = ("val/accuracy", "val/macro_f1", "test/accuracy", "test/macro_f1")
_SHORTEST = 8  # characters of an id
_MOST = 15  # runs of a stage, unless all are wanted


def show(
    stages: Sequence[str], *, experiment: str | None = None, every: bool = False
) -> list[RunRecord]:
    """Prints a table for each of the stages, the newest runs first; gives all of their runs.

    Raises:
        RunError: there is no such experiment.
    """
    found = recent(experiment=experiment)
    length = _unique_length([run.id for run in found])
    told = False
    for name in stages:
        runs = [run for run in found if run.stage == name]
        if not runs:
            continue
        told = True
        console.say(f"{name}: {len(runs)}")
        some = runs if every else runs[:_MOST]
        console.table(*_table(some, length), numbers=False)
        if len(runs) > len(some):
            console.say(f"and {len(runs) - len(some)} older ones: fer runs --stage {name} --all")
        console.say()
    console.say(f"{'' if told else 'no runs '}in {store.looked_in()}")
    return [run for run in found if run.stage in stages]


def _table(runs: Sequence[RunRecord], length: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without the scores that none of the runs has."""
    rows = []
    for run in runs:
        began = datetime.fromtimestamp(run.started / 1000)
        rows.append(
            [
                run.id[:length],
                run.status,
                f"{began:%Y-%m-%d %H:%M}",
                run.name,
                *(_score(run, name) for name in _SCORES),
            ]
        )
    header = ["run", "status", "started", "name", *(name.replace("/", " ") for name in _SCORES)]
    wanted = [i for i in range(len(header)) if i < 4 or any(row[i] != "–" for row in rows)]
    return [header[i] for i in wanted], [[row[i] for i in wanted] for row in rows]


def _score(run: RunRecord, name: str) -> str:
    value = score_of_kept_epoch(run, name)
    return "–" if value is None else f"{value:.4f}"


def _unique_length(ids: Sequence[str]) -> int:
    """How many characters tell all ids apart."""
    length = _SHORTEST
    while len({one[:length] for one in ids}) < len(set(ids)):
        length += 1
    return length
