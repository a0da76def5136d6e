"""README and docs: what stands there can be typed, and the reference tells what the code says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sqlite3
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

from fer_experiments.cli import cli
from fer_experiments.config import FIELDS, Thresholds
from fer_experiments.errors import FerError

from .conftest import ROOT, Fer, Job
from .faces.photos import grace_hopper

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {page: str(page.relative_to(ROOT)) for page in PAGES}
by_page = pytest.mark.parametrize("page", PAGES, ids=list(NAMES.values()))
# Options that stand alone in the text and are of another program.
FOREIGN_OPTIONS = {"--env-manager", "--experiment-name", "--quick"}
# What begins a line of a shell and is none of our programs.
FOREIGN_COMMANDS = {"source", "export", "curl", "pip", ".venv/bin/pip"}
AFTER_DEMO = "runs after the demo"
WITH_EXTRA = "runs after the demo with the extra export"


@dataclass(frozen=True)
class Block:
    """Code between two fences, and the comment above it."""

    page: Path
    line: int
    language: str
    code: str
    remark: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell, with the block's own variables filled in."""
        variables: dict[str, str] = {}
        found = []
        for line in self.code.replace("\\\n", " ").splitlines():
            if assigned := re.fullmatch(r'([A-Z]+)="(.*)"', line):
                variables[assigned[1]] = assigned[2]
                continue
            for name, value in variables.items():
                line = line.replace(f'"${name}"', shlex.quote(value)).replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            words = words[: words.index(">")] if ">" in words else words
            while words and re.match(r"[A-Z_]+=", words[0]):  # set for this command alone
                words.pop(0)
            if words:
                found.append(words)
        return found


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    remark = ""
    code: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if opened is not None:
            if line == "```":
                found.append(Block(page, opened[0], opened[1], "\n".join(code), remark))
                opened, remark, code = None, "", []
            else:
                code.append(line)
        elif line.startswith("```"):
            opened = number, line.removeprefix("```")
        elif commented := re.fullmatch(r"<!-- (.*) -->", line):
            remark = commented[1]
        elif line:
            remark = ""
    return found


