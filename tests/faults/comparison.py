"""What a job left, read back whole, and held against what an undisturbed one left.

Times differ between two runs of the same job, and ids do; nothing else may.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_experiments.console import load_keras, quieten
from tests.faults.processes import Place

TOLERANCE = 1e-4
# Metrics, and columns and keys of artifacts, that say how long something took.
_TIMES = re.compile(r"(^|\b|_)(time|seconds|images/s|per_second)(\b|_|$)")
_NOTE, _REASON = "mlflow.note.content", "failure_reason"
# Where the command was started from, by whom, and MLflow's own ids with dates.
_TAGS_ASIDE = ("mlflow.source.", "mlflow.user", "mlflow.log-model.history", "mlflow.project")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """All that MLflow has of a run, its ids replaced by names."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, Sequence[tuple[int, float]]]  # (step, value) as often as it is there
    artifacts: Mapping[str, Any]  # content by path
    datasets: Sequence[tuple[str, ...]]
    models: int
    weights: Sequence[np.ndarray]  # of its model
    model_scores: Mapping[str, float]  # metrics that belong to its model


@dataclass(frozen=True, kw_only=True)
class State:
    """All that a job left."""

    runs: Mapping[str, RunState]  # finished ones, by stage
    doubles: Sequence[str]  # what is there more than once
    registry: Sequence[tuple[str, ...]]  # versions with their aliases and how it was decided
    files: Mapping[str, Any]  # of the data home


def check(
    place: Place,
    expected: State,
    *,
    experiment: str | None = None,
    resumed: bool = True,
    fallback: bool = False,
) -> list[str]:
    """What is wrong with what a job left; nothing if all is as in the undisturbed one.

    Args:
        place: where it ran.
        expected: what the undisturbed job left.
        experiment: the only one to look at, where a store holds several jobs.
        resumed: more than one command took part: a tag may tell of it.
        fallback: features were not kept for want of room, so that sums were added up in another
            order: numbers may differ, and files of the cache may be missing.
    """
    found = look(place, experiment=experiment)
    return [
        *unsound(place, experiment=experiment),
        *differences(expected, found, resumed=resumed, fallback=fallback),
    ]


def look(place: Place, *, experiment: str | None = None) -> State:
    """Reads everything back, through MLflow as any user of it would."""
    client = _client(place)
    experiments = _experiments(client, experiment)
    runs = client.search_runs(experiments, max_results=1000)
    models = client.search_logged_models(experiments, max_results=100)
    named = _Names(place, runs, models)
    by_stage: dict[str, RunState] = {}
    doubles = []
    for run in runs:
        stage = run.data.tags.get("stage", "unknown")
        if run.info.status != "FINISHED":
            continue
        if stage in by_stage:
            doubles.append(f"several finished {stage} runs")
            continue
        by_stage[stage] = read_run(place, run.info.run_id, names=named)
    registry = []
    for model in client.search_registered_models():
        for version in client.search_model_versions(f"name = '{model.name}'"):
            number = str(version.version)
            aliases = sorted(a for a, n in model.aliases.items() if str(n) == number)
            why = named(version.tags.get("decision_reason", "no reason"))
            registry.append((model.name, number, named(version.source), ",".join(aliases), why))
    return State(
        runs=by_stage, doubles=doubles, registry=sorted(registry), files=_files(place, named)
    )


