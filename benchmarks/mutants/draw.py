"""Which changes are tried: a sample of all, drawn by a seed, each file by its share of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.mutants.areas import AREAS, Area
from benchmarks.mutants.changes import Change, File


def draw(
    root: Path, number: int, seed: int, areas: Sequence[Area] = AREAS
) -> dict[str, list[Change]]:
    """The changes by area; every file has at least two."""
    known = _files(root, areas)
    quotas = _quotas(np.array([len(file) for _, file in known.values()]), number)
    drawn: dict[str, list[Change]] = {area.name: [] for area in areas}
    for (name, (area, file)), quota in zip(known.items(), quotas, strict=True):
        chosen = random.Random(f"{seed} {name}").sample(range(len(file)), int(quota))
        drawn[area] += file.changes(set(chosen))
    return drawn


def count(root: Path, areas: Sequence[Area] = AREAS) -> int:
    """All changes that there are to draw from."""
    return sum(len(file) for _, file in _files(root, areas).values())


def _files(root: Path, areas: Sequence[Area]) -> dict[str, tuple[str, File]]:
    """Each file by its path, with its area."""
    paths = {f"fer_experiments/{name}": area.name for area in areas for name in area.files}
    return {path: (area, File(root, path)) for path, area in paths.items()}


def _quotas(counts: np.ndarray, number: int) -> np.ndarray:
    """`number` shared out in proportion, at least two each; the largest remainders get the rest."""
    shares = counts * number / counts.sum()
    quotas = np.maximum(np.floor(shares), 2)
    for i in np.argsort(quotas - shares):
        if quotas.sum() < number:
            quotas[i] += 1
    while quotas.sum() > number:
        quotas[np.argmax(quotas - shares)] -= 1
    return np.minimum(quotas, counts).astype(int)
