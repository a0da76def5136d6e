"""The recorded measurements are whole, and README tells them as they are."""

import json
from pathlib import Path

import pytest

from benchmarks.recipes import tables

from .conftest import ROOT

RESULTS = Path(ROOT, "benchmarks", "results.json")
NAMES = {
    *(
        f"{row}_{backbone}"
        for row in (
            "head", "head_views4", "head_cached", "finetune", "recipe",
            "extract", "predict", "whole",
        )
        for backbone in ("vgg16", "resnet50")
    ),
    "prepare", "startup_help", "startup_error", "memory_10x", "growth",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(RESULTS.read_text())}


def test_what_was_measured_is_known_and_whole(rows: dict[str, dict[str, object]]) -> None:
    assert set(rows) == NAMES
    for row in rows.values():
        assert list(row) == ["name", "ours", "reference", "ratio", "unit", "note"]
        assert row["ours"] > 0
        assert row["ratio"] > 0


def test_readme_tells_the_ratios_that_were_measured(rows: dict[str, dict[str, object]]) -> None:
    readme = (ROOT / "README.md").read_text()
    for name, row in rows.items():
        assert f"| `{name}` | {row['ratio']:.3g} |" in readme


def test_the_accuracy_page_tells_the_runs_that_were_made() -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text()
    for table in tables().values():
        assert table in page
