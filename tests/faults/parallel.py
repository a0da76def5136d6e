"""Several trainings at once, on a store and a data home that none of them has seen before."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.faults.comparison import RunState, read_run, run_differences, unsound
from tests.faults.moments import Tally
from tests.faults.processes import Place, remove, working
from tests.faults.results import Result

_PROCESSES, _QUICK_PROCESSES = 8, 3
_SEEDS = ("0", "1")  # untrained weights come from the seed: two keys of the feature cache
_PATIENCE = 600.0  # seconds; they share the cores


def run(folder: Path, *, quick: bool, moments: int | None = None) -> Result:
    """Starts them together and waits; every process counts as tried."""
    count = moments or (_QUICK_PROCESSES if quick else _PROCESSES)
    tally = Tally(name="parallel", planned=count)
    place = Place.make(folder / "parallel")
    common = ("train", "--backbone", "tiny", "--recipe", "demo", "--synthetic-count", "700")
    seeds = [_SEEDS[i % len(_SEEDS)] for i in range(count)]
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(working(place.start(*common, "--epochs", "3", "--seed", seed)))
            for seed in seeds
        ]
        ended = [job.wait(_PATIENCE) for job in jobs]

    shared = [*unsound(place), *_data_home(place)]
    computed = Counter(
        seed for seed, e in zip(seeds, ended, strict=True) if " images computed" in e.out
    )
    shared += [
        f"features of seed {seed} were computed {computed[seed]} times"
        for seed in _SEEDS
        if computed[seed] != 1
    ]
    runs = [run for run in place.runs() if run.status == "FINISHED" and run.stage == "train"]
    if len(runs) != count:
        shared.append(f"{len(runs)} FINISHED train runs instead of {count}")
    known = {run.run_id: read_run(place, run.run_id) for run in runs}
    first: dict[str, RunState] = {}
    for number, (seed, end) in enumerate(zip(seeds, ended, strict=True)):
        problems = [*shared]
        if end.code:
            problems.append(end.last_words)
        own = [state for run_id, state in known.items() if run_id in end.out]
        if len(own) != 1:
            problems.append(f"{len(own)} runs of process {number}")
        for state in own:
            same = first.setdefault(seed, state)
            problems += _unequal(same, state)
        tally.add(f"process {number}, seed {seed}", problems)
    if not tally.failures:
        remove(place)
    return tally.result(
        f"{count} fer train at once on a fresh SQLite store and an empty data home, two keys of "
        "features: one prepared folder, each key's features computed once, equal results for equal "
        "seeds"
    )


def _unequal(expected: RunState, found: RunState) -> list[str]:
    """Differences in what was trained; ids in tags and notes are each run's own."""
    return [
        problem
        for problem in run_differences(expected, found)
        if problem.startswith(("param", "metric", "the model", "datasets"))
    ]


def _data_home(place: Place) -> list[str]:
    """What is wrong with the prepared data and the features."""
    problems = []
    prepared = [path.name for path in place.data.glob("synthetic-*")]
    if len(prepared) != 1:
        problems.append(f"{len(prepared)} prepared folders instead of 1")
    keys: Counter[str] = Counter()
    for manifest in place.data.glob("features/*/manifest.json"):
        content = json.loads(manifest.read_text())
        keys[content["key"]["graph"]] += 1
        if content["crc32"] != zlib.crc32((manifest.parent / "features.npy").read_bytes()):
            problems.append(f"{manifest.parent.name} is damaged")
    per_tensor = Counter(keys.values())
    if not keys or len(keys) % len(_SEEDS) or len(per_tensor) != 1:
        problems.append(f"features by graph and weights: {dict(keys)}")
    return problems
