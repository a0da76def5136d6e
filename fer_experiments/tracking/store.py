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
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fer_experiments.data.storage import disk_is_full
from fer_experiments.errors import FULL_DISK, FerError, RunError, TrackingError, UsageError, quote
from fer_experiments.secrets import redact
from fer_experiments.tracking.locks import lock

_EXPERIMENT_NOTE = (
    "Start with the views, at the top right: *Compare models* shows the `evaluate` runs, with "
    "scores, confusion matrices and predictions; *Learning curves* shows the `train` and "
    "`finetune` runs. A `main` run holds a run for each of its stages. `compare` and `register` "
    "runs say what came out."
)
# Modules, and the packages that bring them where those have another name.
_PACKAGES = {
    "azure": "azure-storage-blob azure-identity",
    "google": "google-cloud-storage",
    "MySQLdb": "mysqlclient",
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
}
_USUAL_PORTS = {"http": ":80", "https": ":443"}
# MLflow tries an answerless server for minutes, and whoever asked waits. Our own deliveries try
# again by themselves, and a command that only reads shall rather say that the server is away.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def address() -> str:
    """The store's URI, the same from every folder, without passwords."""
    uri = mlflow.get_tracking_uri()
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{database(uri)}"
    return redact(uri)


def client(*, make: bool = False) -> MlflowClient:
    """MLflow's client; with `make` the database is made if there is none, by one process alone.

    Raises:
        RunError: there is no database, and what only reads makes none.
        TrackingError: the store cannot be opened, or the database not be made.
    """
    uri = mlflow.get_tracking_uri()
    if not (make or exists()):
        raise RunError(
            f"Expected an MLflow store to look in. Received: {looked_in()}; set "
            "MLFLOW_TRACKING_URI, or go to the folder with mlflow.db"
        )
    if uri.startswith("sqlite:") and not uri.removeprefix("sqlite:").strip("/").split("?")[0]:
        raise TrackingError(
            "Expected MLFLOW_TRACKING_URI to name a file, or all would be lost at the end. "
            f"Received: {uri}; did you mean sqlite:///mlflow.db?"
        )
    try:
        with first_time_lock():
            if uri.startswith("sqlite:///") and make:
                _make_database(database(uri))
            return MlflowClient()
    # The libraries of a database or of an address's scheme may be missing.
    except (ImportError, MlflowException) as error:
        raise TrackingError(message(error)) from None


def exists() -> bool:
    """Whether there is a store; of a server that is told by asking it."""
    uri = mlflow.get_tracking_uri()
    return not uri.startswith("sqlite:///") or _has_content(database(uri))


def looked_in() -> str:
    """The store, as an error names the place where something was looked for."""
    return address() if exists() else f"{address()}, which does not exist yet"


def describe() -> str:
    """Where runs go, and how many experiments are there."""
    if not exists():
        return looked_in()
    experiments = client().search_experiments(max_results=1000)
    return f"{redact(mlflow.get_tracking_uri())}, {len(experiments)} experiments"


def experiment_id(name: str | None, *, number: str | None = None) -> str:
    """The experiment of this name, made if there is none, or of this id.

    Raises:
        UsageError: no experiment has the id, or it has another name.
        TrackingError: it was deleted.
    """
    store = client(make=True)
    found = None if name is None else _named_experiment(store, name)
    if number is not None and (found is None or found.experiment_id != number):
        if found is not None:
            raise UsageError(
                "Expected MLFLOW_EXPERIMENT_NAME and MLFLOW_EXPERIMENT_ID to name one experiment. "
                f"Received: {quote(found.name)}, whose id is {found.experiment_id}, and "
                f"{quote(number)}; unset one of them"
            )
        try:
            found = store.get_experiment(number)
        except MlflowException as error:
            if not is_missing(error):
                raise
            raise UsageError(
                f"Expected MLFLOW_EXPERIMENT_ID to be an experiment of {address()}. "
                f"Received: {quote(number)}, which does not exist there; unset it, or pass "
                "--experiment NAME"
            ) from None
    if found is None or found.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            "Expected an experiment that can be written to. Received: "
            f"experiment={quote(name or number)}, which was deleted in MLflow; restore it, or pass "
            "another name"
        )
    return str(found.experiment_id)


