"""One process at a time, on this machine, for what a store cannot do twice at once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


@contextmanager
def lock(purpose: str) -> Iterator[None]:
    """Waits until no other process on this machine is here for the same purpose."""
    name = hashlib.sha256(purpose.encode()).hexdigest()[:16]
    with filelock.FileLock(Path(tempfile.gettempdir()) / f"fer_experiments-{name}.lock"):
        yield
