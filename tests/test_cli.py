"""The command line as a user types it: help, names, and one line for whatever is wrong."""

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from fer_experiments.cli import cli
from fer_experiments.config import FIELDS

from .conftest import ROOT, Fer, process_environment

# Of MLproject.
STAGES = ("prepare", "train", "finetune", "evaluate", "compare", "register", "main")

COMMANDS = sorted(cli.commands)
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


def options_of(command: str) -> set[str]:
    return {p.name for p in cli.commands[command].params if isinstance(p, click.Option)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_explained(command: str, fer: Fer) -> None:
    shown = fer(command, "--help")
    assert shown.exit_code == 0
    assert cli.commands[command].help
    for parameter in cli.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stands_in_the_readme(command: str) -> None:
    assert f"fer {command}" in (ROOT / "README.md").read_text()


def test_mlproject_offers_the_stages_of_the_main_job() -> None:
    assert set(ENTRY_POINTS) == set(STAGES)
    assert set(STAGES) < set(COMMANDS)


@pytest.mark.parametrize("stage", STAGES)
def test_an_entry_point_runs_its_command_and_leaves_every_value_to_the_options(
    stage: str,
) -> None:
    # A declared parameter would be logged with its default before the recipe is resolved.
    entry = ENTRY_POINTS[stage]
    assert shlex.split(entry["command"]) == ["python", "-m", "fer_experiments", stage]
    assert "parameters" not in entry


def test_names_in_mlprojects_comment_are_options() -> None:
    comment = (ROOT / "MLproject").read_text().split("conda_env")[0]
    assert "backbone (train, finetune, evaluate)" in comment
    for stage in ("train", "finetune", "evaluate"):
        assert "backbone" in options_of(stage)
    assert "backbones" in options_of("main")
    for stage in ("prepare", "train", "finetune", "main"):
        assert {"recipe", "dataset"} <= options_of(stage)
    assert {"run_id"} <= options_of("finetune") & options_of("evaluate")
    assert "model" in options_of("evaluate")
    assert {"metric", "min_improvement", "model_name"} <= options_of("register")


def test_every_field_is_an_option_of_main() -> None:
    assert set(FIELDS) - {"backbone"} <= options_of("main")


def test_conda_yaml_uses_the_tested_pins() -> None:
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    assert "python=3.11" in environment["dependencies"]
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --backbone vgg17", "one of vgg16, resnet50, tiny. Received: backbone=vgg17"),
        ("train --backbone VGG16", "did you mean vgg16?"),
        (
            "train --recipe bastline",
            "one of notebook, baseline, quick, tuned, best, demo. Received: recipe=bastline",
        ),
        ("train --learning-rate -1", "learning_rate to be above 0"),
        ("train --learning_rate abc", "learning_rate to be a number. Received: learning_rate=abc"),
        ("train --dropout=", "Expected dropout to be a number"),
        ("train --epochs 2.5", "epochs to be a whole number"),
        ("train --bogus 1", "No such option '--bogus'"),
        ("train --weights /no/such/file.h5", "(looked for /no/such/file.h5)"),
        ("train --dataset /no/such/folder", "(looked for /no/such/folder)"),
        ("main --backbones vgg16,vgg17", "Received: backbone=vgg17"),
        ("main --backbones vgg16,vgg16", "Expected each backbone once"),
        ("register --metric test/accuracy", "never on test"),
        ("register --min-improvement -1", "min_improvement to be at least 0"),
        ("register --min-improvement x", "min_improvement to be a number"),
        ("evaluate --run-id nothing", "which does not exist"),
        (
            "evaluate --run-id a --backbone vgg16",
            "Expected one of run_id, backbone, model and model_name",
        ),
        ("evaluate --model models:/nothing@champion", "Expected model to be a URI"),
        ("finetune --run-id nothing", "Expected an MLflow store to look in"),
        ("predict /no/such.png", "(looked for /no/such.png)"),
        ("predict --json --csv x.png", "one of --json and --csv"),
        ("predict", "Expected a photo, a video, a folder or --camera"),
        ("nonsense", "No such command"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: str, message: str, fer: Fer, fresh_store: Path
) -> None:
    outcome = fer(*arguments.split(" "))
    assert outcome.exit_code == 2
    assert message in outcome.error
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("finetune --backbone tiny", "Found: none in sqlite:///"),
        ("evaluate", "Expected a champion or a finished train or finetune run. Found: none"),
        ("evaluate --backbone tiny", "run of tiny. Found: none"),
        ("compare", "Expected an evaluated run. Found: none in sqlite:///"),
        ("compare --dataset fer2013", "on dataset=fer2013. Found: none"),
        ("register", "Expected an evaluated run. Found: none"),
        ("compare --experiment nowhere", "which does not exist yet. Received: experiment=nowhere"),
    ],
)
def test_an_empty_store_says_what_to_do_first(
    arguments: str, message: str, fer: Fer, fresh_store: Path
) -> None:
    outcome = fer(*arguments.split(" "))
    assert outcome.exit_code == 2
    assert message in outcome.error