def read_run(
    place: Place, run_id: str, *, names: Callable[[str], str] = lambda text: text
) -> RunState:
    """Everything of one run."""
    client = _client(place)
    import mlflow

    run = client.get_run(run_id)
    models = [
        model
        for model in client.search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'"
        )
        if str(model.status) == "READY"
    ]
    weights: list[np.ndarray] = []
    with tempfile.TemporaryDirectory(prefix="fer-faults-") as folder:
        artifacts = {}
        if client.list_artifacts(run_id):
            local = Path(client.download_artifacts(run_id, "", folder))
            artifacts = {
                path.relative_to(local).as_posix(): _content(path, names)
                for path in sorted(local.rglob("*"))
                if path.is_file()
            }
    for model in models[:1]:
        with tempfile.TemporaryDirectory(prefix="fer-faults-") as folder:
            local_model = mlflow.artifacts.download_artifacts(
                artifact_uri=model.artifact_location,
                dst_path=folder,
                tracking_uri=place.tracking_uri,
            )
            load_keras()
            network = mlflow.pyfunc.load_model(local_model).get_raw_model()
            weights = network.get_weights()
    return RunState(
        params=dict(run.data.params),
        tags={key: names(value) for key, value in run.data.tags.items()},
        metrics={
            name: sorted((p.step, p.value) for p in client.get_metric_history(run_id, name))
            for name in run.data.metrics
        },
        artifacts=artifacts,
        datasets=sorted(
            (
                used.dataset.name,
                used.dataset.digest,
                *sorted(f"{tag.key}={tag.value}" for tag in used.tags),
            )
            for used in run.inputs.dataset_inputs
        ),
        models=len(models),
        weights=weights,
        model_scores={
            m.key: m.value
            for model in models
            for m in model.metrics or []
            if not m.key.startswith(("system/", "time/"))
        },
    )


def unsound(place: Place, *, experiment: str | None = None) -> list[str]:
    """What must not be in any store or data home once all commands have ended."""
    client = _client(place)
    experiments = _experiments(client, experiment)
    problems = []
    unfinished = 0
    for run in client.search_runs(experiments, max_results=1000):
        name = f"{run.data.tags.get('stage', 'unnamed')} run {run.info.run_id[:8]}"
        finished, told = run.info.status == "FINISHED", _REASON in run.data.tags
        if run.info.status not in ("FINISHED", "FAILED", "KILLED"):
            problems.append(f"{name} is still {run.info.status}")
        elif finished and told:
            problems.append(f"{name} is FINISHED, but has a {_REASON}")
        elif not finished and not told:
            problems.append(f"{name} is {run.info.status} without a {_REASON}")
        if not finished and "train/loss" in run.data.metrics:
            problems.append(f"{name} is {run.info.status}, and its epochs were trained again")
        unfinished += not finished
    models = client.search_logged_models(experiments, max_results=100)
    problems += [
        f"model {m.model_id[:8]} is {m.status}" for m in models if str(m.status) != "READY"
    ]
    if place.database is not None:
        known = {model.model_id for model in models}
        problems += [
            f"a half-logged model stays: {folder.name[:8]}"
            for folder in sorted(place.store.glob("mlruns/*/models/*"))
            if folder.name not in known
        ]
        with closing(sqlite3.connect(place.database)) as connection:
            [[verdict]] = connection.execute("PRAGMA integrity_check(1)")
        if verdict != "ok":
            problems.append(f"the database is damaged: {verdict}")
    problems += [
        f"half-written: {path.relative_to(place.data)}" for path in place.data.rglob(".writing-*")
    ]
    journals = [path for path in place.data.glob("runs/*") if path.is_dir()]
    if len(journals) > unfinished:
        problems.append(
            f"{len(journals)} folders under runs/, although {unfinished} runs are unfinished"
        )
    return problems


def differences(
    expected: State, found: State, *, resumed: bool = True, fallback: bool = False
) -> list[str]:
    """What of the expected state is missing, different, or there twice; see `check`."""
    problems = [*found.doubles]
    for stage, run in expected.runs.items():
        if stage not in found.runs:
            problems.append(f"no finished {stage} run")
            continue
        problems += [
            f"{stage}: {problem}"
            for problem in run_differences(
                # Whoever decides again finds it decided, and says so; why stands in the registry.
                _without_note(run) if resumed and stage == "register" else run,
                found.runs[stage],
                resumed=resumed,
                values=not fallback,
            )
        ]
    problems += [f"an unexpected {stage} run" for stage in found.runs if stage not in expected.runs]
    ours, theirs = (
        [entry[:-1] if fallback else entry for entry in state.registry]
        for state in (expected, found)
    )
    if ours != theirs:
        problems.append(f"registry: {theirs} instead of {ours}")
    extra = found.files.keys() - expected.files.keys()
    missing = expected.files.keys() - found.files.keys()
    if fallback:
        missing = {name for name in missing if not name.startswith("features/")}
    problems += [f"data home: {name} is missing" for name in sorted(missing)]
    problems += [f"data home: {name} is new" for name in sorted(extra)]
    problems += [
        f"data home: {name} has other content"
        for name in sorted(expected.files.keys() & found.files.keys())
        if expected.files[name] != found.files[name]
    ]
    return problems


