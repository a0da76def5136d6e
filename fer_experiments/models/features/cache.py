"""Cached tensors on disk: what a folder is called, how it is written, checked, listed, emptied.

<data home>/features/<backbone>-<key>/   features.npy manifest.json
<data home>/features/<backbone>.lock     held while a process writes features of that backbone

A folder holds one tensor of the network for one set of images: a split as it is, or one augmented
copy of the training images. Needs no Keras.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.storage import (
    data_home,
    disk_errors,
    locked,
    open_array,
    unfinished,
    writing,
)
from fer_experiments.errors import ConfigError, DiskFullError

# Raised when what lies in the cache of older versions can no longer be used.
FORMAT = 3
_BLOCK = 1 << 23  # bytes read at a time when a file is checked
_FILE, _MANIFEST = "features.npy", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class ImageSubset:
    """A split as it is (`copy` 0), or one of its augmented copies (1, 2, …)."""

    split: str
    copy: int = 0

    @property
    def title(self) -> str:
        """`train`, `train copy 2`."""
        return f"{self.split} copy {self.copy}" if self.copy else self.split


@dataclass(frozen=True, kw_only=True, eq=False)
class CachedTensor:
    """One tensor for one set of images: what it is, where it lies, and whether it is there."""

    subset: ImageSubset
    name: str  # of the layer that gives the tensor
    tensor_shape: tuple[int, ...]  # of one image
    graph: str  # digest of all operations that it depends on
    backend: str  # of Keras
    augmenter: str  # digest of the code that draws augmented copies
    prepared: PreparedDataset
    config: Config

    @property
    def title(self) -> str:
        """`vgg16, train copy 2`."""
        return f"{self.config.model.backbone}, {self.subset.title}"

    @cached_property
    def images(self) -> np.ndarray:
        """(N, H, W) uint8."""
        return self.prepared.split(self.subset.split)[0]

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
        """All that decides the values, and nothing else."""
        config = self.config
        view: dict[str, Any] = {}
        if self.subset.copy:
            view = {
                "augmentation": asdict(config.augmentation),
                "augmenter": self.augmenter,
                "data_seed": config.data.data_seed,
            }
        return {
            "format": FORMAT,
            "dataset": self.prepared.fingerprint,
            "split": self.subset.split,
            "view": self.subset.copy,
            **view,
            "graph": self.graph,
            "backend": self.backend,
            "dtype": self.dtype.name,
        }

    @cached_property
    def folder(self) -> Path:
        """Its place."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return home() / f"{self.config.model.backbone}-{digest[:16]}"

    def mapped(self) -> np.ndarray:
        """(N, …), memory-mapped, unchecked."""
        return open_array(self.folder / _FILE)

    def open(self) -> np.ndarray | None:
        """(N, …), memory-mapped; None if the file is not there with the bytes that were written."""
        with suppress(OSError, EOFError, ValueError, KeyError, TypeError, RecursionError):
            manifest = json.loads((self.folder / _MANIFEST).read_text())
            array = self.mapped()
            if (
                array.shape == self.shape
                and array.dtype == self.dtype
                and manifest["key"] == self.key
                and manifest["crc32"] == _checksum(self.folder / _FILE)
            ):
                return array
        return None


def find_cached(wanted: Collection[CachedTensor]) -> dict[CachedTensor, np.ndarray]:
    """Those that are there and whole, memory-mapped: each file is read once."""
    with ThreadPool() as pool:  # zlib lets go of the interpreter's lock
        arrays = pool.map(CachedTensor.open, wanted)
    return {entry: array for entry, array in zip(wanted, arrays, strict=True) if array is not None}


@contextmanager
def lock(backbone: str) -> Iterator[None]:
    """Only one process computes a backbone's features; the others wait and then find them."""

    def waiting() -> None:
        console.say(f"features of {backbone}: waiting for another process that computes them")

    with locked(home() / f"{backbone}.lock", waiting=waiting):
        _remove_half_written(backbone)
        yield


