"""mlflow stays in tracking, Keras waits for its use; lint-imports sees that imports go down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "--learning-rate", "abc"],
        ["train", "--backbone", "vgg17"],
        ["main", "--dataset", "/does/not/exist"],
        ["prepare", "--recipe", "demo", "--synthetic-count", "70"],
    ],
    ids=" ".join,
)
def test_commands_that_need_no_keras_do_not_import_it(
    arguments: list[str], base: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from fer_experiments.entry import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('loaded', sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_help_and_wrong_options_do_not_import_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from fer_experiments.entry import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('loaded', sorted({'mlflow', 'numpy', 'keras'} & set(sys.modules)))"
    )
    for arguments in (["train", "--help"], ["train", "--epochs", "none"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "loaded []"
