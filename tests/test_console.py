"""What is printed reaches terminals that are not UTF-8, and readers that leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from .conftest import Job, process_environment

FULL = Path("/dev/full")
TINY = ["prepare", "--recipe", "demo", "--synthetic-count", "70"]
SAY = (
    "from fer_experiments import console\n"
    "console.fit_encoding()\n"
    "console.say('62 – 70 ± 3 … −1 glücklich 幸 \\udcff')\n"
    "console.warn('a × b')\n"
)


def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fer_experiments", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=process_environment(**environment),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("ascii", rb"62 - 70 +/- 3 ... -1 gl\xfccklich \u5e78 \udcff"),
        ("latin-1", b"62 - 70 \xb1 3 ... -1 gl\xfccklich \\u5e78 \\udcff"),
        ("cp1252", b"62 \x96 70 \xb1 3 \x85 -1 gl\xfccklich \\u5e78 \\udcff"),
        ("utf-8", "62 – 70 ± 3 … −1 glücklich 幸 \\udcff".encode()),
    ],
)
def test_what_an_encoding_lacks_is_spelled_out(encoding: str, line: bytes) -> None:
    environment = process_environment(PYTHONIOENCODING=encoding)
    done = subprocess.run(
        [sys.executable, "-c", SAY], capture_output=True, env=environment, check=True
    )
    assert done.stdout == line + b"\n"
    assert (
        done.stderr
        == b"Warning: " + "a × b".encode(encoding, "replace").replace(b"?", b"x") + b"\n"
    )


# The C locale without Python's own remedies, and encodings that Windows and old systems have.
NO_UTF8 = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
]


@pytest.mark.parametrize(
    "environment",
    [NO_UTF8[0], *(pytest.param(e, marks=pytest.mark.slow) for e in NO_UTF8[1:])],
    ids=lambda e: " ".join(e.values()),
)
def test_a_comparison_on_a_terminal_without_utf8(job: Job, environment: dict[str, str]) -> None:
    process = start("compare", **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert b"macro-F1" in out
    assert b"Intervals are 95 %" in out


@pytest.mark.slow
@pytest.mark.parametrize("environment", NO_UTF8, ids=lambda e: " ".join(e.values()))
@pytest.mark.parametrize("form", ["--csv", "--json", None])
def test_a_prediction_on_a_terminal_without_utf8(
    job: Job, tmp_path: Path, form: str | None, environment: dict[str, str]
) -> None:
    from tests.faults import files

    name = "glück – 幸.png"
    files.write(tmp_path, {name: files.picture()})
    uri = MlflowClient().get_run(job.runs["finetune"]).data.tags["model_uri"]
    process = start("predict", str(tmp_path), "--model", uri, *filter(None, [form]), **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert b"gl" in out
    assert b".png" in out


def leave_after_a_line(*arguments: str) -> None:
    """Runs the command with a reader that leaves, as `| head -1` does."""
    with start(*arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=300) == 0, err
    assert err == b""


def test_a_reader_that_leaves_does_not_end_the_work(empty_store: Path) -> None:
    leave_after_a_line(*TINY)
    assert [run.info.status for run in runs()] == ["FINISHED"]


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_fail_an_evaluation(job: Job, base: Path) -> None:
    leave_after_a_line("evaluate", "--run-id", job.runs["finetune"])
    newest = runs()[0]
    assert newest.data.tags["stage"] == "evaluate"
    assert newest.data.tags["source_run_id"] == job.runs["finetune"]
    assert newest.info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's full device")
def test_output_that_cannot_be_written_is_said_and_the_work_is_done(empty_store: Path) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fer_experiments", *TINY], check=False,
            stdout=full, stderr=subprocess.PIPE, env=process_environment(),
        )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line == "Error: What was printed could not be written: No space left on device"
    assert [run.info.status for run in runs()] == ["FINISHED"]


@pytest.mark.slow
def test_closed_output_is_no_error(empty_store: Path) -> None:
    command = f"{sys.executable} -m fer_experiments {' '.join(TINY)} >&-"
    done = subprocess.run(
        ["sh", "-c", command], check=False, stderr=subprocess.PIPE, env=process_environment()
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert [run.info.status for run in runs()] == ["FINISHED"]


def runs() -> list[Run]:
    """The experiment's runs, newest first."""
    client = MlflowClient()
    return list(client.search_runs([client.get_experiment_by_name("fer2013").experiment_id]))
