"""What is wrong with the images: duplicates, leaks between splits, conflicting labels, blanks."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def pixel_groups(images: np.ndarray) -> np.ndarray:
    """A number for each of the images (N, H, W), the same for images with the same pixels."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    return np.unique(np.array(digests, dtype="S16"), return_inverse=True)[1]


def audit(images: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> dict[str, Any]:
    """Counts of what a reader of the scores should know.

    Args:
        images: uint8, (N, H, W).
        labels: int, (N,).
        splits: (N,) of "train", "val", "test".

    Returns:
        duplicate_groups, duplicate_images: sets of images with the same pixels, and how many
        images stand in one; cross_split_groups: sets that reach over splits;
        `<split>_in_train`: images of that split that also stand in train; conflicting_groups:
        sets with more than one label; blank_images: images of one single grey, per split.
    """
    group = pixel_groups(images)
    sizes = np.bincount(group)
    in_split = {
        name: np.bincount(group[splits == name], minlength=len(sizes)) > 0
        for name in ("train", "val", "test")
    }
    pairs = np.unique(np.stack([group, labels]), axis=1)
    flat = images.reshape(len(images), -1)
    blank = flat.min(axis=1) == flat.max(axis=1)
    return {
        "duplicate_groups": int((sizes > 1).sum()),
        "duplicate_images": int(sizes[sizes > 1].sum()),
        "cross_split_groups": int((np.sum(list(in_split.values()), axis=0) > 1).sum()),
        "val_in_train": int(in_split["train"][group[splits == "val"]].sum()),
        "test_in_train": int(in_split["train"][group[splits == "test"]].sum()),
        "conflicting_groups": int((np.bincount(pairs[0]) > 1).sum()),
        "blank_images": {name: int(blank[splits == name].sum()) for name in in_split},
    }
