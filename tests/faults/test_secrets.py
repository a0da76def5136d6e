"""No password, token or key stands in what is printed or written."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_experiments.errors import DataError
from fer_experiments.secrets import holds_secret, redact
from tests.faults import files, secrets

from ..conftest import Fer

PASSWORD = "s3cr3t-Qx7Zk"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:{}@host/x", "https://host/x"),
        ("https://{}@github.com/x.git", "https://github.com/x.git"),
        ("postgresql://me:a/{}@host:5432/db", "postgresql://host:5432/db"),
        ("https://me:a@{}@host/x", "https://host/x"),
        ("https://h/x?token={}&page=2", "https://h/x?token=[secret]&page=2"),
        ("https://h/x?sv=1&sig={}", "https://h/x?sv=1&sig=[secret]"),
        ("https://h/x?X-Amz-Signature={}", "https://h/x?X-Amz-Signature=[secret]"),
        ("AccountName=me;AccountKey={}", "AccountName=me;AccountKey=[secret]"),
        ("password='{} and more'", "password=[secret]"),
        ('{{"api_key": "{}", "key": 1}}', '{{"api_key": "[secret]", "key": 1}}'),
        ("Authorization: Basic {}", "Authorization: Basic [secret]"),
        ("bearer {}", "bearer [secret]"),
        ("a, ghp_0123456789abcdefghij, b", "a, [secret], b"),
        ("a AKIA0123456789ABCDEF b", "a [secret] b"),
    ],
)
def test_secrets_are_known_by_their_form(text: str, left: str) -> None:
    redacted = redact(text.format(PASSWORD))
    assert redacted == left.format()
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "models:/emotion-fer2013@champion",
        "http://127.0.0.1:5000/#/models/emotion-fer2013@champion",
        "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=fer_experiments-1.0-compare",
        "sqlite:////home/me/mlflow.db",
        "learning_rate=0.001, keep_epoch=best",
        "vgg16:block3_pool,resnet50:conv4_block6_out",
        "/data/faces@home/train",
        '{"source_key": "0123", "fingerprint": "4567"}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert not holds_secret(text)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("KAGGLE_KEY", True),
        ("MLFLOW_TRACKING_PASSWORD", True),
        ("PGPASSWORD", True),
        ("GOOGLE_CREDENTIALS", True),
        ("MYSQL_PWD", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("KEYBOARD_LAYOUT", False),
        ("OLDPWD", False),
        ("HOSTNAME", False),
    ],
)
def test_secrets_are_known_by_the_variable_that_holds_them(
    name: str, secret: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, PASSWORD)
    assert (PASSWORD not in redact(f"could not log in with {PASSWORD}")) == secret


def test_a_short_value_and_the_name_of_a_file_are_no_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "face")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    assert redact(f"a face in {tmp_path}") == f"a face in {tmp_path}"


@pytest.mark.parametrize("spelled", [str, json.dumps, repr, quote, quote_plus])
def test_every_spelling_of_a_value_is_found(
    spelled: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = 'ab"cd\\ef/gü h'
    monkeypatch.setenv("MY_TOKEN", value)
    assert "cd" not in redact(f"said {spelled(value)}")


def test_the_password_of_a_uri_is_found_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{PASSWORD}%21@host/db")
    assert redact(f"no access with {PASSWORD}! to db") == "no access with [secret] to db"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (".kaggle/kaggle.json", '{"username":"me","key":"%s"}'),
        (".kaggle/access_token", "%s\n"),
        (".mlflow/credentials", "[mlflow]\nmlflow_tracking_password = %s\n"),
        (".aws/credentials", "[default]\naws_secret_access_key=%s\n"),
        (".netrc", "machine h login me password %s\n"),
    ],
)
def test_secrets_are_known_from_files(
    path: str, content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PASSWORD in redact(f"said {PASSWORD}")
    files.write(tmp_path, {path: (content % PASSWORD).encode()})
    assert redact(f"said {PASSWORD}") == "said [secret]"


def test_variables_that_come_and_go_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"FER_COMES_AND_GOES_{i}" for i in range(50)]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for name in names:
                os.environ[name] = "x"
            for name in names:
                del os.environ[name]

    monkeypatch.setenv("MY_TOKEN", PASSWORD)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(1000):
            assert redact(f"said {PASSWORD}") == "said [secret]"
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(before=st.text(max_size=30), after=st.text(max_size=30), user=st.text("abc.%-", max_size=8))
def test_a_password_in_any_surroundings(before: str, after: str, user: str) -> None:
    text = redact(f"{before} https://{user}:{PASSWORD}@host/{after}")
    assert PASSWORD not in text
    assert redact(text) == text


@settings(
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(text=st.text())
def test_an_error_is_one_visible_line(text: str) -> None:
    line = str(DataError(text))
    assert line.isprintable()
    assert line == line.strip()


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "--dataset"),
        ("train", "--recipe", "demo", "--weights"),
        ("evaluate", "--model"),
        ("prepare", "--recipe", "demo", "--experiment"),
        ("predict",),
        ("finetune", "--run-id"),
        ("train", "--truncate-at"),
        ("register", "--metric"),
    ],
    ids=" ".join,
)
def test_a_secret_in_an_option_is_refused_and_not_shown(
    arguments: tuple[str, ...], fer: Fer, fresh_store: Path
) -> None:
    outcome = fer(*arguments, f"https://me:{PASSWORD}@host/data.zip")
    assert outcome.exit_code == 2
    assert PASSWORD not in outcome.error
    assert list(fresh_store.iterdir()) == []


def test_a_secret_in_a_failed_runs_reason(fer: Fer, fresh_store: Path) -> None:
    files.write(fresh_store / "faces", {**files.faces(), f"a/token={PASSWORD}.png": b"no image"})
    outcome = fer("prepare", "--dataset", "faces", "--split", "holdout")
    assert outcome.exit_code == 1
    assert "a/token=[secret]" in outcome.error
    written = [path for path in fresh_store.rglob("*") if path.is_file()]
    for path in written:
        if "faces" not in path.parts:
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("command", [("prepare", "--recipe", "demo"), ("compare",), ("doctor",)])
def test_a_password_of_the_store(
    command: tuple[str, ...], fer: Fer, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PASSWORD}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outcome = fer(*command)
    assert "127.0.0.1:9" in outcome.out + outcome.err
    assert PASSWORD not in outcome.out + outcome.err


def test_a_traceback_that_was_asked_for(
    fer: Fer, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", f"{fresh_store}/x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"nonsense://me:{PASSWORD}@host")
    outcome = fer("--verbose", "prepare", "--recipe", "demo")
    assert outcome.exit_code == 1
    assert PASSWORD not in outcome.out + outcome.err


@pytest.mark.slow
def test_planted_secrets(tmp_path: Path) -> None:
    result = secrets.run(tmp_path, quick=False)
    assert result.tried >= 20
    assert result.survived == result.tried, result.note
