"""Variables behind `make TARGET` reach the command, or are refused; none is ignored."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, process_environment

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


# What the Makefile takes from the environment.
TAKEN = {
    "ARGS", "BACKBONE", "DATASET", "HOST", "MODEL", "PORT", "RECIPE", "RUN_ID", "SEED", "WEIGHTS",
}  # fmt: skip


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `make` would do; nothing is run.

    The tests may run below `make test ARGS=…`, which tells every `make` below it what it was told.
    """
    own = {
        name: value
        for name, value in process_environment().items()
        if not name.startswith("MAKE") and name not in {"MFLAGS", *TAKEN}
    }
    return subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *arguments],
        cwd=ROOT, env={**own, **environment}, capture_output=True, text=True,
    )  # fmt: skip


def command_of(*arguments: str, **environment: str) -> list[str]:
    """The words of the `fer` command that the target starts."""
    done = make(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "/bin/fer " in line)
    return shlex.split(line)[1:]


def pairs(words: list[str]) -> dict[str, str]:
    return dict(zip(words[1::2], words[2::2], strict=True))


@pytest.mark.parametrize(
    ("arguments", "command", "options"),
    [
        (["train", "EPOCHS=3"], "train", {"--epochs": "3"}),
        (["train", "backbone=vgg16"], "train", {"--backbone": "vgg16"}),
        (
            ["train", "BACKBONE=vgg16", "LEARNING_RATE=1e-3", "limit=200"],
            "train",
            {"--backbone": "vgg16", "--learning-rate": "1e-3", "--limit": "200"},
        ),
        (["train", "DATASET=my fa'ces $$x"], "train", {"--dataset": "my fa'ces $$x"}),
        (["finetune", "RUN_ID=abc"], "finetune", {"--run-id": "abc"}),
        (["evaluate", "MODEL=models:/x@y", "TTA=flip"], "evaluate",
         {"--model": "models:/x@y", "--tta": "flip"}),
        (["compare", "EXPERIMENT=mine"], "compare", {"--experiment": "mine"}),
        (["register", "MIN_RECALL=0"], "register", {"--min-recall": "0"}),
        (["train", "SEED=0", "ARGS=--epochs 3"], "train", {"--seed": "0", "--epochs": "3"}),
        (["ui", "PORT=5001"], "ui", {"--host": "127.0.0.1", "--port": "5001"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_every_variable_becomes_an_option(
    arguments: list[str], command: str, options: dict[str, str]
) -> None:
    words = command_of(*arguments)
    assert words[0] == command
    assert pairs(words) == options


def test_an_option_that_no_command_has_reaches_the_command_which_refuses_it() -> None:
    assert command_of("train", "BOGUS=1") == ["train", "--bogus", "1"]


def test_the_fault_harness_is_told_what_to_try() -> None:
    done = make("faults", "ARGS=--quick --only parallel")
    assert done.returncode == 0, done.stderr
    *_, words = (shlex.split(line) for line in done.stdout.splitlines())
    assert words[1:] == ["-m", "tests.faults", "--quick", "--only", "parallel"]


def test_all_tests_together_measure_what_they_reach_and_a_part_of_them_does_not() -> None:
    def started(*arguments: str) -> list[str]:
        done = make(*arguments)
        assert done.returncode == 0, done.stderr
        lines = [
            line for line in done.stdout.splitlines() if "coverage" in line or "pytest" in line
        ]
        return [" ".join(shlex.split(line)[:3]).rpartition("/bin/")[2] for line in lines]

    assert started("test") == [
        "coverage erase",
        "coverage run -m",
        "python -m pytest",
        "coverage combine --quiet",
        "coverage report",
    ]
    assert started("test", "ARGS=tests/data") == ["python -m pytest"]
    assert started("test-fast") == ["python -m pytest"]


def test_demo_takes_options_too() -> None:
    words = command_of("demo", "SYNTHETIC_COUNT=70")
    assert pairs(words) == {"--recipe": "demo", "--synthetic-count": "70"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["test", "EPOCHS=3"], "EPOCHS"),
        (["check", "ARGS=-x"], "ARGS"),
        (["ui", "port=5001"], "port"),
        (["bench", "QUICK=1"], "QUICK"),
        (["help", "x=1"], "x"),
        (["x=1"], "x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_target_does_not_take_is_refused_before_anything_is_done(
    arguments: list[str], named: str
) -> None:
    done = make(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"Received: {named}." in done.stderr


def test_documented_names_are_taken_from_the_environment_and_others_are_not() -> None:
    words = command_of("train", BACKBONE="tiny", HOST="0.0.0.0", EPOCHS="3", MODEL="x")
    assert words == ["train", "--backbone", "tiny"]
    assert pairs(command_of("ui", HOST="0.0.0.0"))["--host"] == "127.0.0.1"


def test_a_make_that_started_the_tests_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (["train", "EPOCHS=3"], ["test", "EPOCHS=3"], ["ui"])
    before = [make(*arguments) for arguments in asked]
    (tmp_path / "Makefile").write_text("test-fast:\n\t@env -0\n")
    told = subprocess.run(
        ["make", "--directory", tmp_path, "--no-print-directory", "test-fast",
         "ARGS=--durations=60", "SEED=7"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for line in told.split("\0")[:-1]:
        name, _, value = line.partition("=")
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)
    assert os.environ["ARGS"] == "--durations=60"
    assert "ARGS" in os.environ["MAKEFLAGS"]
    for arguments, alone in zip(asked, before, strict=True):
        below = make(*arguments)
        assert (below.returncode, below.stdout) == (alone.returncode, alone.stdout)
        assert below.stderr == alone.stderr


def test_documented_lines_of_mlflow_run_name_the_experiment() -> None:
    for name in ("README.md", "MLproject", "docs/tutorial.md", "docs/how-to/resume.md"):
        path = Path(ROOT, name)
        lines = [line for line in path.read_text().splitlines() if "mlflow run . -" in line]
        assert lines
        assert all("mlflow run . --experiment-name fer2013" in line for line in lines)
