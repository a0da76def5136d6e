"""Findings in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CONSTANT = (
    "every image is given the same class, so the network has learnt nothing of the images. Likely "
    "causes: a learning rate that is too large, input_scaling that does not fit the weights, "
    "features far from 0 without head_batchnorm, or weights=none on few images"
)


def top_confusions(confusion: np.ndarray, class_names: Sequence[str], limit: int = 5) -> list[str]:
    """The most frequent mistakes, such as "fear taken for sad: 112 of 496 (23 %)".

    Args:
        confusion: int, (C, C), a row per true and a column per predicted class.
        class_names: C names in label order.
        limit: how many sentences at most; cells without images give none.

    Returns:
        Most images first; of equal numbers, the larger share of the true class first.
    """
    found = []
    for i, row in enumerate(confusion):
        support = int(row.sum())
        for j, images in enumerate(row):
            if i != j and images:
                text = f"{class_names[i]} taken for {class_names[j]}: {images:,} of {support:,}"
                share = images / support
                found.append((-int(images), -share, f"{text} ({100 * share:.0f} %)"))
    return [text for _, _, text in sorted(found, key=lambda entry: entry[:2])[:limit]]
