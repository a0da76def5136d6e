"""A little data set of seven emotions, as every kind of source, and how errors must look."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data.images import FER_CLASSES, LabelledImages, PixelRule, pixel_hashes
from fer_experiments.data.sources import open_source

# The challenge's own order of the emotions, written out so that the package's is checked.
CHALLENGE_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
PARTS = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}
PER_CLASS = {"Training": 5, "PublicTest": 2, "PrivateTest": 2}

Pictures = dict[str, np.ndarray]


def pictures(per_class: Mapping[str, int] = PER_CLASS, *, seed: int = 0) -> Pictures:
    """Noise of 48×48 by Kaggle's paths: train/angry/Training_000001.png and so on."""
    rng = np.random.default_rng(seed)
    numbers = iter(range(1, 10**6))
    return {
        f"{PARTS[usage]}/{name}/{usage}_{next(numbers):06d}.png": rng.integers(
            0, 256, (48, 48), dtype=np.uint8
        )
        for usage, count in per_class.items()
        for name in FER_CLASSES
        for _ in range(count)
    }


def encode(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The picture as the bytes of a file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, files: Mapping[str, np.ndarray | bytes]) -> Path:
    """Files below `root`: pictures as PNG, bytes as they are."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else encode(content))
    root.mkdir(parents=True, exist_ok=True)
    return root


def write_zip(path: Path, files: Mapping[str, np.ndarray | bytes], top: str = "") -> Path:
    """The same as members of a zip, below `top`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(top + name, content if isinstance(content, bytes) else encode(content))
    return path


def csv_rows(files: Pictures) -> list[tuple[str, str, str]]:
    """(emotion, pixels, Usage) of each picture, as the challenge writes them."""
    rows = []
    for path, picture in files.items():
        _, label, name = path.split("/")
        emotion = CHALLENGE_EMOTIONS.index(label)
        rows.append((str(emotion), " ".join(map(str, picture.ravel())), name.split("_")[0]))
    return rows


def write_csv(
    path: Path, rows: Iterable[tuple[str, ...]], header: str = "emotion,pixels,Usage"
) -> Path:
    """Rows below a header."""
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def read(path: Path | str, rule: PixelRule | None = None, **options: Any) -> LabelledImages:
    """What the source at `path` holds."""
    config = DataConfig(dataset=str(path), **options)
    source = open_source(
        config.dataset, synthetic_count=config.synthetic_count, data_seed=config.data_seed
    )
    data = source.read(config, rule or PixelRule())
    assert data.bad or data.name == source.name  # what it will be called is known before
    return data


def content(data: LabelledImages) -> list[tuple[str, str, bytes]]:
    """(train or test, class, pixels) of every image, in an order that hangs on nothing else."""
    names = [data.class_names[label] for label in data.labels]
    return sorted(
        (str(part), name, image.tobytes())
        for part, name, image in zip(data.parts, names, data.images, strict=True)
    )


def expected_content(files: Pictures) -> list[tuple[str, str, bytes]]:
    """`content` of the little data set, told by its paths."""
    return sorted((p.split("/")[0], p.split("/")[1], x.tobytes()) for p, x in files.items())


def labelled(
    images: np.ndarray,
    labels: Iterable[int],
    parts: Iterable[str] | None = None,
    ids: Iterable[str] | None = None,
) -> LabelledImages:
    """Images as a source would give them; all of them in train unless said otherwise."""
    labels = np.array(list(labels), dtype=np.int64)
    return LabelledImages(
        name="faces",
        images=images,
        hashes=pixel_hashes(images),
        labels=labels,
        ids=list(ids) if ids else [f"{i:05d}.png" for i in range(len(labels))],
        parts=np.array(list(parts) if parts else ["train"] * len(labels)),
        class_names=tuple("abcdefghij"[: labels.max() + 1]),
    )


def noise(count: int, *, seed: int = 0, size: int = 8) -> np.ndarray:
    """Images that all differ."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


def says(caught: pytest.ExceptionInfo[Exception], *words: object) -> None:
    """Checks that the message is one line and holds all of the words."""
    message = str(caught.value)
    assert message == " ".join(message.split()), message
    for word in words:
        assert str(word) in message, message
