"""The registry's states, with three versions: who is champion, why, who was before, what is gone.

The models have a description and no weights: nothing here predicts.
"""

import os
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fer_experiments.config import Config, Thresholds
from fer_experiments.data.images import FER_CLASSES
from fer_experiments.errors import FerError, RunError, TrackingError
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.stages.selection import champion, check_fits
from fer_experiments.tracking import models, names, registry, runs, store
from fer_experiments.tracking.registry import CHALLENGER, CHAMPION

from ..conftest import QUICK, Fer

NAME = "emotion-faces"


def logged(
    folder: Path, *, classes: tuple[str, ...] = FER_CLASSES, image_size: int = 48, ours: bool = True
) -> str:
    """Logs a model that has only a description; returns its URI."""
    client = MlflowClient()
    run = client.create_run("0", tags={names.SUITE: "1", "stage": "train"} if ours else {})
    client.set_terminated(run.info.run_id)
    model = client.create_logged_model("0", name="model", source_run_id=run.info.run_id)
    description = {
        "class_names": list(classes),
        "image_size": image_size,
        "config": Config().flat(),
        "dataset_name": "faces",
        "dataset_fingerprint": "f" * 64,
        "source_run_id": run.info.run_id,
    }
    folder = folder / model.model_id
    folder.mkdir()
    mlflow.models.Model(
        metadata=description if ours else {"task": "text"},
        model_id=model.model_id,
        flavors={"python_function": {"loader_module": "mlflow.keras"}},
    ).save(str(folder / "MLmodel"))
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    return f"models:/{model.model_id}"


def add(name: str, uri: str) -> registry.Version:
    return registry.add_version(name, uri, tags={"backbone": "vgg16"})


def make_champion(version: registry.Version, reason: str = "better") -> None:
    decided = {"decision": CHAMPION, "decision_reason": reason, "decision_numbers": "{}"}
    registry.set_alias(version, CHAMPION, tags=decided)


def aliases(name: str = NAME) -> dict[str, int]:
    held = MlflowClient().get_registered_model(name).aliases
    return {alias: int(number) for alias, number in held.items()}


def reasons() -> dict[int, str]:
    return {v.number: v.reason for v in registry.versions(NAME) if v.reason is not None}


