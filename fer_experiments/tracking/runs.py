"""Open a run so that it ends true to what happened, and find runs again."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
import numpy as np
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fer_experiments import __version__
from fer_experiments.config import Config
from fer_experiments.errors import FerError, RunError, TrackingError
from fer_experiments.tracking.locks import alone
from fer_experiments.tracking.writer import Writer

DEFAULT_EXPERIMENT = "fer2013"
# Marks the runs of this suite in a store that others write to as well.
SUITE_TAG = "fer_experiments"
REASON_TAG = "failure_reason"
_FULL_DISK = (
    "The disk that holds the MLflow store or the data home is full; free some and run again"
)
_EXPERIMENT_NOTE = (
    "A `main` run holds a run for each of its stages. Learning curves are in the `train` and "
    "`finetune` runs; scores, confusion matrices and predictions in the `evaluate` runs, which are "
    "the ones to select and compare. `compare` and `register` runs say what came out."
)
# Those whose load on the machine is worth a chart. MLflow's comparison of evaluations opens on the
# metric that was logged first, and that should be a score.
_LONG_STAGES = ("main", "train", "finetune")


@contextmanager
def open_run(
    stage: str, name: str, *, experiment: str | None = None, tags: Mapping[str, str] | None = None
) -> Iterator[Writer]:
    """A run for one stage; nested if another is open, adopted if `mlflow run` made one.

    Ends FINISHED, FAILED with the reason as tag and note, or KILLED after Ctrl-C (which
    `mlflow run` overwrites with FAILED: it takes every stored status for an unfinished one).

    Raises:
        TrackingError: the tracking store cannot be reached.
    """
    try:
        nested = mlflow.active_run() is not None
        _choose_experiment(experiment)
        run = mlflow.start_run(run_name=name, nested=True, log_system_metrics=stage in _LONG_STAGES)
    except Exception as error:
        raise TrackingError(_store_message(error)) from None
    writer = Writer(run.info.run_id, run.info.experiment_id, nested=nested)
    status = "FINISHED"
    try:
        writer.tags(
            {"mlflow.runName": name, SUITE_TAG: __version__, "stage": stage, **(tags or {})}
        )
        yield writer
    except KeyboardInterrupt:
        status = "KILLED"
        _explain(writer, "interrupted by Ctrl-C")
        raise
    except BaseException as error:
        status = "FAILED"
        full = _disk_is_full(error)
        reason = _FULL_DISK if full else str(error)
        known = full or isinstance(error, FerError)
        _explain(writer, reason if known else f"{type(error).__name__}: {without_secrets(reason)}")
        if full and not isinstance(error, FerError):
            raise TrackingError(reason) from None
        raise
    finally:
        # Where the run can't even be ended, the reason for that is on its way already.
        with suppress(*([] if status == "FINISHED" else [Exception])):
            mlflow.end_run(status)


def explain_foreign_run(reason: str) -> None:
    """Writes why a command ended early to the run that `mlflow run` made for it, if any."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        _explain(Writer(run_id, ""), reason)


def _explain(writer: Writer, reason: str) -> None:
    # The run may be unreachable for the very reason that is to be told.
    with suppress(Exception):
        writer.tags({REASON_TAG: reason[:5000]})
        writer.note(f"**Did not finish:** {reason}")


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error; MLflow and SQLite wrap it in others."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _choose_experiment(experiment: str | None) -> None:
    if mlflow.active_run() is not None or os.environ.get("MLFLOW_RUN_ID"):
        return  # the run that is open, or that `mlflow run` made, has its experiment already
    name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    with _first_time_lock():
        chosen = mlflow.set_experiment(name)
        if "mlflow.note.content" not in chosen.tags:
            mlflow.set_experiment_tag("mlflow.note.content", _EXPERIMENT_NOTE)