def test_underscores_and_hyphens_mean_the_same(fer: Fer) -> None:
    for spelling in ("learning_rate", "learning-rate"):
        assert "learning_rate to be above 0" in fer("train", f"--{spelling}", "0").error


@pytest.mark.parametrize("option", ["seed", "weights"])
def test_auto_is_a_value_like_any_other(option: str, fer: Fer) -> None:
    outcome = fer("train", "--backbone", "tiny", "--recipe", "demo", f"--{option}", "auto")
    assert outcome.exit_code == 2
    assert "auto" in outcome.error


@pytest.mark.parametrize("command", [["prepare"], ["train", "--backbone", "tiny"], ["main"]])
def test_dry_run_counts_and_refuses_as_the_command_does(
    command: list[str], fer: Fer, fresh_store: Path
) -> None:
    faces = fresh_store / "faces"
    for part, count in (("train", 10), ("test", 3)):
        for label in ("happy", "sad"):
            for i in range(count):
                path = faces / part / label / f"{i}.pgm"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"P5 16 16 255\n" + f"{part}{label}{i}".encode().ljust(256))
    (faces / "train" / "sad" / "me.jxl").write_bytes(b"picture")
    (faces / ".DS_Store").write_bytes(b"junk")
    weights = [] if command == ["prepare"] else ["--weights", "none"]
    asked = [*command, "--dataset", str(faces), *weights]
    shown = fer(*asked, "--dry-run")
    assert shown.exit_code == 0, shown.err
    assert "2 classes, 20 in train, 6 in test; split given" in shown.out
    assert "about 16 train, 4 val, 6 test images" in shown.out  # copies would stay together
    assert "left out: 1 .jxl, a kind of image that is not read (train/sad/me.jxl)" in shown.out
    assert "skipped: 1 junk (.DS_Store)" in shown.out
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["class", "train", "test"] in lines
    assert ["happy", "10", "3"] in lines
    assert not list(fresh_store.glob("*.db"))

    for more, word in (
        (["--val-fraction", "0.01"], "Expected enough different images of each class"),
        (["--split", "official"], "Expected test files named PublicTest_"),
        (["--limit", "1"], "Expected limit to be at least 2"),
    ):
        assert word in fer(*asked, *more, "--dry-run").error
    (faces / "train" / "fear").mkdir()
    assert "none in fear" in fer(*asked, "--dry-run").error
    assert "none in fear" in fer("prepare", "--dataset", str(faces)).error


def test_dry_run_counts_what_is_prepared(fer: Fer, fresh_store: Path) -> None:
    asked = ("--dataset", "synthetic", "--synthetic-count", "700", "--split", "holdout")
    assert "\nabout " in fer("prepare", *asked, "--dry-run").out  # copies would stay together
    made = fer("prepare", *asked)
    assert made.exit_code == 0
    counted = fer("prepare", *asked, "--dry-run").out
    *_, sizes = [line for line in made.out.splitlines() if line.startswith("synthetic: ")]
    assert sizes.removeprefix("synthetic: ") + " images" in counted.splitlines()


def test_dry_run_shows_time_and_disk_and_writes_nothing(fer: Fer, fresh_store: Path) -> None:
    shown = fer("main", "--recipe", "demo", "--backbones", "tiny,vgg16", "--dry-run")
    assert shown.exit_code == 0
    assert "\n2400 train, 300 val, 300 test images\n" in shown.out
    for backbone in ("tiny", "vgg16"):
        assert f"\n{backbone}: about " in shown.out
    assert "MB of disk" in shown.out
    assert list(fresh_store.iterdir()) == []


def test_doctor_reports_and_does_not_fail(fer: Fer) -> None:
    shown = fer("doctor")
    assert shown.exit_code == 0
    for what in ("tensorflow", "bfloat16", "Keras backend", "devices", "MLflow store", "Kaggle"):
        assert what in shown.out


@pytest.mark.slow
@pytest.mark.parametrize(("wish", "found"), [({}, "oneDNN's"), ({ONEDNN: "0"}, "TensorFlow's (")])
def test_commands_ask_for_onednn_unless_the_user_decides(
    wish: dict[str, str], found: str, fresh_store: Path
) -> None:
    environment = {k: v for k, v in process_environment().items() if k != ONEDNN} | wish
    shown = subprocess.run(
        [sys.executable, "-m", "fer_experiments", "doctor"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"CPU kernels       {found}" in shown.stdout
    assert shown.stderr == ""


def test_tab_completion_knows_the_choices() -> None:
    from click.shell_completion import ShellComplete

    complete = ShellComplete(cli, {}, "fer", "_FER_COMPLETE")
    found = complete.get_completions(["train", "--recipe"], "b")
    assert [item.value for item in found] == ["baseline", "best"]
