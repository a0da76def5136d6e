"""Which image is train, val or test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from sklearn.model_selection import train_test_split

from fer_experiments.config import DataConfig
from fer_experiments.data import layout
from fer_experiments.data.audit import leaks, pixel_groups
from fer_experiments.data.dataset import SPLITS
from fer_experiments.data.images import LabelledImages
from fer_experiments.errors import ConfigError, DataError, quote


def resolve(split: str, images: Iterable[tuple[str, str]]) -> str:
    """The split policy: what `auto` means for images of these parts and paths, never `auto`."""
    return layout.policy(images) if split == "auto" else split


def assign(data: LabelledImages, config: DataConfig) -> np.ndarray:
    """The split of each image, (N,) of "train", "val", "test", or "" where `limit` drops it.

    Raises:
        DataError: the source does not have what the split policy needs.
        ConfigError: `limit` is below the number of classes.
    """
    return _assign(
        data.parts,
        data.ids,
        data.labels,
        data.class_names,
        config,
        lambda chosen: pixel_groups(data.images[chosen]),
    )


def expected(reading: layout.Reading, config: DataConfig) -> np.ndarray:
    """What `assign` will come to for the images of a reading, undecoded: every one is taken for
    readable and unlike all others.

    Raises:
        DataError, ConfigError: as `assign`.
    """
    names = reading.class_names
    return _assign(
        np.array([file.part for file in reading.files]),
        [file.path for file in reading.files],
        np.array([names.index(file.label) for file in reading.files]),
        names,
        config,
        lambda chosen: chosen,
    )


def _assign(
    parts: np.ndarray,
    ids: Sequence[str],
    labels: np.ndarray,
    class_names: Sequence[str],
    config: DataConfig,
    copies: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """`copies` gives indices of images (N,) the same number where the pixels are the same."""
    split = resolve(config.split, zip(parts, ids, strict=True))
    if split == "official":
        splits = official(parts, ids)
    else:
        splits = parts.astype("U5")
        if split == "given" and (splits == "train").all():
            raise DataError(
                "Expected val or test folders with split=given. Found: none; pass split=holdout"
            )
        if not (splits == "val").any():
            train = np.flatnonzero(splits == "train")
            drawn = _draw_val(copies(train), labels[train], class_names, config)
            splits[train[drawn]] = "val"
    if config.limit is not None:
        splits = limited(splits, labels, config.limit, config.data_seed)
    for needed in ("train", "val"):
        if not (splits == needed).any():
            raise DataError(
                f"Expected images in {needed} with split={split}. Found: none; "
                "split=holdout makes val from the training images"
            )
    return splits


def official(parts: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """PublicTest is val, PrivateTest is test, told apart by the names of files or folders."""
    splits = np.full(len(ids), "train", dtype="U5")
    held_out = np.flatnonzero(parts != "train")
    for i in map(int, held_out):
        said = layout.USAGES.get(layout.usage(ids[i]) or "")
        if said not in ("val", "test") or (parts[i] == "val" and said == "test"):
            raise DataError(
                "Expected test files named PublicTest_… or PrivateTest_… with split=official. "
                f"Received: {quote(ids[i], 200)}; pass split=given"
            )
        splits[i] = said
    if not len(held_out):
        raise DataError(
            "Expected a test folder with files PublicTest_… for split=official. "
            "Found: none; pass split=holdout"
        )
    return splits


def _draw_val(
    groups: np.ndarray, labels: np.ndarray, class_names: Sequence[str], config: DataConfig
) -> np.ndarray:
    """(N,) bool: a stratified share of the training images; images of one group stay together."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    try:
        _, chosen = train_test_split(
            np.arange(len(first)),
            test_size=config.val_fraction,
            stratify=labels[first],
            random_state=config.data_seed,
        )
    except ValueError:
        counts = np.bincount(labels[first], minlength=len(class_names))
        raise DataError(
            "Expected enough different images of each class to make val with "
            f"val_fraction={config.val_fraction}. Received: {len(first)} in all, fewest of "
            f"{class_names[int(counts.argmin())]}"
        ) from None
    return np.isin(group, chosen)


def without_leaks(splits: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The splits with "" for training images that also stand, pixel by pixel, in val or test.

    Raises:
        DataError: that leaves no training image.
    """
    kept = np.where(leaks(images, splits), "", splits)
    if not (kept == "train").any():
        raise DataError(
            "Expected training images that are not also in val or test, with leaks=drop. "
            "Found: none; pass leaks=keep"
        )
    return kept


def limited(splits: np.ndarray, labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Keeps `limit` images of each split, classes in proportion and none of them lost."""
    classes = np.unique(labels).size
    if limit < classes:
        raise ConfigError(
            f"Expected limit to be at least {classes}, one image a class. Received: limit={limit}"
        )
    kept = np.full_like(splits, "")
    rng = np.random.default_rng(seed)
    for split in SPLITS:
        members = rng.permutation(np.flatnonzero(splits == split))
        counts = np.bincount(labels[members], minlength=classes)
        for label, quota in enumerate(_quotas(counts, limit)):
            kept[members[labels[members] == label][:quota]] = split
    return kept


def _quotas(counts: np.ndarray, limit: int) -> np.ndarray:
    """`limit` shared out in proportion to `counts`, at least one wherever there is any."""
    if counts.sum() <= limit:
        return counts
    share = counts * limit / counts.sum()
    quotas = np.maximum(np.floor(share).astype(int), (counts > 0).astype(int))
    # The largest remainder gains what rounding down lost; the largest class pays for the minimum.
    while quotas.sum() != limit:
        step = 1 if quotas.sum() < limit else -1
        gap = np.where(quotas < counts, share - quotas, -np.inf) if step > 0 else quotas - share
        gap = gap if step > 0 else np.where(quotas > 1, gap, -np.inf)
        quotas[int(np.argmax(gap))] += step
    return np.asarray(quotas)
