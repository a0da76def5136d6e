"""register where the registry is not as it was left: the champion is gone, or the server away."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.faults.servers import MlflowServer

from ..conftest import Fer
from .designed import log_designed, write_images

NAME = "emotion-gone"
REGISTER = ("register", "--model-name", NAME)
Evaluated = Callable[[int, float], str]


@pytest.fixture
def evaluated(fresh_store: Path, tmp_path: Path, fer: Fer) -> Evaluated:
    """Logs and evaluates, by number: a model that is right on 50 %, and one on 75 %."""
    dataset = write_images(tmp_path / "faces", [0.5, 0.75])

    def model(row: int, confidence: float) -> str:
        run_id = log_designed(dataset, row, confidence=confidence)
        assert fer("evaluate", "--run-id", run_id).exit_code == 0
        return str(MlflowClient().get_run(run_id).data.tags["model_uri"])

    return model


def state() -> tuple[dict[str, int], dict[int, tuple[str, dict[str, str]]]]:
    """The aliases, and each version's model and tags."""
    client = MlflowClient()
    aliases = client.get_registered_model(NAME).aliases
    versions = client.search_model_versions(f"name = '{NAME}'")
    return (
        {alias: int(number) for alias, number in aliases.items()},
        {int(v.version): (v.source, dict(v.tags)) for v in versions},
    )


def test_after_the_champion_was_deleted_the_one_before_it_is_to_be_beaten(
    evaluated: Evaluated, fer: Fer
) -> None:
    weak = evaluated(0, 0.5)
    assert "the first version" in fer(*REGISTER).out
    strong = evaluated(1, 0.75)
    # A margin of 0 is a margin, too.
    assert "better than version 1" in fer(*REGISTER, "--min-improvement", "0").out
    assert state()[0] == {"champion": 2}
    MlflowClient().delete_model_version(NAME, "2")

    outcome = fer(*REGISTER, "--min-improvement", "0.9")
    assert outcome.exit_code == 0, outcome.err
    assert "is not better than the champion's" in outcome.out
    assert f"next   fer promote --version 3 --model-name {NAME}\n" in outcome.out
    aliases, versions = state()
    assert aliases == {"challenger": 3}
    assert {number: uri for number, (uri, _) in versions.items()} == {1: weak, 3: strong}

    reason = "there is no champion (version 2 was deleted); version 1 is the newest"
    outcome = fer(*REGISTER)
    assert "better than version 1" in outcome.out
    assert reason in outcome.out
    aliases, versions = state()
    assert aliases == {"champion": 3}
    assert reason in versions[3][1]["decision_reason"]
    assert f"next   fer predict --model-name {NAME} photo.jpg" in outcome.out

    # The alias alone is gone: the model itself is the one to beat, and gets it back.
    MlflowClient().delete_registered_model_alias(NAME, "champion")
    outcome = fer(*REGISTER)
    assert "champion again: there is no champion (the alias was removed in MLflow)" in outcome.out
    assert state()[0] == {"champion": 3}


class Proxy:
    """Passes everything on to a server, but answers 503 for some of it."""

    def __init__(self, target: str) -> None:
        self.refused = ""  # part of a path
        self.asked: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                proxy.asked.append(path)
                status, kind, answer = 503, "text/html", b"<html>Service Unavailable</html>"
                if not proxy.refused or not path.endswith(proxy.refused):
                    kinds = {k: v for k in ("Content-Type",) if (v := self.headers.get(k))}
                    request = urllib.request.Request(
                        target + self.path, body or None, kinds, method=self.command
                    )
                    try:
                        with urllib.request.urlopen(request) as found:
                            status, answer = found.status, found.read()
                    except urllib.error.HTTPError as error:
                        status, answer = error.code, error.read()
                    kind = "application/json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def proxy(evaluated: Evaluated, fresh_store: Path) -> Iterator[Proxy]:
    """Stands before an MLflow server over the same database."""
    (fresh_store / "server").mkdir()
    server = MlflowServer(fresh_store / "server", f"sqlite:///{fresh_store}/mlflow.db")
    server.start()
    proxy = Proxy(server.uri)
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()
    server.kill()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_no_registry_without_a_champion(
    evaluated: Evaluated, proxy: Proxy, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(0, 0.5)
    assert fer(*REGISTER).exit_code == 0
    evaluated(1, 0.75)
    before = state()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    local = "sqlite:///" + str(Path("mlflow.db").absolute())
    strict = (*REGISTER, "--min-improvement", "0.9")
    for refused in (
        "registered-models/get",
        "model-versions/get",
        "model-versions/search",
        "runs/search",
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        proxy.refused, proxy.asked = refused, []
        outcome = fer(*strict)
        assert outcome.exit_code == 1, (refused, outcome)
        assert f"The MLflow store {proxy.uri} cannot be used" in outcome.err
        assert "Traceback" not in outcome.err
        assert any(path.endswith(refused) for path in proxy.asked)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", local)
        assert state() == before, refused

    # What cannot be written moves nothing either.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    proxy.refused = "registered-models/alias"
    assert fer(*strict).exit_code == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local)
    assert state()[0] == {"champion": 1}
    assert "version 1 is champion: the first version" in fer("registry").out

    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    proxy.refused = ""
    assert "is not better than the champion's" in fer(*strict).out
    assert state()[0] == {"champion": 1, "challenger": 2}
    assert json.loads(state()[1][2][1]["decision_numbers"])["min_improvement"] == 0.9
