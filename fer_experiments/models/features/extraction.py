"""What the frozen layers give for each image, computed once and kept on disk.

The key of what is kept says exactly what was computed: another head, rate or seed of training finds
the same features, other frozen weights or pixels find none. `cache` reads and writes them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.models import truncation
from fer_experiments.models.batched_inference import batch_size, infer_in_batches
from fer_experiments.models.crops import Crop, crop_of
from fer_experiments.models.features.cache import (
    ArrayFile,
    CachedTensor,
    ImageSubset,
    check_free_space,
    find_cached,
    home,
    lock,
)

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Features:
    """Memory-mapped features, (N, …) float16 or float32, in the order of the images."""

    train: tuple[tuple[np.ndarray, ...], ...]  # by copy of the images, then by truncation point
    val: tuple[np.ndarray, ...]  # by truncation point
    seconds: float  # that it took to compute or find them
    computed: int  # images that went through the frozen layers just now


def obtain(
    model: keras.Model,
    prepared: PreparedDataset,
    config: Config,
    *,
    points: Sequence[str],
    also: Sequence[str] = (),
) -> Features:
    """The features of train and val at truncation points, from the cache as far as it has them.

    Args:
        model: a classifier; what comes before the points is frozen.
        prepared: the images.
        config: what the model was made from, and how many augmented copies are wanted.
        points: the tensors that are wanted, by the name of the layer that gives them.
        also: tensors that a later stage will want: written by the same pass.

    Raises:
        DiskFullError: they do not fit on the disk.
        DataError: the data home may not be written to.
        ConfigError: values too large for cache_dtype=float16.
    """
    import keras

    started = time.perf_counter()
    augmenter = _augmenter(batch_size(model))
    copies = [
        ImageSubset(split="train", copy=copy)
        for copy in range(1 + config.features.augmented_copies)
    ]
    subsets = [*copies, ImageSubset(split="val")]
    wanted: dict[tuple[ImageSubset, str], CachedTensor] = {}
    names = list(dict.fromkeys([*points, *also]))
    tensors = truncation.feature_extractor(model, names).outputs
    for name, tensor, graph in zip(names, tensors, truncation.digests(model, names), strict=True):
        for subset in subsets:
            wanted[subset, name] = CachedTensor(
                subset=subset,
                name=name,
                tensor_shape=tuple(tensor.shape[1:]),
                graph=graph,
                backend=keras.backend.backend(),
                augmenter=augmenter,
                prepared=prepared,
                config=config,
            )
    arrays = find_cached(wanted.values())
    missing = [entry for entry in wanted.values() if entry not in arrays]
    computed = 0
    if missing:
        with lock(config.model.backbone):
            arrays |= find_cached(missing)  # another process may just have computed them
            missing = [entry for entry in missing if entry not in arrays]
            if missing:
                computed = _compute(model, missing)
                arrays |= {entry: entry.mapped() for entry in missing}
    return Features(
        train=tuple(tuple(arrays[wanted[copy, name]] for name in points) for copy in copies),
        val=tuple(arrays[wanted[ImageSubset(split="val"), name]] for name in points),
        seconds=time.perf_counter() - started,
        computed=computed,
    )


def bytes_per_image(model: keras.Model, points: Sequence[str], config: Config) -> int:
    """What an image takes on disk at these truncation points."""
    tensors = truncation.feature_extractor(model, points).outputs
    itemsize = np.dtype(config.features.cache_dtype).itemsize
    return int(sum(np.prod(tensor.shape[1:]) for tensor in tensors)) * itemsize


def _compute(model: keras.Model, missing: Sequence[CachedTensor]) -> int:
    """Computes and writes; returns how many images went through."""
    backbone = missing[0].config.model.backbone
    check_free_space(missing)
    by_subset: dict[ImageSubset, list[CachedTensor]] = {}
    for entry in missing:
        by_subset.setdefault(entry.subset, []).append(entry)
    total = sum(len(entries[0].images) for entries in by_subset.values())
    tensors = ", ".join(dict.fromkeys(entry.name for entry in missing))
    console.say(
        f"features of {backbone}: {total} images up to {tensors}, computed once, "
        f"{sum(entry.size for entry in missing) / 1e6:.0f} MB in {home()}"
    )
    frozen: dict[tuple[str, ...], keras.Model] = {}  # compiled once for all parts
    with console.progress(total) as advance:
        for entries in by_subset.values():
            names = tuple(entry.name for entry in entries)
            if names not in frozen:
                frozen[names] = truncation.feature_extractor(model, names)
            _compute_subset(frozen[names], entries, advance)
    return total


def _compute_subset(
    frozen: keras.Model, entries: Sequence[CachedTensor], advance: Callable[[int], None]
) -> None:
    """One pass over one set of images gives every tensor that is wanted of it."""
    subset, config = entries[0].subset, entries[0].config
    change = _augment(subset, config, crop_of(frozen)) if subset.copy else None
    with ExitStack() as stack:
        files = [stack.enter_context(ArrayFile.create(entry)) for entry in entries]
        for outputs in infer_in_batches(frozen, entries[0].images, change=change):
            # Keras hands out a list of one tensor as the tensor.
            tensors = outputs if isinstance(outputs, list) else [outputs]
            for file, values in zip(files, tensors, strict=True):
                file.append(values)
            advance(len(tensors[0]))


def _augmenter(batch_size: int) -> str:
    """Digest of what draws augmented copies besides the configuration: our code, Keras's, and how
    many images are drawn for at a time."""
    import keras

    from fer_experiments.models import augmentation

    code = Path(augmentation.__file__).read_bytes()
    return hashlib.sha256(f"{keras.__version__} {batch_size} ".encode() + code).hexdigest()


def _augment(
    subset: ImageSubset, config: Config, crop: Crop | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Pixels of a batch to those of this copy; the draws follow from data_seed and copy alone."""
    from fer_experiments.models.augmentation import build_layers

    draw = np.random.SeedSequence([config.data.data_seed, subset.copy]).generate_state(1)[0]
    random_layers = build_layers(config.augmentation, seed=int(draw) >> 1, crop=crop)

    def change(pixels: np.ndarray) -> np.ndarray:
        for layer in random_layers:
            pixels = layer(pixels, training=True)
        return pixels

    return change
