"""Images and weights for both sides: real ones from `FER_SHARED` where present, else drawn ones."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

from benchmarks.processes import ROOT
from fer_experiments.config import DataConfig
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.prepared import prepare
from fer_experiments.data.synthetic import CLASS_NAMES, draw_faces

SHARED = Path(os.environ.get("FER_SHARED", ROOT.parent / "shared"))
# The deepest layer that real weights are at hand for.
CUTS = {"vgg16": "block3_pool", "resnet50": "conv4_block6_out"}
TRAIN, VAL = 28_709, 3_589


def is_real() -> bool:
    """Whether the real images and weights are there."""
    return (SHARED / "fer2013" / "archive.zip").exists()


def archive(folder: Path, *, quick: bool) -> Path:
    """Images in the layout of Kaggle's archive.zip."""
    if is_real():
        return SHARED / "fer2013" / "archive.zip"
    train, val = (2_000, 300) if quick else (TRAIN, VAL)
    images, labels, _ = draw_faces(count=train + val, seed=0)
    path = folder / "drawn.zip"
    with ZipFile(path, "w") as file:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            part = f"train/{CLASS_NAMES[label]}/Training_" if i < train else ""
            part = part or f"test/{CLASS_NAMES[label]}/PublicTest_"
            with file.open(f"{part}{i}.jpg", "w") as picture:
                Image.fromarray(image).save(picture, "JPEG", quality=95)
    return path


def prepared(dataset: Path, *, limit: int | None) -> PreparedDataset:
    """The official split; to be called with FER_DATA_HOME set."""
    return prepare(DataConfig(dataset=str(dataset), split="official", limit=limit))


def write_folder(data: PreparedDataset, folder: Path) -> Path:
    """The same pixels as PNG files, train/<class>/ and val/<class>/, for the notebook's way."""
    for split in ("train", "val"):
        images, labels = data.split(split)
        for name in data.class_names:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / data.class_names[label] / f"{i}.png"
            Image.fromarray(np.asarray(image)).save(path)
    return folder


def read_once(folder: Path) -> None:
    """Reads every file, so that who is timed next waits for no disk."""
    for path in folder.rglob("*.png"):
        path.read_bytes()


def lower_weights(backbone: str) -> Path:
    """Real ImageNet weights up to the layer in `CUTS`."""
    [path] = (SHARED / "weights").glob(f"{backbone}_imagenet_*.h5")
    return path


def whole_weights(folder: Path) -> Path | None:
    """A folder with weights of both whole backbones: real below the cut, He-normal above it."""
    if not is_real():
        return None
    import keras

    for name, function in (
        ("vgg16", keras.applications.VGG16),
        ("resnet50", keras.applications.ResNet50),
    ):
        whole = function(include_top=False, weights=None, input_shape=(32, 32, 3))
        for i, layer in enumerate(whole.layers):
            if isinstance(layer, keras.layers.Conv2D):
                layer.kernel.assign(keras.initializers.HeNormal(seed=i)(layer.kernel.shape))
        whole.load_weights(lower_weights(name), by_name=True, skip_mismatch=False)
        folder.mkdir(parents=True, exist_ok=True)
        whole.save_weights(folder / f"{name}.weights.h5")
    return folder
