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
from fer_experiments.data.images import LabelledImages, PixelRule, pixel_hashes
from fer_experiments.data.tree import FolderFiles, TreeSource, ZipFiles
from fer_experiments.errors import DataError, UsageError, first_line, shown
from fer_experiments.secrets import redact

KAGGLE_HANDLE = "msambare/fer2013"
# Named, so that the data never change unseen and kagglehub needs no network for what it has.
KAGGLE_VERSION = 1


class Source(Protocol):
    """What `prepare` needs of any source."""

    def identity(self) -> dict[str, Any]:
        """What makes this source this source, found without decoding a single image."""

    def count(self) -> int | None:
        """How many images there are, if that can be told without decoding."""

    def read(self, config: DataConfig, rule: PixelRule) -> LabelledImages:
        """Every image, decoded; `rule` says how its values become pixels."""


def open_source(dataset: str, *, synthetic_count: int, data_seed: int) -> Source:
    """Tells by name and by what lies there which kind of source `dataset` is.

    Raises:
        UsageError: nothing is there, or it is none of the kinds.
    """
    if dataset == "kaggle":
        return KaggleSource()
    if dataset == "synthetic":
        return SyntheticSource(synthetic_count, data_seed)
    path = located(dataset)
    if is_folder(path):
        return TreeSource(FolderFiles(path))
    if not is_file(path):
        raise UsageError(
            "Expected dataset to be kaggle, synthetic, or an existing folder, zip or CSV. "
            f"Received: {shown(dataset, 200)} (looked for {shown(located(redact(dataset)), 300)})"
        )
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return TreeSource(ZipFiles(path))
    if path.suffix.lower() == ".csv":
        return CsvSource(path)
    raise UsageError(
        f"Expected a folder of class folders, Kaggle's archive.zip or fer2013.csv. Received: {path}"
    )


@dataclass(frozen=True)
class SyntheticSource:
    """Faces drawn by code; see `data/synthetic.py`."""

    size: int
    data_seed: int

    def identity(self) -> dict[str, Any]:
        """Version of the drawing, number and seed."""
        return {
            "kind": "synthetic",
            "version": synthetic.VERSION,
            "count": self.size,
            "data_seed": self.data_seed,
        }

    def count(self) -> int:
        """As many as asked for."""
        return self.size

    def read(self, config: DataConfig, rule: PixelRule) -> LabelledImages:
        """Draws them."""
        images, labels, ids = synthetic.draw_faces(
            count=self.size, seed=self.data_seed, image_size=config.image_size
        )
        return LabelledImages(
            name="synthetic",
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

    def identity(self) -> dict[str, Any]:
        """Handle and version: what was prepared once is found again without a network."""
        return {"kind": "kaggle", "handle": KAGGLE_HANDLE, "version": KAGGLE_VERSION}

    def count(self) -> int:
        """As published."""
        return 35_887

    def read(self, config: DataConfig, rule: PixelRule) -> LabelledImages:
        """Downloads if needed, then reads the folder.

        Raises:
            DataError: Kaggle cannot be reached.
        """
        return TreeSource(FolderFiles(self._download())).read(config, rule)

    @staticmethod
    def _download() -> Path:
        import kagglehub  # slow to import, and needed on this path only

        try:
            return Path(kagglehub.dataset_download(f"{KAGGLE_HANDLE}/versions/{KAGGLE_VERSION}"))
        # kagglehub lets requests', urllib's and its own errors through; all mean the same here.
        except Exception as error:
            raise DataError(
                f"Kaggle's {KAGGLE_HANDLE} could not be downloaded ({first_line(error)}). Go on "
                "with a network, or download archive.zip from "
                f"https://www.kaggle.com/datasets/{KAGGLE_HANDLE} and pass dataset=archive.zip"
            ) from None
