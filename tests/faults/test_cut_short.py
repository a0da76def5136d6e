"""Jobs that are killed or told to end are resumed, and lose nothing: moments of `make faults`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import signals
from tests.faults.results import Result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that a job runs undisturbed once for all of them."""
    return tmp_path_factory.mktemp("faults")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signals.kill9, signals.sigterm])
def test_nothing_is_lost(fault: Callable[..., Result], folder: Path) -> None:
    result = fault(folder, quick=True, moments=1)
    assert (result.tried, result.survived) == (1, 1), result.note