def run_differences(
    expected: RunState, found: RunState, *, resumed: bool = True, values: bool = True
) -> Iterator[str]:
    """What differs between two runs of the same stage."""
    for key in sorted({*expected.params, *found.params}):
        said, says = expected.params.get(key, "missing"), found.params.get(key, "missing")
        if said != says:
            yield f"param {key} is {says[:80]} instead of {said[:80]}"
    yield from _tag_differences(expected.tags, found.tags, resumed=resumed)

    def close(a: float, b: float) -> bool:
        return not values or bool(np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))

    for name in sorted({*expected.metrics, *found.metrics}):
        if name.startswith("system/"):
            continue  # the load on the machine
        ours, theirs = (state.metrics.get(name, ()) for state in (expected, found))
        steps, their_steps = [step for step, _ in ours], [step for step, _ in theirs]
        twice = [step for step, times in Counter(their_steps).items() if times > 1]
        if twice:
            yield f"metric {name} is there several times at steps {_few(twice)}"
        elif steps != their_steps:
            yield f"metric {name} is there at steps {_few(their_steps)} instead of {_few(steps)}"
        elif not name.startswith("time/"):
            for (step, a), (_, b) in zip(ours, theirs, strict=True):
                if not close(a, b):
                    yield f"metric {name} is {b:.6g} instead of {a:.6g} at step {step}"
                    break
    yield from _unlike(
        "scores of the model", expected.model_scores, found.model_scores, close=close
    )
    if expected.datasets != found.datasets:
        yield f"datasets {found.datasets} instead of {expected.datasets}"
    if expected.models != found.models:
        yield f"{found.models} models instead of {expected.models}"
    if values:
        yield from _unlike("artifact", expected.artifacts, found.artifacts, close=close)
    elif expected.artifacts.keys() != found.artifacts.keys():
        yield f"artifacts differ: {_few(expected.artifacts.keys() ^ found.artifacts.keys())}"
    shapes, their_shapes = ([w.shape for w in state.weights] for state in (expected, found))
    if shapes != their_shapes:
        yield "the model has other weights"
    elif values:
        distance = max(
            (
                float(np.abs(a - b).max())
                for a, b in zip(expected.weights, found.weights, strict=True)
                if a.size
            ),
            default=0.0,
        )
        if not distance <= TOLERANCE:
            yield f"the model's weights differ by {distance:.3g}"


def _without_note(run: RunState) -> RunState:
    return replace(run, tags={key: value for key, value in run.tags.items() if key != _NOTE})


def _tag_differences(
    expected: Mapping[str, str], found: Mapping[str, str], *, resumed: bool
) -> Iterator[str]:
    for key in sorted({*expected, *found}):
        if key.startswith(_TAGS_ASIDE) or (resumed and key not in expected):
            continue
        ours, theirs = expected.get(key, "missing"), found.get(key, "missing")
        if key == _NOTE:
            ours, theirs = _without_numbers(ours), _without_numbers(theirs)
        if ours != theirs:
            yield f"tag {key} is {theirs[:200]!r} instead of {ours[:200]!r}"


