"""Where labelled images come from: Kaggle, a folder, a zip, the challenge's CSV, or drawn faces.

A source tells its identity cheaply, so that data prepared earlier is found again without decoding,
and reads all of its images once.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer_experiments.config import DataConfig
from fer_experiments.data import synthetic
from fer_experiments.data.challenge_csv import CsvSource
from fer_experiments.data.files import is_file, is_folder, located
from fer_experiments.data.images import (
    FER_CLASSES,
    OFFICIAL_NAME,
    Cut,
    LabelledImages,
    PixelRule,
    pixel_hashes,
)
from fer_experiments.data.layout import Placed, Reading
from fer_experiments.data.listing import FolderFiles, TarFiles, ZipFiles
from fer_experiments.data.tree import TreeSource
from fer_experiments.errors import DataError, UsageError, quote, summarize
from fer_experiments.secrets import redact

KAGGLE_HANDLE = "msambare/fer2013"
# Named, so that the data never change unseen and kagglehub needs no network for what it has.
KAGGLE_VERSION = 1
# What is published there: images of each class by FER-2013's name for their part.
_KAGGLE_COUNTS = {
    "Training": (3995, 436, 4097, 7215, 4965, 4830, 3171),
    "PublicTest": (467, 56, 496, 895, 607, 653, 415),
    "PrivateTest": (491, 55, 528, 879, 626, 594, 416),
}
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class Source(Protocol):
    """What `prepare` needs of any source."""

    @property
    def name(self) -> str:
        """What the dataset will be called, by the names of its files."""

    def identity(self) -> dict[str, Any]:
        """What makes this source this source, found without decoding a single image."""

    def reading(self) -> Reading:
        """What the source holds, told by names, tables and counts; no image is decoded."""

    def read(self, config: DataConfig, rule: PixelRule, cut: Cut | None = None) -> LabelledImages:
        """Every image, decoded; `rule` says how its values become pixels."""


def open_source(
    dataset: str,
    *,
    synthetic_count: int,
    data_seed: int,
    class_level: int | None = None,
    on_empty_class: str = "refuse",
) -> Source:
    """Tells by name and by what lies there which kind of source `dataset` is; the other arguments
    are the fields of DataConfig.

    Raises:
        UsageError: nothing is there, or it is none of the kinds.
    """
    if dataset == "kaggle":
        return KaggleSource()
    if dataset == "synthetic":
        return SyntheticSource(synthetic_count, data_seed)
    path = located(dataset)
    if is_folder(path):
        return TreeSource(FolderFiles(path), class_level, on_empty_class)
    if not is_file(path):
        raise UsageError(
            "Expected dataset to be kaggle, synthetic, or an existing folder, zip or CSV. "
            f"Received: {quote(dataset, 200)} (looked for {quote(located(redact(dataset)), 300)})"
        )
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return TreeSource(ZipFiles(path), class_level, on_empty_class)
    if path.suffix.lower() == ".csv":
        return CsvSource.at(path)
    if path.name.lower().endswith(_TARS):
        return TreeSource(TarFiles(path), class_level, on_empty_class)
    raise UsageError(
        "Expected a folder of class folders, Kaggle's archive.zip, or fer2013.csv by itself or in "
        f"a zip or tar. Received: {path}"
    )


@dataclass(frozen=True)
class SyntheticSource:
    """Faces drawn by code; see `data/synthetic.py`."""

    size: int
    data_seed: int
    name = "synthetic"

    def identity(self) -> dict[str, Any]:
        """Version of the drawing, number and seed."""
        return {
            "kind": "synthetic",
            "version": synthetic.VERSION,
            "count": self.size,
            "data_seed": self.data_seed,
        }

    def reading(self) -> Reading:
        """What will be drawn."""
        _, ids = synthetic.plan_faces(count=self.size, seed=self.data_seed)
        placed = tuple(Placed(name, *name.split("/")[:2]) for name in ids)
        return Reading(files=placed, class_names=tuple(synthetic.CLASS_NAMES))

    def read(self, config: DataConfig, rule: PixelRule, cut: Cut | None = None) -> LabelledImages:
        """Draws them."""
        images, labels, ids = synthetic.draw_faces(
            count=self.size, seed=self.data_seed, image_size=config.image_size
        )
        return LabelledImages(
            name=self.name,
            images=images,
            hashes=pixel_hashes(images),
            labels=labels,
            ids=ids,
            parts=np.array([i.split("/")[0] for i in ids]),
            class_names=tuple(synthetic.CLASS_NAMES),
            rule=PixelRule(crop=rule.crop),
        )


class KaggleSource:
    """The FER-2013 folders on Kaggle, downloaded once by kagglehub into its own cache."""

    name = OFFICIAL_NAME

    def identity(self) -> dict[str, Any]:
        """Handle and version: what was prepared once is found again without a network."""
        return {"kind": "kaggle", "handle": KAGGLE_HANDLE, "version": KAGGLE_VERSION}

    def reading(self) -> Reading:
        """As published; what was downloaded is read by itself."""
        placed = tuple(
            Placed(f"{usage}_{i}", "train" if usage == "Training" else "test", label)
            for usage, counts in _KAGGLE_COUNTS.items()
            for label, count in zip(FER_CLASSES, counts, strict=True)
            for i in range(count)
        )
        return Reading(files=placed, class_names=FER_CLASSES)

    def read(self, config: DataConfig, rule: PixelRule, cut: Cut | None = None) -> LabelledImages:
        """Downloads if needed, then reads the folder.

        Raises:
            DataError: Kaggle cannot be reached.
        """
        return TreeSource(FolderFiles(self._download())).read(config, rule, cut)

    @staticmethod
    def _download() -> Path:
        import kagglehub  # slow to import, and needed on this path only

        try:
            return Path(kagglehub.dataset_download(f"{KAGGLE_HANDLE}/versions/{KAGGLE_VERSION}"))
        # kagglehub lets requests', urllib's and its own errors through; all mean the same here.
        except Exception as error:
            raise DataError(
                f"Kaggle's {KAGGLE_HANDLE} could not be downloaded ({summarize(error)}). Try again "
                "with a network, or download archive.zip from "
                f"https://www.kaggle.com/datasets/{KAGGLE_HANDLE} and pass dataset=archive.zip"
            ) from None