def check_free_space(wanted: Collection[CachedTensor]) -> None:
    """Removes what is damaged of these; the caller holds the backbone's lock.

    Raises:
        DiskFullError: the disk has less room than they will take.
    """
    for entry in wanted:
        if entry.folder.exists():
            console.say(f"features of {entry.title}: damaged, computed again")
            shutil.rmtree(entry.folder)
    need, free = sum(entry.size for entry in wanted), shutil.disk_usage(home()).free
    if need > free:
        raise DiskFullError(
            f"The disk that holds {home()} is too full: {need / 1e6:.0f} MB are needed, "
            f"{free / 1e6:.0f} MB are free"
        )


class ArrayFile:
    """A .npy file that grows by batches: plain writes, because a full disk kills a process that
    writes to a memory-mapped file."""

    def __init__(self, entry: CachedTensor, file: BinaryIO) -> None:
        self._entry, self._file = entry, file
        self._checksum = 0
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": entry.dtype.str, "fortran_order": False, "shape": entry.shape}
        )
        self._write(header.getvalue())

    @classmethod
    @contextmanager
    def create(cls, entry: CachedTensor) -> Iterator[ArrayFile]:
        """The folder stands in its place, whole, when the block is left without an error."""
        with (
            writing(entry.folder, entry.size, is_whole=lambda _: False) as folder,
            (folder / _FILE).open("wb") as file,
        ):
            array_file = cls(entry, file)
            yield array_file
            (folder / _MANIFEST).write_text(json.dumps(array_file.manifest(), indent=2))

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

    def manifest(self) -> dict[str, Any]:
        """What the file is."""
        return {
            "key": self._entry.key,
            "crc32": self._checksum,
            "backbone": self._entry.config.model.backbone,
            "tensor": self._entry.name,
            "dataset": self._entry.prepared.name,
            "images": self._entry.shape[0],
            "made": time.time(),
        }

    def _write(self, data: bytes) -> None:
        self._checksum = zlib.crc32(data, self._checksum)
        self._file.write(data)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """A folder of the cache, as listed; without a description if its manifest is damaged."""

    folder: Path
    size: int  # bytes
    made: float  # seconds since 1970
    about: dict[str, str]  # backbone, tensor, dataset, of, images, dtype


def entries() -> list[CacheEntry]:
    """Everything in the cache, newest first; needs no Keras."""
    folders = [path for path in home().glob("[!.]*") if path.is_dir()]
    return sorted(map(_entry, folders), key=lambda entry: entry.made, reverse=True)


def _entry(folder: Path) -> CacheEntry:
    about: dict[str, str] = {}
    made = 0.0
    with suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        manifest = json.loads((folder / _MANIFEST).read_text())
        key = manifest["key"]
        named = key | manifest  # up to format 2 the key held the names of backbone and tensor
        subset = ImageSubset(split=str(key["split"]), copy=int(key["view"]))
        time.localtime(manifest["made"])  # refuses what is no date
        made = float(manifest["made"])
        about = {
            "backbone": str(named["backbone"]),
            "tensor": str(named["tensor"]),
            "dataset": f"{manifest['dataset']} {key['dataset'][:8]}",
            "of": subset.title,
            "images": str(manifest["images"]),
            "dtype": str(key["dtype"]),
        }
    return CacheEntry(folder=folder, size=_bytes(folder), made=made, about=about)


def clear() -> int:
    """Empties the cache; returns the bytes that were freed.

    A training that is under way continues: its files stay until it lets go of them. What another
    process is writing right now is left alone; what a killed one left half-written is not.
    """
    freed = 0
    with disk_errors(home(), 0):
        for entry in entries():
            shutil.rmtree(entry.folder)
            freed += entry.size
        for lock_file in home().glob("*.lock"):
            with suppress(Timeout), FileLock(lock_file, timeout=0):
                freed += _remove_half_written(lock_file.stem)
    return freed


def home() -> Path:
    """Where the features lie."""
    return data_home() / "features"


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*"))


def _remove_half_written(backbone: str) -> int:
    """Removes what a killed process left; the caller holds the backbone's lock. Returns bytes."""
    freed = 0
    for folder in home().glob(f"{unfinished(Path(backbone))}*"):
        freed += _bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return freed