def spans(page: Path) -> Iterator[str]:
    """Code within the text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        yield " ".join(found.replace("\\|", "|").split())


def check_fer(words: list[str], *, whole: bool = True) -> None:
    """Parses what stands behind `fer`; unless `whole`, what is required may be missing."""
    words = [word for word in words if word != "--verbose"]
    if not words or words[0].startswith("-") or words[0].isupper():
        return
    assert words[0] in cli.commands, words
    command = cli.commands[words[0]]
    try:
        with cli.make_context("fer", list(words)) as group:
            command.make_context(words[0], words[1:], parent=group)
    except click.exceptions.Exit as done:
        assert done.exit_code == 0
    except click.MissingParameter:
        assert not whole, words
    except (click.ClickException, FerError) as error:
        pytest.fail(f"fer {shlex.join(words)}: {error}")


def check_mlflow(words: list[str]) -> None:
    if words[0] != "run":
        assert words[:2] == ["models", "serve"]
        return
    assert words[1:4] == [".", "--experiment-name", "fer2013"]
    pairs = list(zip(words[4::2], words[5::2], strict=True))
    assert {option for option, _ in pairs} <= {"--env-manager", "-e", "-P"}
    stage = next((value for option, value in pairs if option == "-e"), "main")
    assert stage in yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    params = [value.split("=", 1) for option, value in pairs if option == "-P"]
    check_fer([stage, *(word for name, value in params for word in (f"--{name}", value))])


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    asked = [word for word in words if "=" not in word]
    assert set(asked) <= set(targets), words
    options = [word for k, v in given.items() for word in (f"--{k.lower().replace('_', '-')}", v)]
    if options and asked[0] in cli.commands:
        check_fer([asked[0], *options])


def check(words: list[str]) -> None:
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "fer":
        check_fer(rest)
    elif program == "mlflow":
        check_mlflow(rest)
    elif program == "make":
        check_make(rest)
    elif program == "python":
        assert rest[0] == "-m"
        module = Path(ROOT, *rest[1].split("."))
        assert module.is_dir() or module.with_suffix(".py").is_file(), words
    else:
        assert words[0] in FOREIGN_COMMANDS, words


@by_page
def test_commands_in_blocks_can_be_typed(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("sh", "python", "text"), f"{NAMES[page]}:{block.line}"
        if block.language == "sh":
            for words in block.commands:
                check(words)


@by_page
def test_commands_and_options_in_the_text_exist(page: Path) -> None:
    known = {
        flag
        for command in [cli, *cli.commands.values()]
        for option in command.params
        for flag in option.opts
    }
    for span in spans(page):
        if "…" in span or "$" in span:
            continue
        words = span.split()
        if words[0] == "fer" and len(words) > 1:
            check_fer(words[1:], whole=False)
        elif words[0] == "make" and len(words) > 1:
            check_make(words[1:])
        elif re.match(r"--[a-z]", words[0]):
            flag = words[0].split("=")[0].replace("_", "-")
            assert flag in {*known, *FOREIGN_OPTIONS, "--name", "--help"}, span


@by_page
def test_settings_in_the_text_are_fields(page: Path) -> None:
    if page.parent.name == "results":  # tells of runs, with the names of their time
        return
    known = {*FIELDS, *(f for f in Thresholds.__dataclass_fields__), "name", "resume"}
    for span in spans(page):
        if setting := re.fullmatch(r"(?:-P )?([a-z_]+)=[\w./-]+", span):
            assert setting[1] in known, span


def test_python_that_needs_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    ran = 0
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                code = compile(block.code, f"{NAMES[page]}:{block.line}", "exec")
                if not block.remark:
                    exec(code, {"__name__": "example"})
                    ran += 1
    assert ran


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if any(block.remark in (AFTER_DEMO, WITH_EXTRA) for block in blocks(page))
    ],
    ids=NAMES.get,
)
def test_examples_run_after_the_demo(
    page: Path, job: Job, base: Path, fer: Fer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed, on a copy of the store: they may write."""
    with (
        closing(sqlite3.connect(base / "mlflow.db")) as store,
        closing(sqlite3.connect(tmp_path / "mlflow.db")) as copy,
    ):
        store.backup(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    # What other tests have left undelivered is none of this page's.
    monkeypatch.setenv("FER_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    grace_hopper().save("photo.jpg")
    namespace = {"__name__": "example"}
    for block in blocks(page):
        if block.remark not in (AFTER_DEMO, WITH_EXTRA):
            continue
        if block.remark == WITH_EXTRA and importlib.util.find_spec("tf2onnx") is None:
            pytest.skip("the extra `export` is not installed")
        if block.language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of MLflow and Keras
                exec(compile(block.code, f"{NAMES[page]}:{block.line}", "exec"), namespace)
            continue
        for words in block.commands:
            assert words[0] == "fer"
            done = fer(*words[1:])
            assert done.exit_code == 0, (words, done.err)


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), target
        if anchor:
            assert anchor in anchors(there), target


def anchors(page: Path) -> list[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", head).strip().lower() for head in heads)
    return [re.sub(r"[-\s]+", "-", head) for head in plain]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_row_of_a_new_backbone_can_be_pasted() -> None:
    import keras

    from fer_experiments.models.backbones import application

    [block] = [
        block
        for block in blocks(ROOT / "docs" / "how-to" / "extend.md")
        if block.remark == "a row of BACKBONES"
    ]
    [row] = eval(f"(\n{block.code}\n)", {"application": application})
    assert row.name == "mobilenet_v2"
    assert row.preprocess(np.array([0.0, 255.0])).tolist() == [-1.0, 1.0]
    assert callable(getattr(keras.applications, row.title))


# --- the reference ---


@pytest.fixture(scope="module")
def generate() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says(generate: types.ModuleType) -> None:
    made = generate.pages()
    assert sorted(made) == sorted(path.name for path in generate.FOLDER.iterdir())
    stale = [name for name, text in made.items() if (generate.FOLDER / name).read_text() != text]
    assert stale == [], "run `make docs`"


def test_every_variable_of_the_environment_is_told(generate: types.ModuleType) -> None:
    texts = [path.read_text() for path in (ROOT / "fer_experiments").rglob("*.py")]
    names = {name for text in texts for name in re.findall(r'"(FER_[A-Z_]+)"', text)}
    assert names
    assert [name for name in names if f"| `{name}`" not in generate.commands()] == []


def pattern(names: str) -> str:
    """`val/<score>, test/<score>` as a regular expression."""
    return "|".join(re.sub(r"<[^>]*>", ".+", re.escape(name)) for name in names.split(", "))


def test_every_name_in_mlflow_is_told(generate: types.ModuleType, job: Job) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    scores = "|".join(map(pattern, generate.SCORES))
    metrics = re.compile(
        "|".join(
            pattern(names).replace(r"<score>", f"({scores})") for names, _, _ in generate.METRICS
        )
    )
    tags = {tag for names, _, _ in generate.TAGS for tag in names.split(", ")}
    files = re.compile("|".join(pattern(names) for names, _, _ in generate.FILES))
    params = {*FIELDS, *Thresholds.__dataclass_fields__} | {
        "recipe", "dataset_fingerprint", "augmentation", "metric", "model_name",
    }  # fmt: skip
    for run_id in job.runs.values():
        run = client.get_run(run_id)
        assert [m for m in run.data.metrics if not metrics.fullmatch(m)] == []
        assert [t for t in run.data.tags if t not in tags and not t.startswith("mlflow.")] == []
        assert [p for p in run.data.params if p not in params] == []
        assert [f for f in all_files(client, run_id) if not files.fullmatch(f)] == []
    model = client.get_registered_model("emotion-synthetic")
    version = client.get_model_version_by_alias("emotion-synthetic", "champion")
    assert {*model.tags, *version.tags} <= tags | {
        *re.findall(r"\S+", "backbone recipe source_run_id dataset_fingerprint")
    }


def all_files(client: object, run_id: str, folder: str | None = None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):  # type: ignore[attr-defined]
        if entry.is_dir:
            yield from all_files(client, run_id, entry.path)
        else:
            yield entry.path


def test_the_site_is_built_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)"', page.read_text())
        assert loaded == []
