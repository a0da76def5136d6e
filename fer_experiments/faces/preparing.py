"""Data prepared with the faces cut out of photos, as `predict` cuts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fer_experiments.config import DataConfig
from fer_experiments.data import prepared
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import Decoded, PixelRule
from fer_experiments.errors import ConfigError, quote
from fer_experiments.faces.detection import (
    AUTO,
    MTCNN,
    NONE,
    FaceDetector,
    check_spec,
    find_faces,
    open_detector,
)
from fer_experiments.faces.photos import colours, face_pixels


def prepare(
    config: DataConfig,
    rule: PixelRule | None = None,
    *,
    told: Callable[[prepared.Plan], None] = lambda plan: None,
) -> PreparedDataset:
    """As `prepared.prepare`, with `config.detector`; arguments and errors are the same.

    Raises:
        ConfigError, UsageError: the detector is unknown or cannot be used.
    """
    if config.detector == NONE:
        return prepared.prepare(config, rule, told=told)
    check(config)
    rule = replace(rule or PixelRule(), detector=prepared.detector_of(config))
    cut = FaceCutter(detector=config.detector, size=config.image_size)
    return prepared.prepare(config, rule, told=told, cut=cut)


def check(config: DataConfig) -> None:
    """Raises what is wrong with the detector and costs no import of TensorFlow to see."""
    if config.detector == NONE:
        return
    if config.detector == AUTO:
        raise ConfigError(
            "Expected detector to be none, mtcnn or yunet:FILE. Received: detector=auto; say "
            f"whether these images are photos (detector={MTCNN}) or faces already (detector={NONE})"
        )
    if config.dataset == "synthetic":
        raise ConfigError(
            "Expected detector=none for dataset=synthetic, which draws faces alone. "
            f"Received: detector={quote(config.detector)}"
        )
    check_spec(config.detector)


@dataclass
class FaceCutter:
    """The largest face of each photo; another process opens a detector of its own."""

    detector: str  # mtcnn, or yunet:FILE
    size: int  # of the result, pixels

    @cached_property
    def _detector(self) -> FaceDetector:
        return open_detector(self.detector)

    def __call__(self, decoded: Decoded, white: float) -> np.ndarray | None:
        """(size, size) uint8; None where no face is found."""
        faces = find_faces(colours(decoded, white), self._detector)
        if not faces:
            return None
        return face_pixels(decoded.grey, faces[0], size=self.size, white=white)

    def __getstate__(self) -> dict[str, object]:
        return {"detector": self.detector, "size": self.size}
