"""The MLflow store itself: where it is, whether it can be reached, what its errors mean."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import requests
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fer_experiments.data.storage import disk_is_full
from fer_experiments.errors import FerError, RunError, TrackingError, shown
from fer_experiments.secrets import redact
from fer_experiments.tracking.locks import alone
from fer_experiments.tracking.opening import FULL_DISK

_EXPERIMENT_NOTE = (
    "A `main` run holds a run for each of its stages. Learning curves are in the `train` and "
    "`finetune` runs; scores, confusion matrices and predictions in the `evaluate` runs, which are "
    "the ones to select and compare. `compare` and `register` runs say what came out."
)
# MLflow tries an answerless server for minutes, and whoever asked waits. Our own deliveries try
# again by themselves, and a command that only reads shall rather say that the server is away.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def address() -> str:
    """The store's URI, the same from every folder, without passwords."""
    uri = mlflow.get_tracking_uri()
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{_database(uri)}"
    return redact(uri)


def client() -> MlflowClient:
    """MLflow's client; whoever asks first makes the database, and does so alone.

    Raises:
        TrackingError: the database cannot be made.
    """
    with first_time_lock():
        uri = mlflow.get_tracking_uri()
        if uri.startswith("sqlite:///"):
            _make_database(_database(uri))
        return MlflowClient()


def ui() -> str:
    """Where MLflow's pages are."""
    uri = mlflow.get_tracking_uri()
    # A local store has no server until `make ui` starts one on MLflow's usual port.
    return redact(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"


def describe() -> str:
    """Where runs go, and how many experiments are there."""
    experiments = client().search_experiments(max_results=1000)
    return f"{redact(mlflow.get_tracking_uri())}, {len(experiments)} experiments"


def experiment_id(name: str) -> str:
    """The experiment of this name, made if there is none.

    Raises:
        TrackingError: it was deleted.
    """
    store = client()
    with first_time_lock():
        found = store.get_experiment_by_name(name)
        if found is None:
            try:
                made = store.create_experiment(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            else:
                store.set_experiment_tag(made, "mlflow.note.content", _EXPERIMENT_NOTE)
            found = store.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"Expected an experiment that can be written to. Received: experiment={name[:80]}, "
            "which was deleted in MLflow; restore it, or pass another name"
        )
    return str(found.experiment_id)


@contextmanager
def first_time_lock() -> Iterator[None]:
    """Lets one process at a time create a database: two that race crash in its set-up."""
    uri = mlflow.get_tracking_uri()
    if uri.startswith("http"):
        yield
        return
    if uri.startswith("sqlite:///"):
        _database(uri).parent.mkdir(parents=True, exist_ok=True)
    with alone(identity(uri)):
        yield


def identity(uri: str) -> str:
    """One text for all ways to write a store's address: for locks, not to be shown."""
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{_database(uri).resolve()}"
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2].lower()  # without user and password
    if host.partition(":")[0] == "localhost":
        host = host.replace("localhost", "127.0.0.1")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


@contextmanager
def translated() -> Iterator[None]:
    """Turns what MLflow raises into one line for the user; also a decorator.

    What asks for something that may be missing catches that before: see `is_missing`.

    Raises:
        TrackingError: the store is away, or refuses.
    """
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        raise TrackingError(message(error)) from None


def is_missing(error: MlflowException) -> bool:
    """Whether the store itself has answered that there is no such thing, or can be none.

    Nothing else may be taken for "there is none": not a server that is away or refuses, not a
    locked database, not a page of a proxy.
    """
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def quoted(text: str) -> str:
    """A text as it can stand in a filter; MLflow knows no escapes.

    Raises:
        RunError: it holds both kinds of quotes.
    """
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise RunError(
        f"Expected a name without both kinds of quotes, which MLflow cannot look for. "
        f"Received: {shown(text)}"
    )


def is_away(error: BaseException) -> bool:
    """Whether the same may well succeed a little later."""
    if disk_is_full(error):
        return False
    if isinstance(error, MlflowException):
        if mlflow.get_tracking_uri().startswith("http"):
            return error.get_http_status_code() >= 500 or error.get_http_status_code() == 429
        return "database is locked" in str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500
    return isinstance(error, requests.RequestException)


def message(error: BaseException) -> str:
    """One line for the user."""
    if isinstance(error, FerError):
        return str(error)
    if disk_is_full(error):
        return FULL_DISK
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return redact(
        f"The MLflow store {mlflow.get_tracking_uri()} cannot be used ({reason[:200]}); "
        "check MLFLOW_TRACKING_URI, or start the server"
    )


def _make_database(path: Path) -> None:
    """Beside, then renamed: MLflow cannot go on with one that it was cut short in making."""
    if path.exists() and path.stat().st_size:
        return
    # Another name each time: MLflow keeps a connection to each database of this process.
    unfinished = path.with_name(f".writing-{uuid.uuid4().hex}-{path.name}")
    try:
        MlflowClient(f"sqlite:///{unfinished}").search_experiments(max_results=1)
        unfinished.replace(path)
    except Exception as error:
        raise TrackingError(message(error)) from None
    finally:
        # SQLite's journals, too, and what a killed process left.
        for left in path.parent.iterdir():
            if left.name.startswith(".writing-") and f"-{path.name}" in left.name:
                left.unlink(missing_ok=True)


def _database(uri: str) -> Path:
    path, _, _ = uri.removeprefix("sqlite:///").partition("?")  # ?timeout=60 is SQLite's
    return Path(path).absolute()