@contextmanager
def _first_time_lock() -> Iterator[None]:
    """Lets one process at a time create a local database: two that race crash in its set-up."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:///"):
        yield
        return
    database = Path(uri.removeprefix("sqlite:///")).absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    with alone(str(database)):
        yield


def _store_message(error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return without_secrets(
        f"The MLflow store {mlflow.get_tracking_uri()} cannot be used ({reason[:200]}); "
        "check MLFLOW_TRACKING_URI, or start the server"
    )


def describe_store() -> str:
    """Where runs go, and how many experiments are there."""
    with _first_time_lock():
        experiments = MlflowClient().search_experiments(max_results=1000)
    return f"{without_secrets(mlflow.get_tracking_uri())}, {len(experiments)} experiments"


def without_secrets(text: str) -> str:
    """A URI, or text that quotes one, without the user name and password that it may carry."""
    return re.sub(r"://[^/\s]*@", "://", text)


def get_run(run_id: str, *, stages: tuple[str, ...]) -> Run:
    """A finished run of one of these stages.

    Raises:
        RunError: it does not exist, is not finished, or is of another stage.
    """
    wanted = " or ".join(stages)
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException:
        raise RunError(
            f"Expected run_id of a finished {wanted} run. Received: {run_id[:80]}, which does not "
            f"exist in {without_secrets(mlflow.get_tracking_uri())}"
        ) from None
    stage = run.data.tags.get("stage", "unknown")
    if stage not in stages or SUITE_TAG not in run.data.tags:
        raise RunError(
            f"Expected run_id of a {wanted} run. Received: {run_id}, a run of stage {stage}"
        )
    if run.info.status != "FINISHED":
        raise RunError(
            f"Expected a finished {wanted} run. Received: {run_id}, which is {run.info.status}"
        )
    return run


def search(
    stage: str,
    *,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[Run]:
    """Finished runs of a stage with these tags, newest first, in the whole store."""
    conditions = [f"tags.stage = '{stage}'", "attributes.status = 'FINISHED'"]
    conditions += [f"tags.{k} = '{_escaped(v)}'" for k, v in (tags or {}).items()]
    client = MlflowClient()
    try:
        with _first_time_lock():
            existing = client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=1000)
        experiments = [
            e.experiment_id for e in existing if experiment is None or e.name == experiment
        ]
        if experiment is not None and not experiments:
            raise RunError(f"Expected experiment to exist. Received: experiment={experiment[:80]}")
        found = mlflow.search_runs(
            experiments,
            filter_string=" AND ".join(conditions),
            order_by=["attributes.start_time DESC"],
            output_format="list",
        )
    except MlflowException as error:
        raise TrackingError(_store_message(error)) from None
    return [run for run in found if SUITE_TAG in run.data.tags]


def config_of(run: Run) -> Config:
    """The configuration that a run was made with."""
    return Config.from_flat(
        json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/config.json"))
    )


def histories(run_id: str) -> list[dict[str, float]]:
    """Each epoch's scores of a train or fine-tune run, and of the runs that it started from."""
    client = MlflowClient()
    epochs: dict[int, dict[str, float]] = {}
    source: str | None = run_id
    while source is not None:
        run = client.get_run(source)
        for name in ("train/loss", "val/loss", "val/accuracy", "val/macro_f1"):
            for point in client.get_metric_history(source, name):
                epochs.setdefault(point.step, {"epoch": point.step})[name] = point.value
        source = run.data.tags.get("source_run_id")
    return [epochs[step] for step in sorted(epochs)]


def stored_arrays(run_id: str, path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz artifact; nothing is unpickled."""
    with tempfile.TemporaryDirectory() as folder:
        file = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=folder
        )
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def run_link(writer: Writer) -> str:
    """A link that opens the run's page."""
    return f"{_ui()}/#/experiments/{writer.experiment_id}/runs/{writer.run_id}"


def compare_link(run_ids: list[str], experiment_ids: list[str]) -> str:
    """A link that opens MLflow's own comparison of these runs."""
    runs, experiments = (quote(json.dumps(sorted(set(x)))) for x in (run_ids, experiment_ids))
    return f"{_ui()}/#/compare-runs?runs={runs}&experiments={experiments}"


def _ui() -> str:
    uri = mlflow.get_tracking_uri()
    # A local store has no server until `make ui` starts one on MLflow's usual port.
    if uri.startswith("http"):
        return without_secrets(uri).rstrip("/")
    return "http://127.0.0.1:5000"


def _escaped(value: Any) -> str:
    return str(value).replace("'", "\\'")