def _named_experiment(store: MlflowClient, name: str) -> Experiment | None:
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
    return found


@contextmanager
def first_time_lock() -> Iterator[None]:
    """Lets one process at a time create a database: two that race crash in its set-up."""
    uri = mlflow.get_tracking_uri()
    if uri.startswith("http"):
        yield
        return
    with lock(identity(uri)):
        yield


def identity(uri: str) -> str:
    """One text for all ways to write a store's address: for locks, not to be shown."""
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{database(uri).resolve()}"
    try:
        parts = urlsplit(uri)
    except ValueError:  # brackets, perhaps
        return uri
    host = parts.netloc.rpartition("@")[2].lower()  # without user and password
    if host.partition(":")[0] == "localhost":
        host = host.replace("localhost", "127.0.0.1")
    host = host.removesuffix(_USUAL_PORTS.get(parts.scheme, ":"))
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def is_here(uri: str) -> bool:
    """Whether an address, however it is typed, is that of this store."""
    return identity(uri) == identity(address())


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
        f"Received: {quote(text)}"
    )


def is_away(error: BaseException) -> bool:
    """Whether the same may well succeed a little later."""
    if disk_is_full(error):
        return False
    if isinstance(error, MlflowException):
        if mlflow.get_tracking_uri().startswith("http"):
            code = int(error.get_http_status_code())
            return code >= 500 or code == 429
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
    uri = mlflow.get_tracking_uri()
    if package := missing_package(error):
        return redact(
            f"The MLflow store {uri}, or the place where it keeps artifacts, needs a package that "
            f"is not installed here: pip install {package}"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return redact(f"The MLflow store {uri} cannot be used ({reason[:200]}); {_advice(uri, error)}")


def missing_package(error: BaseException | None) -> str | None:
    """The package to install, if that one is missing is behind an error."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            module = error.name.partition(".")[0]
            return _PACKAGES.get(module, module)
        error = error.__cause__ or error.__context__
    return None


def _advice(uri: str, error: BaseException) -> str:
    """What to do about an error of the store; the cause is often the address."""
    if meant := _meant(uri):
        return f"did you mean MLFLOW_TRACKING_URI={meant}?"
    if "mlflow db upgrade" in str(error):
        return f"an older MLflow made it: copy it, then run mlflow db upgrade {uri}"
    if not uri.startswith("http"):
        return "check MLFLOW_TRACKING_URI, and that the database can be opened"
    status = error.get_http_status_code() if isinstance(error, MlflowException) else None
    if "UNAUTHENTICATED" in str(error) or "error code 401" in str(error) or status in (401, 403):
        return "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the token"
    return "check MLFLOW_TRACKING_URI, or start the server"


def _meant(uri: str) -> str | None:
    """The address that was meant by one that MLflow takes for a folder, or for nothing."""
    scheme, _, rest = uri.partition(":")
    if scheme in ("http", "https") and not rest.startswith("//"):
        return f"{scheme}://{rest.lstrip('/')}"
    if "://" in uri or scheme in ("file", "databricks", "databricks-uc", "uc"):
        return None
    if uri.endswith(".db"):
        return f"sqlite:///{Path(uri).absolute()}"
    if Path(uri).exists() or uri.startswith(("/", ".", "~")):
        return "sqlite:///mlflow.db (MLflow writes to no folder any more)"
    return f"http://{uri.lstrip('/')}"


def _make_database(path: Path) -> None:
    """Beside, then renamed: MLflow cannot use one that it was cut short in making."""
    if _has_content(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
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


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def database(uri: str) -> Path:
    """The file of a SQLite store."""
    path, _, _ = uri.removeprefix("sqlite:///").partition("?")  # ?timeout=60 is SQLite's
    return Path(path).absolute()
