"""Kaggle's own client downloads the data, here from a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fer_experiments.data.images import FER_CLASSES

from .helpers import pictures, write_zip

PORT = 7777  # where Kaggle's client looks with KAGGLE_API_ENVIRONMENT=TEST
FILES = pictures()


class Kaggle(ThreadingHTTPServer):
    """As much of Kaggle's API as a download needs."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive.read_bytes()
        self.status = 200
        self.asked: list[tuple[str, dict[str, object]]] = []
        super().__init__(("localhost", PORT), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = self.path.rsplit("/", 1)[-1]
        self.server.asked.append((call, body))
        content, kind = b'{"message": "no such dataset"}', "text/plain"
        if self.server.status == 200:
            content, kind = self.server.archive, "application/zip"
        self.send_response(self.server.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def kaggle(tmp_path: Path) -> Iterator[Kaggle]:
    archive = write_zip(tmp_path / "served.zip", FILES)
    try:
        server = Kaggle(archive)
    except OSError as error:
        pytest.skip(f"port {PORT} cannot be had: {error.strerror}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fer(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`fer prepare --dataset kaggle` in a process of its own: the client reads these at import."""
    foreign = ("KAGGLE", "MLFLOW", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith(foreign)}
    return subprocess.run(
        [sys.executable, "-m", "fer_experiments", "prepare", "--dataset", "kaggle", *options],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment
        | {
            "HOME": str(folder),  # no credentials of the user's
            "FER_DATA_HOME": str(folder / "home"),
            "KAGGLEHUB_CACHE": str(folder / "kagglehub"),
            "KAGGLE_API_ENVIRONMENT": "TEST",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        },
    )


def failed(outcome: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed, below the client's progress bar, if any."""
    assert outcome.returncode == 1, outcome
    assert "Traceback" not in outcome.stdout + outcome.stderr
    (line,) = [line for line in outcome.stderr.splitlines() if line and "%|" not in line]
    return line


def manifests(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in (folder / "home").glob("*/manifest.json")]


@pytest.mark.slow
def test_the_data_are_downloaded_once(kaggle: Kaggle, tmp_path: Path) -> None:
    first = fer(tmp_path, "--split", "official")
    assert first.returncode == 0, first.stderr
    assert "fer2013: 35 train, 14 val, 14 test" in first.stdout
    (manifest,) = manifests(tmp_path)
    assert (manifest["name"], manifest["class_names"]) == ("fer2013", list(FER_CLASSES))
    ((call, body),) = kaggle.asked
    assert call == "DownloadDataset"
    assert (body["ownerSlug"], body["datasetSlug"]) == ("msambare", "fer2013")

    # Another split is another dataset; its images lie in kagglehub's cache by now.
    second = fer(tmp_path, "--split", "holdout")
    assert second.returncode == 0, second.stderr
    assert len(manifests(tmp_path)) == 2
    assert len(kaggle.asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["nobody listens", "refused", "no zip"])
def test_no_download(problem: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if problem != "nobody listens":
        kaggle = request.getfixturevalue("kaggle")
        kaggle.status = 403 if problem == "refused" else 200
        kaggle.archive = b"half a zip"
    line = failed(fer(tmp_path, "--split", "holdout"))
    assert line.startswith("Error: Kaggle's msambare/fer2013 could not be downloaded (")
    assert "Try again with a network" in line
    assert "or download archive.zip from https://www.kaggle.com/datasets/msambare/fer2013" in line
    assert "pass dataset=archive.zip" in line
    assert not manifests(tmp_path)
