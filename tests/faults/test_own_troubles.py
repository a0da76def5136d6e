"""The fault harness tells what is wrong with itself from what is wrong with the suite."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.results import NotTried
from tests.faults.servers import MlflowServer

from ..conftest import ROOT, process_environment

# Stands before the real one on the path, so that the harness's server ends at once.
NO_SERVER = "import sys\nsys.exit('no server today')\n"


@pytest.mark.slow
def test_a_server_that_does_not_start_says_so_in_a_line(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path, "nonsense://nowhere")
    with pytest.raises(NotTried, match="our own mlflow server ended with") as raised:
        server.start()
    assert "\n" not in str(raised.value)
    # It comes from a process of the pool.
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.slow
def test_what_the_harness_could_not_try_is_not_called_lost(tmp_path: Path) -> None:
    stub = tmp_path / "stub" / "mlflow"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("")
    (stub / "__main__.py").write_text(NO_SERVER)
    before = report.read(report.QUICK_ROWS)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--quick", "--only", "outage_sqlite"],
        cwd=ROOT,
        env=process_environment(TMPDIR=str(tmp_path), PYTHONPATH=f"{stub.parent}:{ROOT}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stdout + done.stderr
    assert "not survived" not in done.stdout + done.stderr
    assert "outage_sqlite: not tried: our own mlflow server ended with 1" in done.stdout
    assert "no server today" in done.stdout
    assert done.stderr.splitlines()[-1] == "not tried: outage_sqlite; run them again"
    assert report.read(report.QUICK_ROWS) == before
