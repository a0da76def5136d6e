"""Random moments that are the same every time, and what came of each."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.faults.results import Result

# Another seed draws other moments: FAULTS_SEED=1 make faults
SEED = int(os.environ.get("FAULTS_SEED", "0"))


def generator(name: str) -> np.random.Generator:
    """Random numbers for one fault."""
    print(f"{name}: seed {SEED}", flush=True)
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


@dataclass(kw_only=True)
class Tally:
    """Counts moments, tells of each as it ends, and makes the row of them all."""

    name: str
    planned: int
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def add(self, what: str, problems: Sequence[str]) -> None:
        """One moment: what was done, and what was wrong afterwards."""
        self.tried += 1
        now = time.monotonic()
        verdict = "nothing lost" if not problems else "LOST: " + "; ".join(problems[:5])
        print(
            f"  {self.name} {self.tried}/{self.planned}: {what}: {verdict} "
            f"({now - self._started:.0f} s)",
            flush=True,
        )
        self._started = now
        if problems:
            self.failures.append(f"{what}: {problems[0]}")

    def result(self, note: str) -> Result:
        """The row; what went wrong stands in its note."""
        if self.failures:
            note += ". Lost: " + " | ".join(failure[:200] for failure in self.failures[:3])
        return Result(
            name=self.name,
            tried=self.tried,
            survived=self.tried - len(self.failures),
            note=note,
        )
