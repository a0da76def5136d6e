"""What the frozen layers give for each image, computed once and kept on disk.

<data home>/features/<backbone>-<key>/   features.npy manifest.json

A folder holds one tensor of the network for one set of images: the clean images of a split, or one
augmented view of the training images. The key says exactly what was computed: another head, rate
or seed of training finds the same folders, other frozen weights or pixels find none.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data.prepared import PreparedDataset
from fer_experiments.data.storage import (
    data_home,
    disk_errors,
    open_array,
    unfinished,
    writing,
)
from fer_experiments.errors import ConfigError, DiskFullError
from fer_experiments.models import cuts
from fer_experiments.models.forward import forward

if TYPE_CHECKING:
    import keras

# Raised when what lies in the cache of older versions can no longer be used.
FORMAT = 1
_BLOCK = 1 << 23  # bytes read at a time when a file is checked
_FILE, _MANIFEST = "features.npy", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A set of images: a split as it is (`view` 0), or one of its augmented copies (1, 2, …)."""

    split: str
    view: int = 0

    @property
    def title(self) -> str:
        """`train`, `train view 2`."""
        return f"{self.split} view {self.view}" if self.view else self.split


@dataclass(frozen=True, kw_only=True)
class Features:
    """Memory-mapped features, (N, …) float16 or float32, in the order of the images."""

    train: tuple[tuple[np.ndarray, ...], ...]  # by view, then by tensor of the cut
    val: tuple[np.ndarray, ...]  # by tensor of the cut
    seconds: float  # that it took to compute or find them
    computed: int  # images that went through the frozen layers just now


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A folder of the cache, as listed; without a description if its manifest is damaged."""

    folder: Path
    size: int  # bytes
    made: float  # seconds since 1970
    about: dict[str, str]  # backbone, tensor, dataset, of, images, dtype


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
    started = time.perf_counter()
    views = [Part(split="train", view=view) for view in range(config.features.views)]
    parts = [*views, Part(split="val")]
    kept: dict[_Place, _Kept] = {}
    for name in dict.fromkeys([*cut, *also]):
        [tensor] = cuts.before(model, [name]).outputs
        weights = cuts.weights_hash(model, name)
        for part in parts:
            kept[part, name] = _Kept(
                part=part,
                name=name,
                tensor_shape=tuple(tensor.shape[1:]),
                weights=weights,
                prepared=prepared,
                config=config,
            )
    computed = 0
    arrays = _found(kept)
    if len(arrays) < len(kept):
        with _alone(config.model.backbone):
            arrays = _found(kept)  # another process may just have computed them
            missing = {key: entry for key, entry in kept.items() if key not in arrays}
            if missing:
                computed = _compute(model, list(missing.values()))
                arrays |= {key: open_array(e.folder / _FILE) for key, e in missing.items()}
    return Features(
        train=tuple(tuple(arrays[view, name] for name in cut) for view in views),
        val=tuple(arrays[Part(split="val"), name] for name in cut),
        seconds=time.perf_counter() - started,
        computed=computed,
    )


def bytes_per_image(model: keras.Model, cut: Sequence[str], config: Config) -> int:
    """What an image takes on disk at this cut."""
    tensors = cuts.before(model, cut).outputs
    itemsize = np.dtype(config.features.cache_dtype).itemsize
    return int(sum(np.prod(tensor.shape[1:]) for tensor in tensors)) * itemsize


def entries() -> list[Entry]:
    """Everything in the cache, newest first; needs no Keras."""
    folders = [path for path in _home().glob("[!.]*") if path.is_dir()]
    return sorted(map(_entry, folders), key=lambda entry: entry.made, reverse=True)


def _entry(folder: Path) -> Entry:
    about: dict[str, str] = {}
    made = 0.0
    with suppress(OSError, ValueError, KeyError, TypeError):
        manifest = json.loads((folder / _MANIFEST).read_text())
        key = manifest["key"]
        part = Part(split=key["split"], view=key["view"])
        made = float(manifest["made"])
        about = {
            "backbone": key["backbone"],
            "tensor": key["tensor"],
            "dataset": f"{manifest['dataset']} {key['dataset'][:8]}",
            "of": part.title,
            "images": str(manifest["images"]),
            "dtype": key["dtype"],
        }
    return Entry(folder=folder, size=_bytes(folder), made=made, about=about)


def clear() -> int:
    """Empties the cache; returns the bytes that were freed.

    A training that is under way goes on: its files stay until it lets go of them. What another
    process is writing right now is left alone; what a killed one left half-written is not.
    """
    freed = 0
    with disk_errors(_home(), 0):
        for entry in entries():
            shutil.rmtree(entry.folder)
            freed += entry.size
        for lock_file in _home().glob("*.lock"):
            with suppress(Timeout), FileLock(lock_file, timeout=0):
                freed += _remove_half_written(lock_file.stem)
    return freed


_Place = tuple[Part, str]  # and the name of the layer that gives the tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """One tensor for one set of images: what it is, where it lies, and whether it is there."""

    part: Part
    name: str  # of the layer that gives the tensor
    tensor_shape: tuple[int, ...]  # of one image
    weights: str  # hash of all that it depends on
    prepared: PreparedDataset
    config: Config

    @cached_property
    def images(self) -> np.ndarray:
        """(N, H, W) uint8."""
        return self.prepared.split(self.part.split)[0]

    @property
    def dtype(self) -> np.dtype:
        """As it lies on disk."""
        return np.dtype(self.config.features.cache_dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, …)."""
        return (len(self.images), *self.tensor_shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @cached_property
    def key(self) -> dict[str, Any]:
        """All that decides the values."""
        config = self.config
        view: dict[str, Any] = {}
        if self.part.view:
            view = {"augmentation": asdict(config.augmentation), "data_seed": config.data.data_seed}
        return {
            "format": FORMAT,
            "dataset": self.prepared.fingerprint,
            "split": self.part.split,
            "view": self.part.view,
            **view,
            "backbone": config.model.backbone,
            "tensor": self.name,
            "weights": self.weights,
            "input_scaling": config.model.input_scaling,
            "input_size": config.model.input_size,
            "precision": config.model.precision,
            "dtype": self.dtype.name,
        }

    @cached_property
    def folder(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return _home() / f"{self.config.model.backbone}-{digest[:16]}"

    def open(self, folder: Path) -> np.ndarray | None:
        """(N, …), memory-mapped; None if the file is not there with the bytes that were written."""
        with suppress(OSError, EOFError, ValueError, KeyError, TypeError):
            manifest = json.loads((folder / _MANIFEST).read_text())
            array = open_array(folder / _FILE)
            if (
                array.shape == self.shape
                and array.dtype == self.dtype
                and manifest["key"] == self.key
                and manifest["crc32"] == _checksum(folder / _FILE)
            ):
                return array
        return None


def _found(kept: Mapping[_Place, _Kept]) -> dict[_Place, np.ndarray]:
    """What is there and whole: each file is read once."""
    with ThreadPool() as pool:  # zlib lets go of the interpreter's lock
        arrays = pool.map(lambda entry: entry.open(entry.folder), kept.values())
    return {key: array for key, array in zip(kept, arrays, strict=True) if array is not None}


@contextmanager
def _alone(backbone: str) -> Iterator[None]:
    """Only one process computes a backbone's features; the others wait and then find them."""
    lock = FileLock(_home() / f"{backbone}.lock")
    with disk_errors(_home(), 0):
        _home().mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            console.say(f"features of {backbone}: waiting for another process that computes them")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _compute(model: keras.Model, missing: Sequence[_Kept]) -> int:
    """Computes and writes; returns how many images went through."""
    backbone = missing[0].config.model.backbone
    _remove_half_written(backbone)
    for entry in missing:
        if entry.folder.exists():
            console.say(f"features of {backbone}, {entry.part.title}: damaged, computed again")
            shutil.rmtree(entry.folder)
    by_part: dict[Part, list[_Kept]] = {}
    for entry in missing:
        by_part.setdefault(entry.part, []).append(entry)
    need = sum(entry.size for entry in missing)
    _check_room(need)
    total = sum(len(entries[0].images) for entries in by_part.values())
    tensors = ", ".join(dict.fromkeys(entry.name for entry in missing))
    console.say(
        f"features of {backbone}: {total} images up to {tensors}, computed once, "
        f"{need / 1e6:.0f} MB in {_home()}"
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
    frozen: keras.Model, entries: Sequence[_Kept], advance: Callable[[int], None]
) -> None:
    """One pass over one set of images gives every tensor that is wanted of it."""
    part, config = entries[0].part, entries[0].config
    change = _view(part, config) if part.view else None
    with ExitStack() as stack:
        files = []
        for entry in entries:
            folder = stack.enter_context(
                writing(entry.folder, entry.size, is_whole=lambda _: False)
            )
            files.append(stack.enter_context(_ArrayFile.create(folder, entry)))
        for outputs in forward(frozen, entries[0].images, change=change):
            # Keras hands out a list of one tensor as the tensor.
            tensors = outputs if isinstance(outputs, list) else [outputs]
            for file, values in zip(files, tensors, strict=True):
                file.append(values)
            advance(len(tensors[0]))
        for file in files:
            file.finish()


def _view(part: Part, config: Config) -> Callable[[np.ndarray], np.ndarray]:
    """Pixels of a batch to those of this view; the draws follow from data_seed and view alone."""
    from fer_experiments.models.augmentation import build_layers

    draw = np.random.SeedSequence([config.data.data_seed, part.view]).generate_state(1)[0]
    random_layers = build_layers(config.augmentation, seed=int(draw) >> 1)

    def change(pixels: np.ndarray) -> np.ndarray:
        for layer in random_layers:
            pixels = layer(pixels, training=True)
        return pixels

    return change


class _ArrayFile:
    """A .npy file that grows by batches: plain writes, because a full disk kills a process that
    writes to a memory-mapped file."""

    def __init__(self, folder: Path, entry: _Kept, file: BinaryIO) -> None:
        self._folder, self._entry, self._file = folder, entry, file
        self._checksum = 0
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": entry.dtype.str, "fortran_order": False, "shape": entry.shape}
        )
        self._write(header.getvalue())

    @classmethod
    @contextmanager
    def create(cls, folder: Path, entry: _Kept) -> Iterator[_ArrayFile]:
        with (folder / _FILE).open("wb") as file:
            yield cls(folder, entry, file)

    def append(self, values: np.ndarray) -> None:
        """Adds a batch (B, …)."""
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, dtype=self._entry.dtype)
        if stored.dtype == np.float16 and not np.isfinite(stored).all():
            raise ConfigError(
                f"Expected features of at most 65504 for cache_dtype=float16. Received: "
                f"{np.abs(values).max():.4g} at {self._entry.name}; pass cache_dtype=float32"
            )
        self._write(stored.tobytes())

    def finish(self) -> None:
        """Writes down what the file is."""
        self._file.flush()
        manifest = {
            "key": self._entry.key,
            "crc32": self._checksum,
            "dataset": self._entry.prepared.name,
            "images": self._entry.shape[0],
            "made": time.time(),
        }
        (self._folder / _MANIFEST).write_text(json.dumps(manifest, indent=2))

    def _write(self, data: bytes) -> None:
        self._checksum = zlib.crc32(data, self._checksum)
        self._file.write(data)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _home() -> Path:
    return data_home() / "features"


def _check_room(need: int) -> None:
    free = shutil.disk_usage(_home()).free
    if need > free:
        raise DiskFullError(
            f"The disk that holds {_home()} is too full: {need / 1e6:.0f} MB are needed, "
            f"{free / 1e6:.0f} MB are free"
        )


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*"))


def _remove_half_written(backbone: str) -> int:
    """Removes what a killed process left; the caller holds the backbone's lock. Returns bytes."""
    freed = 0
    for folder in _home().glob(f"{unfinished(Path(backbone))}*"):
        freed += _bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return freed