@pytest.fixture(scope="module")
def databases(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A database that is new and one with three versions: making one takes seconds."""
    folder = tmp_path_factory.mktemp("databases")
    made = {name: folder / f"{name}.db" for name in ("new", "three")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made['new']}")
        store.client(make=True).search_experiments()
        shutil.copy(made["new"], made["three"])
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made['three']}")
        for version in [add(NAME, logged(folder)) for _ in range(3)]:
            make_champion(version, f"reason {version.number}")
    return made


@pytest.fixture
def empty(fresh_store: Path, databases: dict[str, Path]) -> Path:
    """The folder of a store that holds nothing."""
    shutil.copy(databases["new"], fresh_store / "mlflow.db")
    return fresh_store


@pytest.fixture
def three(fresh_store: Path, databases: dict[str, Path]) -> list[registry.Version]:
    """Versions 1, 2, 3, which were made champion in this order."""
    shutil.copy(databases["three"], fresh_store / "mlflow.db")
    return registry.versions(NAME)[::-1]


def delete(*numbers: int) -> None:
    for number in numbers:
        MlflowClient().delete_model_version(NAME, str(number))


def test_rollback_goes_back_one_champion_at_a_time(three: list[registry.Version], fer: Fer) -> None:
    assert (
        "version 2 of emotion-faces is champion again, in place of version 3" in fer("rollback").out
    )
    assert (aliases(), registry.history(NAME)) == ({"champion": 2}, [1, 2])
    assert reasons() == {2: "rolled back to, by hand"}
    assert fer("rollback").exit_code == 0
    assert (aliases(), registry.history(NAME)) == ({"champion": 1}, [1])
    outcome = fer("rollback")
    assert outcome.exit_code == 2
    assert "had another champion before that still exists. Received: champions 1" in outcome.error
    assert aliases() == {"champion": 1}


def test_rollback_after_a_champion_came_back_goes_to_the_one_in_between(
    three: list[registry.Version], fer: Fer
) -> None:
    assert fer("promote", "--version", 1).exit_code == 0
    assert registry.history(NAME) == [1, 2, 3, 1]
    fer("rollback")
    assert (aliases(), registry.history(NAME)) == ({"champion": 3}, [1, 2, 3])


@pytest.mark.parametrize(
    ("gone", "back", "line"),
    [
        ([2], 1, "version 1 of emotion-faces is champion again, in place of version 3"),
        ([3], 2, "version 2 of emotion-faces is champion again, in place of version 3"),
        ([3, 2], 1, "version 1 of emotion-faces is champion again, in place of version 3"),
    ],
)
def test_rollback_passes_over_deleted_versions(
    three: list[registry.Version], fer: Fer, gone: list[int], back: int, line: str
) -> None:
    delete(*gone)
    outcome = fer("rollback")
    assert outcome.exit_code == 0, outcome.err
    assert line in outcome.out
    assert aliases() == {"champion": back}


def test_rollback_names_what_was_deleted_when_nothing_is_left(
    three: list[registry.Version], fer: Fer
) -> None:
    delete(1, 2)
    assert "champions 1, 2, 3, of which versions 1, 2 were deleted" in fer("rollback").error
    assert aliases() == {"champion": 3}


@pytest.mark.parametrize(
    ("gone", "version", "is_champion", "found"),
    [
        ([], 3, True, "version 3 is champion"),
        ([1], 3, True, "version 3 is champion"),
        (
            [3],
            2,
            False,
            "there is no champion (version 3 was deleted); version 2 is the newest that was "
            "champion and still exists",
        ),
        (
            [2, 3],
            1,
            False,
            "there is no champion (versions 2, 3 were deleted); version 1 is the newest that was "
            "champion and still exists",
        ),
        (
            [1, 3],
            2,
            False,
            "there is no champion (version 3 was deleted); version 2 is the newest that was "
            "champion and still exists",
        ),
        ([1, 2, 3], None, False, "no version that was champion is left: versions 1, 2, 3 were"),
    ],
)
def test_a_newcomer_has_to_beat_the_newest_champion_that_exists(
    three: list[registry.Version],
    gone: list[int],
    version: int | None,
    is_champion: bool,
    found: str,
) -> None:
    delete(*gone)
    reference = registry.reference(NAME)
    number = reference.version.number if reference.version else None
    assert (number, reference.is_champion) == (version, is_champion)
    assert reference.found.startswith(found)
    assert reference.by_fer is is_champion


def test_a_newcomer_to_no_registered_model_has_nobody_to_beat(empty: Path) -> None:
    reference = registry.reference("emotion-none")
    assert reference.version is None and reference.by_fer
    assert reference.found == "there is no registered model emotion-none yet"


def test_without_the_alias_the_last_champion_is_still_the_one_to_beat(
    three: list[registry.Version],
) -> None:
    MlflowClient().delete_registered_model_alias(NAME, "champion")
    reference = registry.reference(NAME)
    assert reference.version is not None and reference.version.number == 3
    assert not reference.is_champion
    assert "the alias was removed in MLflow" in reference.found


def test_a_reason_goes_with_its_alias(three: list[registry.Version]) -> None:
    first, second, _ = three
    assert reasons() == {3: "reason 3"}
    for version, text in ((first, "no"), (second, "not better")):
        registry.set_alias(
            version,
            CHALLENGER,
            tags={
                "decision": CHALLENGER,
                "decision_reason": text,
                "decision_numbers": "{}",
            },
        )
    assert aliases() == {"champion": 3, "challenger": 2}
    assert reasons() == {2: "not better", 3: "reason 3"}

    registry.set_alias(second, CHAMPION, tags={"decision": CHAMPION, "decision_reason": "by hand"})
    assert aliases() == {"champion": 2}
    assert reasons() == {2: "by hand"}
    tags = {v.number: set(v.tags) for v in registry.versions(NAME)}
    # The numbers of the refusal are not those of the promotion.
    assert tags == {
        1: {"backbone"},
        2: {"backbone", "decision", "decision_reason"},
        3: {"backbone"},
    }
    assert registry.history(NAME) == [1, 2, 3, 2]


def test_registry_tells_what_is_after_edits_in_mlflow(
    three: list[registry.Version], fer: Fer
) -> None:
    client = MlflowClient()
    long = "better than version 2 " + "by a very long way " * 20 + "indeed"
    client.set_model_version_tag(NAME, "3", "decision_reason", long)
    client.set_model_version_tag(NAME, "1", "val/accuracy", "about a half")
    shown = fer("registry").out
    assert f"version 3 is champion: {long}\n" in shown
    assert "about a half" in shown
    assert "champions, oldest first: 1, 2, 3\n" in shown

    client.set_registered_model_alias(NAME, "champion", "1")
    # Older versions left the reason with a version that was champion once.
    client.set_model_version_tag(NAME, "1", "decision", "champion")
    client.set_model_version_tag(NAME, "1", "decision_reason", "the reason of long ago")
    delete(2)
    shown = fer("registry").out
    assert "version 1 was made champion in MLflow, not by fer\n" in shown
    assert "champions, oldest first: 1, 3\n" in shown
    assert long not in shown and "reason" not in shown
    # What fer does next it does from there.
    assert "champion again, in place of version 1" in fer("rollback").out
    assert aliases() == {"champion": 3}

    delete(3)
    shown = fer("registry").out
    assert "there is no champion (versions 2, 3 were deleted); version 1 is the newest" in shown
    assert "champions, oldest first: 1\n" in shown


def test_a_champion_made_in_mlflow_is_compared_with_and_remembered(
    three: list[registry.Version], tmp_path: Path, fer: Fer
) -> None:
    fourth = add(NAME, logged(tmp_path))
    MlflowClient().set_registered_model_alias(NAME, "champion", str(fourth.number))
    reference = registry.reference(NAME)
    assert reference.version is not None and reference.version.number == 4
    assert reference.found == "version 4 was made champion in MLflow, not by fer"
    assert "in place of version 4" in fer("promote", "--version", 2).out
    assert registry.history(NAME) == [1, 2, 3, 4, 2]
    fer("rollback")
    assert aliases() == {"champion": 4}


def test_a_promotion_that_was_cut_short_before_its_last_step_is_still_fers(
    three: list[registry.Version], tmp_path: Path, fer: Fer
) -> None:
    make_champion(add(NAME, logged(tmp_path)), "reason 4")
    MlflowClient().set_registered_model_tag(NAME, names.CHAMPION_HISTORY, "1,2,3")
    assert registry.reference(NAME).found == "version 4 is champion"
    assert "version 4 is champion: reason 4" in fer("registry").out
    fer("rollback")
    assert aliases() == {"champion": 3}


def test_only_models_of_this_suite_are_meant_without_a_name(
    empty: Path, tmp_path: Path, fer: Fer
) -> None:
    client = MlflowClient()
    foreign = logged(tmp_path, ours=False)
    mlflow.register_model(foreign, "emotion-text")
    client.set_registered_model_alias("emotion-text", "champion", "1")
    assert registry.registered_models() == []
    assert champion(None) is None
    assert "no registered models in sqlite:///" in fer("registry").out
    outcome = fer("predict", "x.png")
    assert "looked for" in outcome.error  # the file, not the other tool's model

    add("mine", logged(tmp_path))  # whatever it is called
    assert registry.registered_models() == ["mine"]
    # Older versions did not mark registered models; their versions' tags tell.
    client.delete_registered_model_tag("mine", names.SUITE)
    assert registry.registered_models() == []
    for tag in ("source_run_id", "dataset_fingerprint", "evaluation_run_id"):
        client.set_model_version_tag("mine", "1", tag, "x")
    assert registry.registered_models() == ["mine"]
    # Registered in MLflow, under the name that fer would take.
    mlflow.register_model(logged(tmp_path), "emotion-by-hand")
    assert set(registry.registered_models()) == {"mine", "emotion-by-hand"}

    outcome = fer("promote", "--model-name", "emotion-text", "--version", 1)
    assert outcome.exit_code == 2
    assert "Expected a model that this suite logged" in outcome.error


def test_more_registered_models_than_a_page_holds_are_all_found(
    empty: Path, tmp_path: Path
) -> None:
    client = MlflowClient()
    for i in range(101):  # MLflow's own page is of 100
        client.create_registered_model(f"a-{i}")
    add("z", logged(tmp_path))
    assert registry.registered_models() == ["z"]


COMMANDS = (
    ("predict", "x.png"),
    ("evaluate",),
    ("calibrate",),
    ("promote", "--version", "1"),
    ("rollback",),
)


@pytest.fixture
def picture(fresh_store: Path) -> Path:
    from PIL import Image

    Image.new("L", (8, 8)).save("x.png")
    return fresh_store / "x.png"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_every_command_asks_which_of_several_registered_models_is_meant(
    command: tuple[str, ...], empty: Path, picture: Path, tmp_path: Path, fer: Fer
) -> None:
    for name in ("emotion-a", "emotion-b"):
        make_champion(add(name, logged(tmp_path)))
    outcome = fer(*command)
    assert outcome.exit_code == 2
    assert (
        "Expected model_name where there is more than one registered model. Received: none, there "
        "are emotion-b, emotion-a; pass --model-name" in outcome.error
    )
    outcome = fer(*command, "--model-name", "emotion-c")
    assert outcome.exit_code == 2
    assert (
        "Expected model_name to be a registered model: emotion-b, emotion-a. Received: emotion-c"
        in outcome.error
    )


def test_an_unknown_model_address_lists_the_registered_models(
    three: list[registry.Version], fer: Fer
) -> None:
    error = fer("evaluate", "--model", "models:/nope@champion").error
    assert "Expected model to be a URI" in error
    assert error.endswith("registered models of this suite: emotion-faces")


@pytest.mark.parametrize("name", ["a/b", "a:b", " ", ".", "..", "..a"])
def test_a_name_that_cannot_be_is_refused_before_anything_else(name: str, empty: Path) -> None:
    with pytest.raises(MlflowException, match=r"(?i)name"):
        MlflowClient().create_registered_model(name)
    with pytest.raises(FerError, match="a name without / and :"):
        check_fits(name, class_names=FER_CLASSES, image_size=48)


@pytest.mark.parametrize("name", ["a.b", ".a", "a..", "a b", "ä?#%@"])
def test_a_name_that_can_be_is_not_refused(name: str, empty: Path) -> None:
    MlflowClient().create_registered_model(name)
    check_fits(name, class_names=FER_CLASSES, image_size=48)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a/b", "a name without / and :"),
        ("..", "a name without / and :"),
        ("a'b\"c", "Expected a name without both kinds of quotes"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("main", "--backbones", "tiny", "--recipe", "demo"),
        ("main", "--backbones", "tiny", "--recipe", "demo", "--dry-run"),
        ("main", "--resume", "0123"),
        ("register",),
    ],
    ids=" ".join,
)
def test_commands_refuse_such_a_name_at_the_start(
    command: tuple[str, ...], name: str, why: str, fresh_store: Path, fer: Fer
) -> None:
    outcome = fer(*command, "--model-name", name)
    assert outcome.exit_code == 2
    assert why in outcome.error
    assert outcome.out == ""
    assert list(fresh_store.iterdir()) == []


def test_data_that_a_registered_model_cannot_hold_is_refused(
    three: list[registry.Version], tmp_path: Path
) -> None:
    check_fits(NAME, class_names=FER_CLASSES, image_size=48)
    check_fits("emotion-new", class_names=("a", "b"), image_size=64)
    for classes, size in ((FER_CLASSES, 64), (("a", "b"), 48)):
        with pytest.raises(RunError, match=r"as version 3 was trained on.*pass --model-name"):
            check_fits(NAME, class_names=classes, image_size=size)
    # Nobody was champion: the newest version speaks for the model.
    registry.add_version("emotion-new", logged(tmp_path, classes=("a", "b")), tags={})
    with pytest.raises(RunError, match=r"a, b in 48 pixels, as version 1.*pass --model-name"):
        check_fits("emotion-new", class_names=FER_CLASSES, image_size=48)
    mlflow.register_model(logged(tmp_path, ours=False), "emotion-text")
    with pytest.raises(RunError, match=r"that this suite logged.*pass --model-name"):
        check_fits("emotion-text", class_names=FER_CLASSES, image_size=48)


def test_main_refuses_such_data_before_it_trains(empty: Path, tmp_path: Path, fer: Fer) -> None:
    make_champion(add("emotion-synthetic", logged(tmp_path, classes=("calm", "wild"))))
    add("other", logged(tmp_path, classes=("calm", "wild")))
    main = ("main", "--backbones", "tiny", "--recipe", "demo", "--synthetic-count", 210)
    for more in ((), ("--model-name", "other")):
        refused = [fer(*main, *more), fer(*main, *more, "--dry-run")]
        for outcome in refused:
            assert outcome.exit_code == 2
            assert "calm, wild in 48 pixels, as version 1 was trained on" in outcome.error
            assert "pass --model-name with another name, to main or to register" in outcome.error
            assert outcome.out == ""
        assert refused[0].error == refused[1].error
    assert MlflowClient().get_experiment_by_name("fer2013") is None  # nothing was begun
    assert fer(*main, "--model-name", "new", "--dry-run").exit_code == 0


@pytest.mark.parametrize("command", ["train", "main"])
def test_a_start_that_can_only_fail_again_is_not_offered_to_go_on(
    command: str, empty: Path, fer: Fer
) -> None:
    for name in ("calm", "wild"):
        (empty / "faces" / name).mkdir(parents=True)
        (empty / "faces" / name / "1.png").write_bytes(b"no image")
    backbone = "--backbone" if command == "train" else "--backbones"
    outcome = fer(command, backbone, "tiny", "--recipe", "demo", "--dataset", empty / "faces")
    assert outcome.exit_code == 1
    assert "--resume" not in outcome.out + outcome.err
    [run] = (r for r in MlflowClient().search_runs(["1"]) if r.data.tags["stage"] == command)
    assert run.data.tags["failure_reason"] in outcome.err
    assert "Go on with" not in run.data.tags["mlflow.note.content"]


@pytest.mark.slow
def test_main_resumes_under_another_name_where_the_first_became_impossible(
    empty: Path, tmp_path: Path, fer: Fer
) -> None:
    assert registry.registered_models() == []  # MLflow makes missing tables when it first looks
    with sqlite3.connect(empty / "mlflow.db") as database:
        database.execute("ALTER TABLE registered_model_aliases RENAME TO elsewhere")
    outcome = fer("main", "--backbones", "tiny", *QUICK, "--model-name", "first")
    assert outcome.exit_code == 1
    assert "no such table" in outcome.err
    run_id = outcome.out.split("fer main --resume ")[1].split()[0]
    with sqlite3.connect(empty / "mlflow.db") as database:
        database.execute("ALTER TABLE elsewhere RENAME TO registered_model_aliases")

    make_champion(add("first", logged(tmp_path, classes=("calm", "wild"))))
    outcome = fer("main", "--resume", run_id)
    assert outcome.exit_code == 2
    assert "Expected the data of first: calm, wild" in outcome.err
    assert "pass --model-name" in outcome.err
    assert f"fer main --resume {run_id}" in outcome.out  # what was begun is kept

    # Names can be edited in MLflow's pages: what is finished is known by its tags.
    client = MlflowClient()
    for run in client.search_runs(["1"]):
        client.update_run(run.info.run_id, name=f"my {run.info.run_id[:4]}")

    outcome = fer("main", "--resume", run_id, "--model-name", "other")
    assert outcome.exit_code == 0, outcome.err
    assert registry.registered_models() == ["other", "first"]
    assert aliases("other") == {"champion": 1}
    finished = Counter(
        run.data.tags["stage"]
        for run in client.search_runs(["1"], "attributes.status = 'FINISHED'")
    )
    once = ("prepare", "train", "finetune", "evaluate", "compare", "register", "main")
    assert finished == dict.fromkeys(once, 1)
    # The comparison was done before; its verdict is in the note all the same.
    note = client.get_run(run_id).data.tags["mlflow.note.content"]
    assert note.startswith("tiny finetune demo s0 is the only model: macro-F1 (")


@pytest.fixture
def broken(three: list[registry.Version], fresh_store: Path) -> Iterator[None]:
    """A database in which aliases cannot be read."""
    with sqlite3.connect(fresh_store / "mlflow.db") as database:
        database.execute("ALTER TABLE registered_model_aliases RENAME TO elsewhere")
    yield
    with sqlite3.connect(fresh_store / "mlflow.db") as database:
        database.execute("ALTER TABLE elsewhere RENAME TO registered_model_aliases")
    assert aliases() == {"champion": 3}
    assert registry.history(NAME) == [1, 2, 3]
    assert reasons() == {3: "reason 3"}


@pytest.mark.parametrize("command", [*COMMANDS, ("registry",)], ids=lambda c: c[0])
def test_a_database_that_fails_is_no_registry_without_a_champion(
    command: tuple[str, ...], broken: None, picture: Path, fer: Fer
) -> None:
    outcome = fer(*command)
    assert outcome.exit_code == 1
    assert "no such table: registered_model_aliases" in outcome.error


class Refusing(BaseHTTPRequestHandler):
    """Answers everything in one way."""

    status, kind, body = 503, "text/html", b"<html>busy</html>"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


REFUSALS = {
    "away": (503, "text/html", b"<html>busy</html>"),
    "not there, says a proxy": (404, "text/html", b"<html>not found</html>"),
    "not there, says another server": (404, "application/json", b'{"detail": "Not Found"}'),
    "forbidden": (403, "application/json", b'{"error_code": "PERMISSION_DENIED"}'),
    "no login": (401, "text/plain", b"who are you"),
}


@pytest.fixture(params=REFUSALS)
def refusing(
    request: pytest.FixtureRequest, base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    status, kind, body = REFUSALS[request.param]
    handler = type("Handler", (Refusing,), {"status": status, "kind": kind, "body": body})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield
    server.shutdown()
    server.server_close()


VERSION = registry.Version(name=NAME, number=1, model_uri="models:/m-1", tags={})
QUESTIONS: dict[str, Callable[[], object]] = {
    "registered_models": registry.registered_models,
    "chosen_name": lambda: registry.chosen_name(NAME),
    "versions": lambda: registry.versions(NAME),
    "newest_version": lambda: registry.newest_version(NAME),
    "version": lambda: registry.version(NAME, 1),
    "history": lambda: registry.history(NAME),
    "alias_holder": lambda: registry.alias_holder(NAME, CHAMPION),
    "reference": lambda: registry.reference(NAME),
    "version_of": lambda: registry.version_of(NAME, "models:/m-1"),
    "set_alias": lambda: registry.set_alias(VERSION, CHAMPION, tags={}),
    "step_back": lambda: registry.step_back(NAME, tags={}),
    "add_version": lambda: registry.add_version(NAME, "models:/m-1", tags={}),
    "describe": lambda: registry.describe(VERSION, "x"),
    "champion": lambda: champion(None),
    "check_fits": lambda: check_fits(NAME, class_names=FER_CLASSES, image_size=48),
    "model": lambda: models.describe("models:/m-1"),
    "registered model": lambda: models.describe(f"models:/{NAME}@champion"),
    "model of a run": lambda: models.describe("runs:/abc/model"),
    "get_run": lambda: runs.get_run("abc", stages=("train",)),
    "search": lambda: runs.search("evaluate"),
    "stages_of": lambda: runs.stages_of("abc"),
    "histories": lambda: runs.histories("abc"),
    "stored_arrays": lambda: runs.stored_arrays("abc", "val/probabilities.npz"),
}


def test_no_answer_is_never_taken_for_there_is_none(refusing: None) -> None:
    told = {}
    for name, ask in QUESTIONS.items():
        with pytest.raises(FerError) as raised:
            ask()
        told[name] = type(raised.value)
    assert told == dict.fromkeys(QUESTIONS, TrackingError)


def test_epochs_of_runs_that_are_gone_are_left_out(empty: Path) -> None:
    client = MlflowClient()
    trained = client.create_run("0").info.run_id
    tuned = client.create_run("0", tags={"source_run_id": trained}).info.run_id
    for run_id, step in ((trained, 0), (tuned, 1)):
        client.log_batch(run_id, metrics=[Metric("val/loss", 1.5 - step, 0, step)])
    both = [{"epoch": 0, "val/loss": 1.5}, {"epoch": 1, "val/loss": 0.5}]
    assert runs.histories(tuned) == both
    client.delete_run(trained)
    with sqlite3.connect(empty / "mlflow.db") as database:  # as `mlflow gc` does
        for table in ("tags", "metrics", "latest_metrics", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (trained,))
    assert runs.histories(tuned) == both[1:]
    assert runs.histories(trained) == []
    with pytest.raises(RunError, match="which does not exist in sqlite:"):
        runs.get_run(trained, stages=("train",))


@pytest.mark.parametrize("name", ["bob's faces", 'the "best" faces'])
def test_names_with_quotes_are_found(name: str, empty: Path, tmp_path: Path) -> None:
    made = add(name, logged(tmp_path))
    assert [v.number for v in registry.versions(name)] == [1]
    assert registry.version_of(name, made.model_uri) is not None


def test_a_store_has_one_name_however_its_address_is_typed(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    typed = [
        "sqlite:///mlflow.db",
        "sqlite:///./mlflow.db",
        f"sqlite:///{tmp_path}/mlflow.db",
        f"sqlite:////{tmp_path}//mlflow.db?timeout=60",
        f"sqlite:///{tmp_path}/link/mlflow.db",
    ]
    assert len({store.identity(uri) for uri in typed}) == 1
    served = ["http://127.0.0.1:5000", "http://localhost:5000/", "http://me:secret@LOCALHOST:5000"]
    assert len({store.identity(uri) for uri in served}) == 1
    usual = ["http://h", "http://h/", "HTTP://H:80", "http://me:secret@h:80/"]
    assert len({store.identity(uri) for uri in usual}) == 1
    safe = ["https://h", "https://H:443/"]
    assert len({store.identity(uri) for uri in safe}) == 1
    under = ["http://h/mlflow", "http://h:80/mlflow/"]
    assert len({store.identity(uri) for uri in under}) == 1
    others = [
        "sqlite:///other.db", "http://127.0.0.1:5001", "https://127.0.0.1:5000", "http://h:443",
        "https://h:80", "http://h:8080", "http://h/MLflow", "http://[",
    ]  # fmt: skip
    each = [*others, typed[0], served[0], usual[0], safe[0], under[0]]
    assert len({store.identity(uri) for uri in each}) == len(each)


def test_decisions_wait_for_each_other_whatever_address_was_typed(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = threading.Event()

    def decide() -> None:
        with registry.one_at_a_time(NAME):
            entered.set()

    with registry.one_at_a_time(NAME):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        other = threading.Thread(target=decide)
        other.start()
        assert not entered.wait(0.5)
    other.join()
    assert entered.is_set()
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///mlflow.db"


GOOD = {
    "val/accuracy": 0.6,
    "val/macro_f1": 0.5,
    "val/log_loss": 1.2,
    "val/majority_share": 0.25,
    "val/calibration/ece": 0.1,
}


def test_no_better_than_the_majority_is_not_enough() -> None:
    constant = {**GOOD, "val/accuracy": 0.25}
    [shortfall] = registry.shortfalls(constant, Thresholds(min_recall=0))
    assert shortfall == "val/accuracy 0.2500 is not above the majority class's share 0.2500"
    assert registry.shortfalls({**GOOD, "val/accuracy": 0.2501}, Thresholds()) == []


@pytest.mark.parametrize(
    ("metric", "candidate", "champion", "margin", "passes"),
    [
        ("val/macro_f1", 0.5, 0.5, 0.0, False),
        ("val/macro_f1", 0.500001, 0.5, 0.0, True),
        ("val/macro_f1", 0.5, 0.500001, 0.0, False),
        ("val/macro_f1", 0.351, 0.35, 0.001, True),
        ("val/macro_f1", 0.3509, 0.35, 0.001, False),
        ("val/macro_f1", 0.3, 0.2, 0.1, True),
        ("val/log_loss", 1.2, 1.2, 0.0, False),
        ("val/log_loss", 1.199, 1.2, 0.0, True),
        ("val/log_loss", 1.198, 1.2, 0.002, True),
        ("val/log_loss", 1.201, 1.2, 0.0, False),
    ],
)
def test_the_margin_is_asked_of_the_scores_themselves(
    metric: str, candidate: float, champion: float, margin: float, passes: bool
) -> None:
    better = -1.0 if metric == "val/log_loss" else 1.0
    sure = Difference(value=better, low=min(better, better / 2), high=max(better, better / 2), p=0)
    refusals = registry.promotion_refusals(
        metric,
        candidate={**GOOD, metric: candidate},
        champion={**GOOD, metric: champion},
        difference=sure,
        thresholds=Thresholds(min_improvement=margin),
    )
    assert (refusals == []) is passes, refusals
