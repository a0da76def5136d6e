"""The Tab key: file names stay, backbones and run ids are offered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, ShellComplete
from mlflow.tracking import MlflowClient

from fer_experiments.cli import cli
from fer_experiments.tracking.lifecycle import open_run

from .conftest import process_environment


def offered(*words: str) -> list[CompletionItem]:
    """What is offered for the last of these words."""
    *before, incomplete = words
    return ShellComplete(cli, {}, "fer", "_FER_COMPLETE").get_completions(list(before), incomplete)


def values(*words: str) -> list[str]:
    return [item.value for item in offered(*words) if item.type == "plain"]


def offers_files(*words: str) -> bool:
    return any(item.type == "file" for item in offered(*words))


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "my_f"),
        ("predict", "--json", ""),
        ("prepare", "--dataset", ""),
        ("train", "--dataset", "./"),
        ("train", "--weights", "wei"),
        ("main", "--weights", ""),
        ("evaluate", "--dataset", "x"),
        ("compare", "--dataset", "x"),
    ],
    ids=" ".join,
)
def test_file_names_stay(words: tuple[str, ...]) -> None:
    assert offers_files(*words)


def test_words_do_not_hide_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("kaggle copy.zip", "k[1].csv", "other"):
        Path(name).touch()
    assert sorted(values("train", "--dataset", "kag")) == ["kaggle", "kaggle copy.zip"]
    assert values("train", "--dataset", "k[") == []
    assert offers_files("train", "--dataset", "k[")


def test_backbones_are_offered() -> None:
    assert values("train", "--backbone", "v") == ["vgg16"]
    assert values("evaluate", "--backbone", "") == ["vgg16", "resnet50", "tiny"]
    assert values("main", "--backbones", "vgg16,") == ["vgg16,resnet50", "vgg16,tiny"]


def test_choices_are_offered() -> None:
    assert values("train", "--recipe", "b") == ["baseline", "best"]
    assert values("train", "--optimizer", "ada") == ["adam", "adamw"]
    assert values("runs", "--stage", "ev") == ["evaluate"]


def test_numbers_offer_nothing() -> None:
    assert offered("train", "--epochs", "") == []


def test_run_ids_are_offered_by_what_the_command_takes(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(fresh_store / "data"))
    ids = {}
    for stage in ("train", "finetune", "evaluate", "calibrate"):
        with open_run(stage, f"tiny {stage}") as writer:
            ids[stage] = writer.run_id
    with pytest.raises(MemoryError), open_run("train", "cut short") as writer:
        raise MemoryError
    assert set(values("finetune", "--run-id", "")) == {ids["train"], ids["finetune"]}
    with_model = {ids["train"], ids["finetune"], ids["calibrate"]}
    assert set(values("evaluate", "--run-id", "")) == with_model
    assert values("finetune", "--run-id", ids["train"][:12]) == [ids["train"]]
    behind = values("ensemble", "--run-ids", f"{ids['train']},")
    assert set(behind) == {f"{ids['train']},{ids[s]}" for s in ("finetune", "calibrate")}
    assert values("train", "--resume", "") == [writer.run_id]
    assert values("main", "--resume", "") == []
    (item,) = offered("finetune", "--run-id", ids["train"])
    assert item.help == "tiny train"


def test_a_store_that_is_away_offers_nothing(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    assert values("finetune", "--run-id", "") == []
    assert list(fresh_store.iterdir()) == []  # nor is a store made by it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert values("finetune", "--run-id", "") == []


def test_bash_is_told_to_look_for_files(base: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fer_experiments"], capture_output=True, text=True, check=True,
        env=process_environment(
            _FER_COMPLETE="bash_complete", COMP_WORDS="fer predict my_f", COMP_CWORD="2"
        ),
    )  # fmt: skip
    assert done.stdout == "file,my_f\n"
    assert done.stderr == ""


def test_completion_costs_no_mlflow_where_it_needs_none() -> None:
    code = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from fer_experiments.cli import cli\n"
        "complete = ShellComplete(cli, {}, 'fer', '_FER_COMPLETE').get_completions\n"
        "complete(['train', '--dataset'], 'x'), complete(['train', '--backbone'], 'v')\n"
        "print(sorted({'mlflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_store_of_these_tests_is_their_own(fresh_store: Path) -> None:
    assert str(fresh_store) in MlflowClient().tracking_uri
