"""What came out of a fault."""

from __future__ import annotations

from dataclasses import dataclass


class NotTried(Exception):
    """A trouble of the harness's own, such as a server that does not start.

    It says nothing of the suite.
    """


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row of the table."""

    name: str
    tried: int
    survived: int
    note: str
