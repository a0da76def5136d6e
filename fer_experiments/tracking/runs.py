"""Find runs again, and read what they hold."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote as quote_for_url

import mlflow
import numpy as np
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from fer_experiments.config import Config
from fer_experiments.errors import RunError, TrackingError, quote, summarize
from fer_experiments.migrations import migrated
from fer_experiments.tracking import names, pages, store


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What MLflow knows of a run of this suite."""

    id: str
    name: str
    stage: str  # the command that made it
    status: str  # RUNNING, FINISHED, FAILED, KILLED
    experiment_id: str
    started: int  # ms since 1970
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]  # the last value of each

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.status == "FINISHED"


def _record(run: Run) -> RunRecord:
    return RunRecord(
        id=str(run.info.run_id),
        name=str(run.info.run_name),
        stage=run.data.tags.get("stage", "unknown"),
        status=str(run.info.status),
        experiment_id=str(run.info.experiment_id),
        started=int(run.info.start_time),
        params={name: str(value) for name, value in migrated(run.data.params).items()},
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
    )


def get_run(run_id: str, *, stages: tuple[str, ...]) -> RunRecord:
    """A finished run of one of these stages, by its id or the beginning of it.

    Raises:
        RunError: it does not exist, is not finished, or is of another stage.
    """
    wanted = " or ".join(stages)
    run_id = _whole_id(run_id)
    try:
        run = _record(store.client().get_run(run_id))
    except MlflowException as error:
        if not store.is_missing(error):
            raise TrackingError(store.message(error)) from None
        raise RunError(
            f"Expected run_id of a finished {wanted} run. Received: {run_id[:80]}, which does not "
            f"exist in {store.address()}"
        ) from None
    if run.stage not in stages or names.SUITE not in run.tags:
        raise RunError(
            f"Expected run_id of a {wanted} run. Received: {run_id}, a run of stage {run.stage}"
        )
    if not run.finished:
        raise RunError(
            f"Expected a finished {wanted} run. Received: {run_id}, which is {run.status}"
        )
    return run


@store.translated()
def find_run(run_id: str) -> RunRecord | None:
    """The run; None if it does not exist (any more).

    Raises:
        TrackingError: the store cannot be reached.
    """
    try:
        return _record(store.client().get_run(run_id))
    except MlflowException as error:
        if store.is_missing(error):
            return None
        raise


@store.translated()
def _whole_id(run_id: str) -> str:
    """The id of the one run that begins so; what is no part of an id stays as it is.

    Raises:
        RunError: several begin so.
    """
    if not re.fullmatch(r"[0-9a-f]{4,31}", run_id) or not store.exists():
        return run_id
    found = store.client().search_runs(
        [experiment.experiment_id for experiment in _experiments()],
        f"attributes.run_id LIKE '{run_id}%'",
        max_results=5,
    )
    if len(found) > 1:
        several = ", ".join(f"{run.info.run_id[:12]} ({run.info.run_name})" for run in found)
        raise RunError(
            f"Expected the beginning of one run's id. Received: {run_id}, with which several "
            f"begin: {several}"
        )
    return str(found[0].info.run_id) if found else run_id


@store.translated()
def recent(*, experiment: str | None = None, most: int = 5000) -> list[RunRecord]:
    """This suite's runs of every stage and status, the newest first.

    Raises:
        RunError: there is no such experiment.
    """
    if experiment is None and not store.exists():
        return []
    found = mlflow.search_runs(
        _ids_of(experiment),
        filter_string=f"tags.{names.SUITE} != ''",
        order_by=["attributes.start_time DESC"],
        max_results=most,
        output_format="list",
    )
    return [_record(run) for run in found]


@store.translated()
def experiments_of_suite() -> dict[str, str]:
    """The experiments that hold runs of this suite: id by name."""
    return {
        str(experiment.name): str(experiment.experiment_id)
        for experiment in sorted(_experiments(), key=lambda e: str(e.name))
        if store.client().search_runs(
            [experiment.experiment_id], f"tags.{names.SUITE} != ''", max_results=1
        )
    }


@store.translated()
def score_of_kept_epoch(run: RunRecord, name: str) -> float | None:
    """A score of the model that the run logged, which need not be its last epoch's."""
    kept = run.metrics.get("best_epoch")
    if kept is None or name not in run.metrics:
        return run.metrics.get(name)
    points = store.client().get_metric_history(run.id, name)
    return next((point.value for point in points if point.step == int(kept)), None)


