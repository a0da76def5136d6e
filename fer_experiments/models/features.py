"""What the frozen layers give for each image, computed once and kept on disk.

The key of what is kept says exactly what was computed: another head, rate or seed of training finds
the same features, other frozen weights or pixels find none. `feature_files` knows how they lie.
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
from fer_experiments.models import cuts
from fer_experiments.models.crops import Crop, crop_of
from fer_experiments.models.feature_files import (
    ArrayFile,
    Kept,
    Part,
    alone,
    find,
    home,
    make_room,
)
from fer_experiments.models.forward import batch_size, forward

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Features:
    """Memory-mapped features, (N, …) float16 or float32, in the order of the images."""

    train: tuple[tuple[np.ndarray, ...], ...]  # by view, then by tensor of the cut
    val: tuple[np.ndarray, ...]  # by tensor of the cut
    seconds: float  # that it took to compute or find them
    computed: int  # images that went through the frozen layers just now


def obtain(
    model: keras.Model,
    prepared: PreparedDataset,
    config: Config,
    *,
    cut: Sequence[str],
    also: Sequence[str] = (),
) -> Features:
    """The features of train and val at a cut, from the cache as far as it has them.

    Args:
        model: a classifier; what lies before the cut is frozen.
        prepared: the images.
        config: what the model was made from, and how many views are wanted.
        cut: the tensors that are wanted, by the name of the layer that gives them.
        also: tensors that a later stage will want: written by the same pass.

    Raises:
        DiskFullError: they do not fit on the disk.
        DataError: the data home may not be written to.
        ConfigError: values too large for cache_dtype=float16.
    """
    import keras

    started = time.perf_counter()
    augmenter = _augmenter(batch_size(model))
    views = [Part(split="train", view=view) for view in range(1 + config.features.augmented_copies)]
    parts = [*views, Part(split="val")]
    kept: dict[tuple[Part, str], Kept] = {}
    names = list(dict.fromkeys([*cut, *also]))
    tensors = cuts.before(model, names).outputs
    for name, tensor, graph in zip(names, tensors, cuts.digests(model, names), strict=True):
        for part in parts:
            kept[part, name] = Kept(
                part=part,
                name=name,
                tensor_shape=tuple(tensor.shape[1:]),
                graph=graph,
                backend=keras.backend.backend(),
                augmenter=augmenter,
                prepared=prepared,
                config=config,
            )
    arrays = find(kept.values())
    missing = [entry for entry in kept.values() if entry not in arrays]
    computed = 0
    if missing:
        with alone(config.model.backbone):
            arrays |= find(missing)  # another process may just have computed them
            missing = [entry for entry in missing if entry not in arrays]
            if missing:
                computed = _compute(model, missing)
                arrays |= {entry: entry.mapped() for entry in missing}
    return Features(
        train=tuple(tuple(arrays[kept[view, name]] for name in cut) for view in views),
        val=tuple(arrays[kept[Part(split="val"), name]] for name in cut),
        seconds=time.perf_counter() - started,
        computed=computed,
    )


def bytes_per_image(model: keras.Model, cut: Sequence[str], config: Config) -> int:
    """What an image takes on disk at this cut."""
    tensors = cuts.before(model, cut).outputs
    itemsize = np.dtype(config.features.cache_dtype).itemsize
    return int(sum(np.prod(tensor.shape[1:]) for tensor in tensors)) * itemsize


def _compute(model: keras.Model, missing: Sequence[Kept]) -> int:
    """Computes and writes; returns how many images went through."""
    backbone = missing[0].config.model.backbone
    make_room(missing)
    by_part: dict[Part, list[Kept]] = {}
    for entry in missing:
        by_part.setdefault(entry.part, []).append(entry)
    total = sum(len(entries[0].images) for entries in by_part.values())
    tensors = ", ".join(dict.fromkeys(entry.name for entry in missing))
    console.say(
        f"features of {backbone}: {total} images up to {tensors}, computed once, "
        f"{sum(entry.size for entry in missing) / 1e6:.0f} MB in {home()}"
    )
    frozen: dict[tuple[str, ...], keras.Model] = {}  # compiled once for all parts
    with console.progress(total) as advance:
        for entries in by_part.values():
            names = tuple(entry.name for entry in entries)
            if names not in frozen:
                frozen[names] = cuts.before(model, names)
            _compute_part(frozen[names], entries, advance)
    return total


def _compute_part(
    frozen: keras.Model, entries: Sequence[Kept], advance: Callable[[int], None]
) -> None:
    """One pass over one set of images gives every tensor that is wanted of it."""
    part, config = entries[0].part, entries[0].config
    change = _view(part, config, crop_of(frozen)) if part.view else None
    with ExitStack() as stack:
        files = [stack.enter_context(ArrayFile.create(entry)) for entry in entries]
        for outputs in forward(frozen, entries[0].images, change=change):
            # Keras hands out a list of one tensor as the tensor.
            tensors = outputs if isinstance(outputs, list) else [outputs]
            for file, values in zip(files, tensors, strict=True):
                file.append(values)
            advance(len(tensors[0]))


def _augmenter(batch_size: int) -> str:
    """Digest of what draws augmented views besides the configuration: our code, Keras's, and how
    many images are drawn for at a time."""
    import keras

    from fer_experiments.models import augmentation

    code = Path(augmentation.__file__).read_bytes()
    return hashlib.sha256(f"{keras.__version__} {batch_size} ".encode() + code).hexdigest()


def _view(part: Part, config: Config, crop: Crop | None) -> Callable[[np.ndarray], np.ndarray]:
    """Pixels of a batch to those of this view; the draws follow from data_seed and view alone."""
    from fer_experiments.models.augmentation import build_layers

    draw = np.random.SeedSequence([config.data.data_seed, part.view]).generate_state(1)[0]
    random_layers = build_layers(config.augmentation, seed=int(draw) >> 1, crop=crop)

    def change(pixels: np.ndarray) -> np.ndarray:
        for layer in random_layers:
            pixels = layer(pixels, training=True)
        return pixels

    return change
