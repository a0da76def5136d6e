"""mlflow stays in tracking, Keras waits for its use; lint-imports sees that imports go down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import process_environment

PACKAGE = Path(__file__).parent.parent / "fer_experiments"
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_mlflow_is_imported_in_tracking_only(path: Path) -> None:
    if room_of(path) != "tracking":
        assert not [name for name in imports(path) if name.split(".")[0] == "mlflow"]


# What each command ended with, and what it left imported; one process does them one by one.
COMMANDS = """
import sys
from fer_experiments.entry import main
for line in sys.argv[2:]:
    try:
        main(line.split())
    except SystemExit as ended:
        loaded = sorted(set(sys.argv[1].split()) & set(sys.modules))
        print("ended", line, ended.code or 0, *loaded, sep=",")
"""


def ends_of(modules: str, *commands: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, modules, *commands],
        capture_output=True, text=True, check=True, env=process_environment(),
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if line.startswith("ended,")]


def test_commands_that_need_no_keras_do_not_import_it(empty_store: Path) -> None:
    codes = {
        "--help": 0,
        "train --help": 0,
        "train --learning-rate abc": 2,
        "train --backbone vgg17": 2,
        "main --dataset /does/not/exist": 2,
        "prepare --recipe demo --synthetic-count 70": 0,
    }
    assert ends_of("keras tensorflow", *codes) == [
        f"ended,{command},{code}" for command, code in codes.items()
    ]


def test_help_and_wrong_options_do_not_import_mlflow() -> None:
    assert ends_of("mlflow numpy keras", "train --help", "train --epochs none") == [
        "ended,train --help,0",
        "ended,train --epochs none,2",
    ]
