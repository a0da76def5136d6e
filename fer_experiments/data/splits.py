"""Which image is train, val or test."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
from sklearn.model_selection import train_test_split

from fer_experiments.config import DataConfig
from fer_experiments.data.audit import leaks, pixel_groups
from fer_experiments.data.images import LabelledImages
from fer_experiments.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")


def assign(data: LabelledImages, config: DataConfig) -> np.ndarray:
    """The split of each image, (N,) of "train", "val", "test", or "" where `limit` drops it.

    Raises:
        DataError: the source does not have what the split policy needs.
        ConfigError: `limit` is below the number of classes.
    """
    splits = official(data) if config.split == "official" else holdout(data, config)
    if config.limit is not None:
        splits = limited(splits, data.labels, config.limit, config.data_seed)
    for needed in ("train", "val"):
        if not (splits == needed).any():
            raise DataError(
                f"Expected images in {needed} with split={config.split}. Found: none; "
                "split=holdout makes val from the training images"
            )
    return splits


def official(data: LabelledImages) -> np.ndarray:
    """PublicTest is val, PrivateTest is test, told apart by the files' names."""
    splits = np.full(len(data.ids), "train", dtype="U5")
    for i in np.flatnonzero(data.parts == "test"):
        name = PurePosixPath(data.ids[i]).name
        if name.startswith("PublicTest"):
            splits[i] = "val"
        elif name.startswith("PrivateTest"):
            splits[i] = "test"
        else:
            raise DataError(
                "Expected test files named PublicTest_… or PrivateTest_… with split=official. "
                f"Received: {data.ids[i]}; pass split=holdout"
            )
    if not (data.parts == "test").any():
        raise DataError(
            "Expected a test folder with files PublicTest_… for split=official. "
            "Found: none; pass split=holdout"
        )
    return splits


def holdout(data: LabelledImages, config: DataConfig) -> np.ndarray:
    """A stratified share of train becomes val; images with the same pixels stay together."""
    splits = data.parts.astype("U5")
    train = np.flatnonzero(splits == "train")
    _, first, group = np.unique(
        pixel_groups(data.images[train]), return_index=True, return_inverse=True
    )
    try:
        _, chosen = train_test_split(
            np.arange(len(first)),
            test_size=config.val_fraction,
            stratify=data.labels[train][first],
            random_state=config.data_seed,
        )
    except ValueError:
        smallest = np.bincount(data.labels[train][first]).argmin()
        raise DataError(
            "Expected enough different images of each class to make val with "
            f"val_fraction={config.val_fraction}. Received: {len(first)} in all, fewest of "
            f"{data.class_names[smallest]}"
        ) from None
    splits[train[np.isin(group, chosen)]] = "val"
    return splits


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
    return quotas