@store.translated()
def search(
    stage: str,
    *,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[RunRecord]:
    """Finished runs of a stage with these tags, newest first, in the whole store."""
    if experiment is None and not store.exists():
        return []
    conditions = [f"tags.stage = '{stage}'", "attributes.status = 'FINISHED'"]
    conditions += [f"tags.{k} = {store.quoted(v)}" for k, v in (tags or {}).items()]
    found = mlflow.search_runs(
        _ids_of(experiment),
        filter_string=" AND ".join(conditions),
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    return [_record(run) for run in found if names.SUITE in run.data.tags]


def _ids_of(experiment: str | None) -> list[str]:
    """The id of an experiment, or those of all.

    Raises:
        RunError: it does not exist.
    """
    every = _experiments() if experiment is None or store.exists() else []
    found = [e.experiment_id for e in every if experiment in (None, e.name)]
    if experiment is not None and not found:
        known = ", ".join(quote(e.name) for e in every[:10]) or "none"
        raise RunError(
            f"Expected experiment to be one of {known} in {store.looked_in()}. "
            f"Received: experiment={quote(experiment)}"
        )
    return found


def _experiments() -> list[Experiment]:
    client, found, token = store.client(), [], None
    while True:
        page = client.search_experiments(
            view_type=ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


@store.translated()
def stages_of(run_id: str) -> list[RunRecord]:
    """The runs of the stages of a `main` run, oldest first."""
    client = store.client()
    found = client.search_runs(
        [client.get_run(run_id).info.experiment_id],
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'",
        order_by=["attributes.start_time ASC"],
    )
    return [_record(run) for run in found]


def config_of(run: RunRecord) -> Config:
    """The configuration that a run was made with."""
    with _artifact(run.id, "config.json") as file:
        return Config.from_stored(json.loads(file.read_text(encoding="utf-8")))


@store.translated()
def histories(run_id: str) -> list[dict[str, float]]:
    """Each epoch's scores of a train or fine-tune run, and of the runs that it started from.

    Runs that are gone (`mlflow gc`) have no epochs.
    """
    client = store.client()
    epochs: dict[int, dict[str, float]] = {}
    source: str | None = run_id
    while source is not None:
        try:
            run = client.get_run(source)
        except MlflowException as error:
            if not store.is_missing(error):
                raise
            break
        for name in ("train/loss", "val/loss", "val/accuracy", "val/macro_f1"):
            for point in client.get_metric_history(source, name):
                epochs.setdefault(point.step, {"epoch": point.step})[name] = point.value
        source = run.data.tags.get("source_run_id")
    return [epochs[step] for step in sorted(epochs)]


def stored_arrays(run_id: str, path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz artifact; nothing is unpickled."""
    with _artifact(run_id, path) as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


@contextmanager
def _artifact(run_id: str, path: str) -> Iterator[Path]:
    """A copy of an artifact.

    Raises:
        TrackingError: it cannot be had.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=path, dst_path=folder
            )
        except (MlflowException, OSError) as error:  # requests' errors are among the latter
            if store.is_away(error):
                raise TrackingError(store.message(error)) from None
            raise TrackingError(
                f"Expected {path} among the artifacts of run {run_id}. Found: {summarize(error)}"
            ) from None
        yield Path(file)


@store.translated()
def find_arrays(run_id: str, path: str) -> dict[str, np.ndarray] | None:
    """As `stored_arrays`; None where there is no such run (any more), or it has no such artifact.

    Raises:
        TrackingError: the store, or where it keeps artifacts, cannot be reached.
    """
    try:
        held = store.client().list_artifacts(run_id, path.rpartition("/")[0])
    except MlflowException as error:
        if store.is_missing(error):
            return None
        raise
    return stored_arrays(run_id, path) if path in {file.path for file in held} else None


def compare_link(run_ids: list[str], experiment_ids: list[str]) -> str:
    """A link that opens MLflow's own comparison of these runs."""
    runs, experiments = (
        quote_for_url(json.dumps(sorted(set(x)))) for x in (run_ids, experiment_ids)
    )
    return f"{pages.address()}/#/compare-runs?runs={runs}&experiments={experiments}"
