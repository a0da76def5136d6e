"""A store and a data home of their own for the tests, and the command line called in-process."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
# Some test modules import Keras, which imports JAX where it is, which sets this to 1, and processes
# that tests start would take that for the user's wish.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Before any module imports Keras: what is computed here is held against what commands computed.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# A whole job in seconds: a tiny backbone on few faces.
QUICK = ["--recipe", "demo", "--synthetic-count", "210", "--epochs", "2", "--finetune-epochs", "1"]


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and what it printed."""

    exit_code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of the error."""
        lines = [line for line in self.err.splitlines() if line]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.out + self.err
        return lines[0]

    def done(self) -> str:
        """The id of the run that the command wrote; it has succeeded."""
        assert self.exit_code == 0, self.err
        (run_id,) = re.findall(r"^run +(\w+)$", self.out, re.MULTILINE)
        return str(run_id)


def process_environment(**more: str) -> dict[str, str]:
    """The environment for a process of its own.

    MLflow leaves its choice of experiment in ours, and a process that is started would obey it.
    """
    return {k: v for k, v in os.environ.items() if k != "MLFLOW_EXPERIMENT_ID"} | more


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in them."""
    import mlflow.store.db.utils as mlflows
    import sqlalchemy

    path = tmp_path_factory.mktemp("blank") / "mlflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    mlflows._initialize_tables(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def quick_databases(blank: Path) -> Iterator[None]:
    """MLflow's new databases are copies of one: its migrations take more than a second for each.

    And none of this process waits until the disk has what was written, thousands of times.
    """
    import mlflow.store.db.utils as mlflows
    import mlflow.store.model_registry.sqlalchemy_store as registry
    import sqlalchemy

    whole = mlflows._initialize_tables

    def copy(engine: Any) -> None:
        file = engine.url.database
        if not file or engine.url.get_backend_name() != "sqlite":
            whole(engine)
            return
        with closing(sqlite3.connect(blank)) as source, closing(sqlite3.connect(file)) as target:
            source.backup(target)

    def hurry(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflows, "_initialize_tables", copy)
        patch.setattr(registry, "_initialize_tables", copy)
        yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, quick_databases: None) -> Iterator[Path]:
    """A folder with an MLflow database and a data home that all tests of the session share."""
    import mlflow

    folder = tmp_path_factory.mktemp("base")
    saved = {k: v for k, v in os.environ.items() if k.startswith(("MLFLOW_", "FER_DATA"))}
    for key in saved:
        del os.environ[key]
    os.environ["FER_DATA_HOME"] = str(folder / "data")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    before = Path.cwd()
    os.chdir(folder)  # a local store keeps artifacts in ./mlruns
    mlflow.set_tracking_uri(None)
    yield folder
    os.chdir(before)
    for key in ("FER_DATA_HOME", "MLFLOW_TRACKING_URI"):
        os.environ.pop(key, None)
    os.environ.update(saved)


@pytest.fixture(autouse=True)
def no_choice_of_mlflows_own() -> Iterator[None]:
    """Forgets the experiment that MLflow's `set_experiment` leaves in the environment."""
    yield
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture
def fresh_store(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of this test's own; the data home stays shared."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data home of this test's own, which does not exist yet."""
    monkeypatch.setenv("FER_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def own_home(fresh_store: Path, home: Path) -> Path:
    """The folder of a store and a data home, `home`, of this test's own."""
    return fresh_store


@pytest.fixture
def empty_store(fresh_store: Path, blank: Path) -> Path:
    """A store of this test's own that was made already, so that no process has to."""
    shutil.copyfile(blank, fresh_store / "mlflow.db")
    return fresh_store


@pytest.fixture(scope="module")
def unpainted() -> Iterator[None]:
    """Figures are put together and not painted, which is half of an evaluation.

    For tests that look at no figure. What `job` wrote is painted: it is of the whole session.
    """
    from matplotlib.figure import Figure

    def save(figure: Figure, file: Any, **options: Any) -> None:
        Image.new("L", (1, 1)).save(file, format=options.get("format"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


Fer = Callable[..., Outcome]


@pytest.fixture
def fer(base: Path, capfd: pytest.CaptureFixture[str]) -> Fer:
    """`fer` with these arguments."""

    def run(*arguments: str) -> Outcome:
        from fer_experiments.entry import main

        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@dataclass(frozen=True)
class Job:
    """The runs of a finished `main`, by stage."""

    main: str
    runs: dict[str, str]


@pytest.fixture(scope="session")
def job(base: Path) -> Job:
    """`fer main` once for all tests that only read what it wrote."""
    from mlflow.tracking import MlflowClient

    from fer_experiments.entry import main

    with pytest.raises(SystemExit) as ended:
        main(["main", "--backbones", "tiny", *QUICK])
    assert ended.value.code == 0
    client = MlflowClient()
    experiment = client.get_experiment_by_name("fer2013")
    runs = client.search_runs([experiment.experiment_id])  # newest first
    main_run = next(r.info.run_id for r in runs if r.data.tags["stage"] == "main")
    return Job(
        main=main_run,
        runs={
            r.data.tags["stage"]: r.info.run_id
            for r in runs
            if main_run in (r.info.run_id, r.data.tags.get("mlflow.parentRunId"))
        },
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a disk of its own with these options of tmpfs."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(disk)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk can be mounted by root only")
        return disk

    yield mount
    if shutil.which("umount"):
        subprocess.run(["umount", "-l", str(disk)], capture_output=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and weights, where this machine has them."""
    folder = Path(os.environ.get("FER_SHARED", ROOT.parent / "shared"))
    if not (folder / "fer2013" / "archive.zip").exists():
        pytest.skip(f"real images and weights are not in {folder} (FER_SHARED)")
    return folder.absolute()
