"""MLflow's pages: where they are, and a server for the pages of a store that has none.

While one that `serve` has started is running, a small file in the folder for temporary files holds
its address, so that the links of other commands lead there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import subprocess  # nosec B404
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow

from fer_experiments.errors import Terminated, TrackingError, UsageError
from fer_experiments.secrets import redact
from fer_experiments.tracking import store

_USUAL = "http://127.0.0.1:5000"
_READY_WITHIN = 300.0  # seconds
# MLflow opens an experiment on its pages for language models unless told otherwise.
_KIND = "workflowType=machine_learning"


def has_server() -> bool:
    """Whether the store is a server, which shows its pages by itself."""
    return str(mlflow.get_tracking_uri()).startswith("http")


def address() -> str:
    """Where the pages are; of a local store where `serve` shows them, or would."""
    if has_server():
        return redact(mlflow.get_tracking_uri()).rstrip("/")
    return _served() or _USUAL


def run(experiment_id: str, run_id: str) -> str:
    """A run's page."""
    return f"{address()}/#/experiments/{experiment_id}/runs/{run_id}?{_KIND}"


def experiment(experiment_id: str) -> str:
    """The table of an experiment's runs."""
    return f"{address()}/#/experiments/{experiment_id}/runs?{_KIND}"


def view(experiment_id: str, view_id: str, *, charts: bool) -> str:
    """The runs of an experiment as a saved view shows them: their charts, or their table."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{experiment(experiment_id)}&viewStateShareKey={view_id}{mode}"


def models() -> str:
    """The registered models."""
    return f"{address()}/#/models"


def serve(host: str, port: int, *, ready: Callable[[], None]) -> None:
    """Shows the pages of this machine's store until somebody ends it.

    Args:
        host: the address to listen at.
        port: likewise.
        ready: called once the server answers.

    Raises:
        UsageError: the port is taken, or the address is none of this machine's.
        RunError: there is no store yet.
        TrackingError: the server does not start.
    """
    store.client()  # says so if there is none
    _check_free(host, port)
    uri = mlflow.get_tracking_uri()
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{store.database(uri)}"
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    command += ["--workers", "1"]  # one person looks
    process = subprocess.Popen(  # nosec B603 - a list, no shell, our own interpreter
        command,
        # The URI may hold a password, which a command line would show to all.
        env=os.environ | {"MLFLOW_BACKEND_STORE_URI": uri},
        stdout=2,  # what MLflow says of itself is no result of ours
    )
    try:
        url = _url(host, port)
        _wait_for(process, url)
        with _remembered(url):
            ready()
            code = process.wait()
        if code:
            raise TrackingError(f"mlflow ui ended with {code}")
    except KeyboardInterrupt:
        pass  # which is how it is meant to be ended
    except Terminated:
        process.terminate()
        raise
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def _check_free(host: str, port: int) -> None:
    reason = _taken(host, port)
    if reason is None:
        return
    if reason != errno.EADDRINUSE:
        raise UsageError(
            f"Expected an address of this machine and a port that may be used. Received: "
            f"HOST={host} PORT={port} ({os.strerror(reason)})"
        )
    free = next((p for p in range(port + 1, port + 100) if _taken(host, p) is None), port + 1)
    raise UsageError(
        f"Expected a free port. Received: PORT={port}, where another program listens; "
        f"make ui PORT={free}, or fer ui --port {free}"
    )


def _taken(host: str, port: int) -> int | None:
    """The error number of listening there; None: it works."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return None
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL


def _url(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::", ""):  # nosec B104 - compared with, not listened at
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + _READY_WITHIN
    while time.monotonic() < until:
        if process.poll() is not None:
            raise TrackingError(f"mlflow ui did not start: it ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # nosec B310 - http alone
                return
        except OSError:  # urllib's own errors are among them
            time.sleep(0.2)
    raise TrackingError(f"mlflow ui did not answer at {url} within {_READY_WITHIN:.0f} s")


def _place() -> Path:
    name = hashlib.sha256(store.address().encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"fer_experiments-ui-{os.getuid()}-{name}.json"


@contextmanager
def _remembered(url: str) -> Iterator[None]:
    place = _place()
    beside = place.with_name(f"{place.name}-{os.getpid()}")
    beside.write_text(json.dumps({"address": url, "process": os.getpid()}), encoding="utf-8")
    beside.replace(place)
    try:
        yield
    finally:
        place.unlink(missing_ok=True)


def _served() -> str | None:
    """The address of a server that this user has started for this store and that still runs."""
    place = _place()
    try:
        if place.lstat().st_uid != os.getuid():  # others may write to that folder, too
            return None
        content = json.loads(place.read_text(encoding="utf-8"))
        os.kill(int(content["process"]), 0)
        found = str(content["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if re.fullmatch(r"http://(\[[0-9a-f:.]+\]|[\w.-]+):\d{1,5}", found) else None
