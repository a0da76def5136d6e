"""Secrets planted wherever users have them; none may be found afterwards in what was written.

Looked through: the database, the artifacts, the data home, and everything that was printed.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from tests.faults import files
from tests.faults.bad_cases import DRAWN
from tests.faults.results import Result

ROOT = Path(__file__).parents[2]
_IN_ENVIRONMENT = {
    "KAGGLE_USERNAME": "{}",
    "KAGGLE_KEY": "{}",
    "KAGGLE_API_TOKEN": "{}",
    "MLFLOW_TRACKING_PASSWORD": "{}",
    "MLFLOW_TRACKING_TOKEN": "{}",
    "AWS_ACCESS_KEY_ID": "{}",
    "AWS_SECRET_ACCESS_KEY": "{}",
    "AWS_SESSION_TOKEN": "{}",
    "AZURE_STORAGE_ACCESS_KEY": "{}",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=me;AccountKey={};EndpointSuffix=x",
    "GOOGLE_API_KEY": "{}",
    "HF_TOKEN": "{}",
    "DATABRICKS_TOKEN": "{}",
    "PGPASSWORD": "{}",
    "HTTPS_PROXY": "http://me:{}@127.0.0.1:9",
}
_IN_FILES = {
    "kaggle.json": (".kaggle/kaggle.json", '{{"username": "me", "key": "{}"}}'),
    "MLflow's credentials": (".mlflow/credentials", "[mlflow]\nmlflow_tracking_password = {}\n"),
    "AWS's credentials": (".aws/credentials", "[default]\naws_secret_access_key = {}\n"),
}
# What people paste; each is asked for as a value of the options that take text.
_IN_OPTIONS = {
    "a password in a URI": "https://me:{}@host.example/data.zip",
    "a token as user": "https://{}@host.example/data.zip",
    "a token in a query": "https://host.example/data.zip?token={}",
    "a signed S3 URL": "https://b.s3.example/d.zip?X-Amz-Credential=AK&X-Amz-Signature={}",
    "a signed Azure URL": "https://a.blob.example/d.zip?sv=2024&sig={}",
}


class Plants:
    """What was planted: a value of its own for each place."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def value(self, place: str) -> str:
        """A secret for this place, unlike any other text."""
        number = len(self.values) + 1
        return self.values.setdefault(place, f"Pl4nted{number:02d}Qx7Zk{number * 7919:06d}Vw")

    def leaks(self, content: bytes) -> list[str]:
        """Places whose secret stands in this, plain, quoted for URIs or in base64."""
        return [
            place
            for place, value in self.values.items()
            if any(spelled in content for spelled in _spellings(value))
        ]


def _spellings(value: str) -> Iterator[bytes]:
    yield value.encode()
    yield quote(value).encode()
    yield base64.b64encode(value.encode()).rstrip(b"=")[:-1]
    yield base64.b64encode(f"me:{value}".encode()).rstrip(b"=")[:-1]


def run(folder: Path, *, quick: bool) -> Result:
    """Plants, works, searches."""
    plants = Plants()
    home, work = folder / "home", folder / "work"
    work.mkdir(parents=True)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        **{name: form.format(plants.value(name)) for name, form in _IN_ENVIRONMENT.items()},
        "HOME": str(home),
        "FER_DATA_HOME": str(folder / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    for place, (path, form) in _IN_FILES.items():
        files.write(home, {path: form.format(plants.value(place)).encode()})
    _repository(work, plants.value("a git remote"))
    printed = _work(work, plants, environment, quick=quick)
    found: dict[str, str] = {}
    for place in plants.leaks(printed):
        found.setdefault(place, "what was printed")
    for file in _written(folder):
        for place in plants.leaks(file.read_bytes() + str(file).encode()):
            found.setdefault(place, str(file.relative_to(folder)))
    note = "; ".join(f"{place} found in {where}" for place, where in found.items())
    return Result(
        name="secrets",
        tried=len(plants.values),
        survived=len(plants.values) - len(found),
        note=note or "none of them was printed or written",
    )


def _repository(folder: Path, token: str) -> None:
    """MLflow tags runs with the remote of the repository that a command's file lies in."""
    remote = f"https://me:{token}@github.example/me/faces.git"
    for command in (("init", "--quiet"), ("remote", "add", "origin", remote)):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
    (folder / "fer.py").write_text("from fer_experiments.entry import main\n\nmain()\n")
    identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run(["git", "add", "fer.py"], cwd=folder, check=True, capture_output=True)
    subprocess.run(
        ["git", *identity, "commit", "--quiet", "-m", "fer"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


def _work(work: Path, plants: Plants, environment: dict[str, str], *, quick: bool) -> bytes:
    """Commands that succeed, and those that meet a secret; all that they print."""
    token = plants.value("a file's name")
    files.write(work / "faces", {**files.faces(), f"a/token={token}.png": b"no image"})
    files.write(work, {f"token={plants.value('a picture of a name')}.png": files.picture()})
    commands = [["prepare", "--dataset", "faces", "--split", "holdout"]]
    for place, form in _IN_OPTIONS.items():
        value = form.format(plants.value(place))
        commands += [
            ["prepare", "--dataset", value],
            ["train", "--backbone", "tiny", *DRAWN, "--weights", value],
            ["predict", value],
            ["predict", "faces/a/0.png", "--model", value],
            ["evaluate", "--model", value],
            ["prepare", *DRAWN, "--experiment", value],
            ["compare", "--dataset", value],
            ["finetune", "--run-id", value],
            ["registry", "--model-name", value],
            ["--verbose", "train", "--truncate-at", value, *DRAWN],
            [value],
        ]
    for place in [*_IN_ENVIRONMENT, *_IN_FILES]:
        value = plants.values[place]
        if place != "KAGGLE_USERNAME":  # a name is no secret by itself, and looks like any word
            commands += [
                ["prepare", "--dataset", f"no/{value}"],
                ["predict", f"no/{value}.png"],
                ["compare", "--experiment", value],
                ["ensemble", "--run-ids", f"{value},{value}"],
            ]
    stores = (
        f"http://me:{plants.value('a tracking URI')}@127.0.0.1:9",
        f"postgresql://me:{plants.value('a database URI')}@127.0.0.1:9/mlflow",
    )
    job = ["main", "--backbones", "tiny", *DRAWN, "--epochs", "1", "--finetune-epochs", "1"]
    good = [["prepare", *DRAWN]] if quick else [job, ["predict", "."], ["audit", *DRAWN]]
    printed = _together([*good, ["doctor"], *commands], work, environment)
    for store in stores:
        reached = environment | {"MLFLOW_TRACKING_URI": store}
        failing = [["prepare", *DRAWN], ["--verbose", "prepare", *DRAWN], ["compare"], ["doctor"]]
        printed += _together(failing, work, reached)
    return printed


def _together(commands: Sequence[Sequence[str]], work: Path, environment: dict[str, str]) -> bytes:
    """Runs the commands one after another in one process."""
    code = (
        "import json, sys\n"
        "sys.argv[0] = 'fer.py'\n"
        "from fer_experiments.entry import main\n"
        "for arguments in json.load(sys.stdin):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: print('has ended', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(commands).encode(),
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    if done.stdout.count(b"has ended") != len(commands):
        raise RuntimeError(f"not every command ran: {done.stdout[-2000:]!r}")
    return done.stdout


def _written(folder: Path) -> Iterator[Path]:
    """Every file that the commands wrote, not those that held the secrets before."""
    inputs = {folder / "home", folder / "work" / ".git", folder / "work" / "faces"}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent != folder / "work" and not inputs & set(path.parents):
            yield path
