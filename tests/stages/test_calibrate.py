"""`calibrate` on models of which it is known what their temperature must be."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from ..conftest import Fer
from .designed import log_designed, write_images


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "end", "meaning"),
    [(1.0, "0.05", "names every val image right"), (0.0, "20", "worth no more than even ones")],
)
def test_a_temperature_at_an_end_of_its_range_says_so(
    right: float, end: str, meaning: str, fresh_store: Path, tmp_path: Path, fer: Fer
) -> None:
    data = write_images(tmp_path / "faces", [right])
    outcome = fer("calibrate", "--run-id", log_designed(data, 0, confidence=0.8))
    assert outcome.exit_code == 0, outcome.err
    assert outcome.out.count("end of its range") == 1, outcome.out
    (line,) = (x for x in outcome.out.splitlines() if "end of its range" in x)
    assert f"end of its range ({end})" in line
    assert meaning in line
    run = MlflowClient().get_run(outcome.out.split("run    ")[1].split()[0])
    assert line in run.data.tags["mlflow.note.content"]


def test_a_temperature_within_its_range_says_nothing(
    fresh_store: Path, tmp_path: Path, fer: Fer
) -> None:
    data = write_images(tmp_path / "faces", [0.6])
    outcome = fer("calibrate", "--run-id", log_designed(data, 0, confidence=0.9))
    assert outcome.exit_code == 0, outcome.err
    assert "end of its range" not in outcome.out
