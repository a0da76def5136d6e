"""What a phase trains on: features from the cache where layers are frozen, images otherwise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments import console
from fer_experiments.config import AugmentationConfig, Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.errors import DiskFullError

if TYPE_CHECKING:
    import keras

    from fer_experiments.models.features.extraction import Features
    from fer_experiments.training.batches import Arrays
    from fer_experiments.training.phases import TrainingData

# Features for a later stage are written along if they take no more than this.
_MOST_BYTES_ALONG = 5 * 10**9


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A network and what it takes; training it trains the classifier, for they share layers."""

    model: keras.Model
    train: Sequence[Arrays]  # by augmented copy, then by input of the network
    val: Sequence[Arrays]
    augmentation: str  # what happens to training images, in words
    augment: Callable[[bool], None] | None = None  # switches what happens to them on and off
    features_seconds: float = 0.0

    def data(self, prepared: PreparedDataset) -> TrainingData:
        """With the labels of the images."""
        from fer_experiments.training.phases import TrainingData

        return TrainingData(
            train=self.train,
            val=self.val,
            train_labels=prepared.split("train")[1],
            val_labels=prepared.split("val")[1],
            classes=len(prepared.class_names),
            augment=self.augment,
        )


def of_phase(
    model: keras.Model,
    config: Config,
    prepared: PreparedDataset,
    *,
    later: Collection[str] = (),
) -> Inputs:
    """Decides between features and images, and says so.

    Args:
        model: a classifier with its layers frozen and unfrozen as this phase wants them.
        config: the configuration; `cache=off` means images.
        prepared: the data.
        later: names of the layers that a later stage will train too.
    """
    from fer_experiments.models import truncation
    from fer_experiments.models.features import extraction

    if not config.features.cache:
        return _images(model, config.augmentation, config, prepared)
    now = truncation.training_layers(model)
    points = truncation.points(model, now)
    if not truncation.feature_extractor(model, points).weights:
        console.say("nothing is frozen: every epoch runs the whole network, cache is not used")
        return _images(model, config.augmentation, config, prepared)
    along = truncation.points(model, now.union(later)) if later else ()
    if along and not _worth_keeping(model, along, config, prepared):
        along = ()
    for also in dict.fromkeys([along, ()]):
        try:
            found = extraction.obtain(model, prepared, config, points=points, also=also)
        except DiskFullError as error:
            console.warn(f"{error}. Training continues without what does not fit")
        else:
            return _features(model, points, found, config)
    augmentation = config.augmentation
    if config.features.augmented_copies == 0:
        augmentation = AugmentationConfig(rotation=0, shift=0, zoom=0, flip=False)
    console.warn("Features are not kept: every epoch runs the frozen layers again")
    return _images(model, augmentation, config, prepared)


def _worth_keeping(
    model: keras.Model, points: Sequence[str], config: Config, prepared: PreparedDataset
) -> bool:
    from fer_experiments.models import truncation
    from fer_experiments.models.features import extraction

    if not truncation.feature_extractor(model, points).weights:
        return False
    images = prepared.size("train") * (1 + config.features.augmented_copies) + prepared.size("val")
    return images * extraction.bytes_per_image(model, points, config) <= _MOST_BYTES_ALONG


def _features(model: keras.Model, points: Sequence[str], found: Features, config: Config) -> Inputs:
    from fer_experiments.models import truncation

    how = f"{found.computed} images computed" if found.computed else "all found in the cache"
    console.say(f"features: {how} ({found.seconds:.1f} s)")
    copies = len(found.train) - 1
    # A param of runs, which compare and resume hold against those of older versions.
    augmentation = f"kept: 1 clean view, {copies} augmented" if copies else "none"
    return Inputs(
        model=truncation.trainable_part(model, points),
        train=found.train,
        val=[found.val],
        augmentation=augmentation,
        features_seconds=found.seconds,
    )


def _images(
    model: keras.Model,
    augmentation: AugmentationConfig,
    config: Config,
    prepared: PreparedDataset,
) -> Inputs:
    from fer_experiments.models.augmentation import with_augmentation

    augmented = with_augmentation(model, augmentation, seed=config.fit.seed)
    return Inputs(
        model=augmented.model,
        augment=augmented.turn,
        train=[_pixels(prepared, "train")],
        val=[_pixels(prepared, "val")],
        augmentation="anew every epoch" if augmentation.changes else "none",
    )


def _pixels(prepared: PreparedDataset, split: str) -> tuple[np.ndarray]:
    return (prepared.split(split)[0][..., np.newaxis],)  # (N, H, W, 1) uint8
