"""What came out of a fault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row of the table."""

    name: str
    tried: int
    survived: int
    note: str
