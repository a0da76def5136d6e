"""Jobs whose server goes away or whose disk is full: a few moments of `make faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import disks, outages


@pytest.mark.slow
def test_nothing_is_lost_while_the_server_is_away(tmp_path: Path) -> None:
    result = outages.sqlite(tmp_path, quick=True, moments=1)
    assert (result.tried, result.survived) == (1, 1), result.note


@pytest.mark.slow
def test_nothing_is_lost_on_a_full_disk(tmp_path: Path) -> None:
    result = disks.run(tmp_path, quick=True, moments=1)
    if not result.tried:
        pytest.skip(result.note)
    assert (result.tried, result.survived) == (1, 1), result.note
