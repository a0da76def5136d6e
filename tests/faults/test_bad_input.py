"""Wrong input at every door: one clear line, the right exit code, nothing left behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import bad_bytes, bad_cases, bad_input
from tests.faults.bad_cases import DRAWN, MODEL, Case
from tests.faults.bad_input import Ended, Store, attempt, problems

from ..conftest import Fer

Try = Callable[[Case], None]

# Of hundreds of options every ninth; of the files some of each kind, and those that got through.
FILES = (
    "predict nothing", "predict 20,000×20,000", "predict a bomb in its comment",
    "predict CMYK", "predict 16 bits", "predict moving GIF", "predict an endless device",
    "predict a folder with a pipe", "predict a folder with itself", "predict a good and a bad file",
    "predict a folder with every odd name ('--csv',)", "predict a file that may not be read",
    "prepare a folder: a class with a very long name", "prepare a folder: a class with two lines",
    "prepare a folder: an image in broken unicode",
    "prepare a folder: a bad image in broken unicode", "prepare a folder with a link to itself",
    "prepare a folder with a pipe", "prepare a folder with an endless device",
    "prepare a folder with links to its own folder",
    "prepare a zip: half a zip", "prepare a zip: encrypted", "prepare a zip: a bomb that lies",
    "prepare a zip: members outside", "prepare a zip: absolute names",
    "prepare a CSV: no Usage", "prepare a CSV: another order", "prepare a CSV: a short pixel row",
    "prepare a CSV: pixel nan", "prepare a CSV: pixel 256", "prepare a CSV: UTF-16",
    "prepare a CSV: a line of 64 MB of zeros", "prepare a CSV: a line of 64 MB in quotes",
    "train with weights: a pickle", "train with weights: another shape",
    "train with weights: an array of 4 TB", "train with weights: a link to another file",
    "train with weights: a layer missing", "train with weights: a pipe",
    "predict with --model models:/x@", "predict with --model /etc", "predict with --model mlmodel",
    "predict with --model x'; DROP TABLE runs; --",
    "prepared data with a manifest of brackets", "prepared data with other class names",
    "prepared data with a changed pixel", "prepared data with labels out of range",
    "prepared data with images that are a pickle", "prepared data with a pointer in no UTF-8",
    "FER_DATA_HOME /dev/null/x", "FER_DATA_HOME ~no-such-user/x",
    "MLFLOW_TRACKING_URI http://me:hunter2x@127.0.0.1:9",
)  # fmt: skip
ALL = {case.name: case for case in bad_cases.every(large=False)}
OPTIONS = list(itertools.chain(bad_cases.options(), bad_cases.other_options()))[::9]


@pytest.fixture(scope="module")
def place(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a store and a data home of these tests' own, which may be damaged.

    Its artifacts lie in it: by itself MLflow would put them into the folder of the case that is
    the first to open the store, and such folders are removed.
    """
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("bad-input")
    store = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    store.create_experiment("fer2013", artifact_location=str(folder / "mlruns"))
    return folder


@pytest.fixture
def trial(place: Path, fer: Fer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """Tries a case and fails on what is wrong with it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    monkeypatch.setenv("FER_DATA_HOME", str(place / "data"))
    numbers = itertools.count()

    def call(arguments: list[str]) -> Ended:
        outcome = fer(*arguments)
        return Ended(exit_code=outcome.exit_code, out=outcome.out, err=outcome.err)

    def run(case: Case) -> None:
        model = ""
        if MODEL in case.arguments or case.name.startswith("prepared data"):
            job = ["train", "--backbone", "tiny", *DRAWN, "--epochs", "1"]
            model = bad_input.a_model(place, job, call)
        ended, found = attempt(
            case,
            tmp_path / f"work-{next(numbers)}",
            model=model,
            database=place / "mlflow.db",
            call=call,
        )
        assert not found, f"{case.name}: {found}\n{ended.err}"

    return run


@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: ascii(case.name[:50]))
def test_a_wrong_option(case: Case, trial: Try) -> None:
    trial(case)


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file(name: str, trial: Try) -> None:
    case = ALL[name]
    if case.as_user and os.geteuid() == 0:
        pytest.skip("root may read everything")
    trial(case)


@pytest.mark.parametrize(
    ("door", "examples"), [("options", 60), ("images", 12), ("zips", 8), ("tables", 8)]
)
def test_made_up_values_and_damaged_files(door: str, examples: int, trial: Try) -> None:
    for examine in bad_bytes.properties(trial, {door: examples}):
        examine()


def test_there_are_hundreds_of_cases_and_no_two_are_called_the_same() -> None:
    names = [case.name for case in bad_cases.every(large=False)]
    assert len(names) == len(set(names)) > 1000


@pytest.mark.parametrize(
    ("ended", "after", "wrong"),
    [
        (Ended(exit_code=0, out="", err=""), {}, "exit code 0 instead"),
        (Ended(exit_code=2, out="", err=""), {}, "0 error lines"),
        (Ended(exit_code=2, out="", err="Error: a\nError: b\n"), {}, "2 error lines"),
        (Ended(exit_code=2, out="", err="Error: a\nTraceback (most\n"), {}, "a traceback"),
        (Ended(exit_code=2, out="", err="Error: a\nnoise\n"), {}, "another line"),
        (Ended(exit_code=2, out="", err="Error: \x1b[31ma\n"), {}, "not fit to be shown"),
        (Ended(exit_code=2, out="", err="Error: b\n"), {}, "no word of 'a'"),
        (Ended(exit_code=2, out="", err="Error: a\n"), {"1": "RUNNING"}, "a run is RUNNING"),
        (Ended(exit_code=2, out="", err="Error: a\n"), {"1": "FAILED"}, "without a reason"),
        (Ended(exit_code=2, out="", err="Error: a\n", megabytes=9e9), {}, "MB of memory"),
    ],
)
def test_what_is_wrong_is_found(
    ended: Ended, after: dict[str, str], wrong: str, place: Path, tmp_path: Path
) -> None:
    case = Case(name="a", arguments=(), exit_codes=(2,), says="a")
    stores = Store(statuses={}, reasons={}), Store(statuses=after, reasons={})
    found = problems(case, ended, *stores, tmp_path)
    assert any(wrong in problem for problem in found), found
