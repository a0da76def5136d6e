"""No test of the stages looks at what figures show; tests/evaluation does."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def nothing_is_painted(unpainted: None) -> None:
    """See `unpainted`."""
