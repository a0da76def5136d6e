"""The simulation behind `make faults`' row of verdicts: its models are what they are said to be."""

from pathlib import Path

import numpy as np
import pytest

from fer_experiments.scores import scores_of
from tests.faults import verdicts
from tests.faults.verdicts import SUPPORT, TYPICAL, Share, better, draw, otherwise


def test_models_answer_as_their_tables_say_and_err_together() -> None:
    labels = np.repeat(np.arange(7), 30_000)
    tables = [TYPICAL, TYPICAL, better(0.4)]
    said = draw(np.random.default_rng(0), tables, labels)
    np.testing.assert_allclose(said.sum(axis=2), 1)
    named = said.argmax(axis=2)
    for model, table in zip(named, tables, strict=True):
        shares = np.histogram2d(labels, model, bins=7)[0] / 30_000
        np.testing.assert_allclose(shares, table / table.sum(axis=1, keepdims=True), atol=0.01)
    assert 0.7 < (named[0] == named[1]).mean() < 0.85


@pytest.mark.parametrize("images", SUPPORT)
def test_unlike_models_are_equally_good_in_macro_f1_alone(images: int) -> None:
    support = SUPPORT[images][:, None]
    one, other = (
        scores_of(support * table / table.sum(axis=1, keepdims=True))
        for table in (TYPICAL, otherwise(SUPPORT[images]))
    )
    assert one["macro_f1"] == pytest.approx(other["macro_f1"], abs=1e-9)
    assert one["accuracy"] > other["accuracy"] + 0.01


def test_a_share_is_a_fault_where_chance_cannot_explain_it() -> None:
    assert not Share(what="x", hits=7, tried=100, at_most=0.05).problems
    assert Share(what="x", hits=16, tried=100, at_most=0.05).problems == ["expected 0 to 5 %"]
    assert not Share(what="x", hits=92, tried=100, at_least=0.95).problems
    assert Share(what="x", hits=80, tried=100, at_least=0.95).problems == ["expected 95 to 100 %"]


@pytest.mark.slow
def test_every_share_is_as_it_may_be(tmp_path: Path) -> None:
    row = verdicts.run(tmp_path, quick=True)
    assert (row.tried, row.survived) == (70, 70), row.note
    assert "an equally good champion replaced in" in row.note