def _unlike(
    where: str, expected: Any, found: Any, *, close: Callable[[Any, Any], bool]
) -> Iterator[str]:
    """Where two contents differ; numbers in text and everything about time aside."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in sorted({*expected, *found}):
            if key not in expected:
                yield f"{where} {key} is new"
            elif key not in found:
                yield f"{where} {key} is missing"
            elif not _TIMES.search(key):
                yield from _unlike(f"{where} {key}", expected[key], found[key], close=close)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{where} has {len(found)} entries instead of {len(expected)}"
        else:
            for a, b in zip(expected, found, strict=True):
                if problem := next(_unlike(where, a, b, close=close), None):
                    yield problem
                    return
    elif isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        if expected.shape != found.shape or expected.dtype != found.dtype:
            yield f"{where} has another shape"
        elif expected.dtype.kind == "f":
            if not np.allclose(expected, found, rtol=0, atol=TOLERANCE, equal_nan=True):
                yield f"{where} differs by {np.abs(expected - found).max():.3g}"
        elif not np.array_equal(expected, found):
            yield f"{where} differs"
    elif _is_number(expected) and _is_number(found):
        if not close(expected, found):
            yield f"{where} is {found} instead of {expected}"
    elif isinstance(expected, str) and isinstance(found, str):
        if _without_numbers(expected) != _without_numbers(found):
            yield f"{where} is {found[:120]!r} instead of {expected[:120]!r}"
    elif expected != found:
        yield f"{where} is {str(found)[:120]} instead of {str(expected)[:120]}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _content(path: Path, names: Callable[[str], str]) -> Any:
    """What an artifact says, in a form that can be compared."""
    try:
        match path.suffix:
            case ".json":
                return _as_columns(json.loads(names(path.read_text())))
            case ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    return dict(arrays)
            case ".png":
                with Image.open(path) as image:
                    image.load()
                return "picture"
            case _:
                # Pictures stand in pages as text; they may differ in a pixel.
                return re.sub(r"data:image/\S+", "picture", names(path.read_text()))
    except (OSError, ValueError, EOFError) as error:
        return f"unreadable: {error}"


def _as_columns(content: Any) -> Any:
    """A table of MLflow's by its columns, so that one about time can be told."""
    if isinstance(content, dict) and set(content) == {"columns", "data"}:
        rows = content["data"]
        return {name: [row[i] for row in rows] for i, name in enumerate(content["columns"])}
    return content


def _files(place: Place, names: Callable[[str], str]) -> dict[str, Any]:
    """What lies in the data home; journals of unfinished runs are looked at elsewhere."""
    found: dict[str, Any] = {}
    for path in sorted(place.data.rglob("*")):
        name = path.relative_to(place.data).as_posix()
        if not path.is_file() or path.suffix == ".lock" or name.startswith("runs/"):
            continue
        if path.name == "manifest.json":
            try:
                content = json.loads(names(path.read_text()))
            except ValueError:
                content = {"damaged": True}
            content.pop("made", None)  # when it was written
            found[name] = content
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class _Names:
    """Replaces ids and folders, which differ from job to job, by what they stand for."""

    def __init__(self, place: Place, runs: Sequence[Any], models: Sequence[Any]) -> None:
        stages = {run.info.run_id: run.data.tags.get("stage", "unknown") for run in runs}
        self._known = {run_id: f"<{stage} run>" for run_id, stage in stages.items()} | {
            model.model_id: f"<{stages.get(model.source_run_id, 'unknown')} model>"
            for model in models
        }
        self._short = {name[:8]: what for name, what in self._known.items()}  # in tables
        folders = {str(place.folder), str(place.data), str(place.store)}
        self._folders = sorted(folders, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for folder in self._folders:
            text = text.replace(folder, "<folder>")
        text = re.sub(
            r"\b(?:m-)?[0-9a-f]{32}\b", lambda found: self._known.get(found[0], "<id>"), text
        )
        return re.sub(r"\b[0-9a-f]{8}\b", lambda found: self._short.get(found[0], found[0]), text)


def _without_numbers(text: str) -> str:
    """Words alone: metrics hold the numbers, and seconds differ."""
    return re.sub(r"\s+", " ", re.sub(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", "#", text))


def _few(values: Any) -> str:
    listed = sorted(values)
    shown = ", ".join(map(str, listed[:6]))
    return f"{shown}, … ({len(listed)})" if len(listed) > 6 else shown or "none"


def _client(place: Place) -> Any:
    quieten()
    from mlflow.tracking import MlflowClient

    return MlflowClient(place.tracking_uri)


def _experiments(client: Any, name: str | None) -> list[str]:
    experiments = client.search_experiments(max_results=1000)
    return [e.experiment_id for e in experiments if name is None or e.name == name]
