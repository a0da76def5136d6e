"""Face detectors, and how a photo is searched with one.

- `mtcnn`: MTCNN (Zhang et al. 2016, https://arxiv.org/abs/1604.02878) of the package mtcnn, whose
  weights lie in it; needs TensorFlow as Keras's backend.
- `yunet:FILE`: YuNet (Wu et al. 2023, https://doi.org/10.1007/s11633-023-1423-y) by OpenCV's
  FaceDetectorYN; the file comes from OpenCV's model zoo. Needs the extra `faces`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from fer_experiments import console
from fer_experiments.data.files import expanded, is_file, located
from fer_experiments.errors import ConfigError, FerError, UsageError, quote, summarize
from fer_experiments.faces.alignment import Face, Point
from fer_experiments.faces.video import opencv
from fer_experiments.secrets import redact

NONE, AUTO, MTCNN, YUNET = "none", "auto", "mtcnn", "yunet"
# face_detection_yunet_2023mar.onnx
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
YUNET_ADDRESS = (
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
    "face_detection_yunet_2023mar.onnx"
)
# Pixels of the long side at which a photo is searched first, and at all.
LONG_SIDE, LONGEST_SIDE = 1280, 4096
# A smaller picture is enlarged to this long side: detectors miss faces that fill 40 pixels.
_SHORTEST_LONG_SIDE = 320
# By so much must a turned photo's best score be higher.
_ADVANTAGE = 0.005
# Smaller images hold no face that a detector knows.
_SMALLEST_SIDE = 12


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Scores of a face: the lowest that counts, and where the photo had to be turned or enlarged.

    Faces that lie or stand on their head are sometimes found as if they were upright, with a score
    below `sure`: then the photo is turned as well, and what has clearly the best score counts.
    """

    upright: float
    again: float
    sure: float


class FaceDetector(Protocol):
    """Finds faces in one picture."""

    name: str
    thresholds: Thresholds

    def detect(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        """Faces of at least this score in (H, W, 3) uint8, in no order."""

    def detect_in_all(self, pictures: Sequence[np.ndarray], threshold: float) -> list[list[Face]]:
        """The same for several pictures, which takes less time than one after another."""


def find_faces(rgb: np.ndarray, detector: FaceDetector) -> list[Face]:
    """All faces of an upright photo, the largest first.

    Searched at 1,280 pixels of the long side. Where nothing is found it is searched at full size
    (at most 4,096), and then turned by quarters, with a higher threshold. Turned also where no face
    has a score that is sure: what is then found with a clearly higher one takes its place.

    Args:
        rgb: (H, W, 3) uint8.
        detector: as `open_detector` gives it.

    Returns:
        Faces in the photo's own pixels.
    """
    if min(rgb.shape[:2]) < _SMALLEST_SIDE:
        return []
    wanted = detector.thresholds
    small, factor = _resized(rgb, LONG_SIDE)
    found = detector.detect(small, wanted.upright)
    if not found and factor > 1:
        large, factor_of_large = _resized(rgb, LONGEST_SIDE)
        smaller = factor_of_large / factor
        found = [face.scaled(smaller) for face in detector.detect(large, wanted.again)]
    if _best(found) < wanted.sure:
        found = max([found, *_turned(small, detector)], key=_worth(found))
    scaled = [face.scaled(factor) for face in found]
    return sorted(scaled, key=lambda face: face.box[2] * face.box[3], reverse=True)


def _turned(rgb: np.ndarray, detector: FaceDetector) -> Iterator[list[Face]]:
    """What is found after a quarter, half and three quarters of a turn."""
    height, width = rgb.shape[:2]
    for quarters in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(rgb, quarters))
        yield [
            _turned_back(face, quarters, width, height)
            for face in detector.detect(turned, detector.thresholds.again)
        ]


def _best(found: Sequence[Face]) -> float:
    return max((face.score for face in found), default=0.0)


def _worth(upright: Sequence[Face]) -> Callable[[Sequence[Face]], float]:
    """The highest score; the photo as it is has an advantage, since most photos are upright."""
    return lambda found: _best(found) + (_ADVANTAGE if found is upright and found else 0.0)


def open_detector(spec: str) -> FaceDetector:
    """The detector that `mtcnn` or `yunet:FILE` names.

    Raises:
        ConfigError: another name, or a backend of Keras on which MTCNN does not run.
        UsageError: the file is not there or not YuNet's, or a package is missing.
    """
    name, _, file = spec.partition(":")
    if name == MTCNN and not file:
        return Mtcnn()
    if name == YUNET and file:
        return YuNet(file)
    raise ConfigError(
        f"Expected detector to be auto, mtcnn, yunet:FILE or none. Received: detector={quote(spec)}"
        + (f"; the file comes from {YUNET_ADDRESS}" if name == YUNET else "")
    )


def check_spec(spec: str) -> None:
    """Raises what `open_detector` would, as far as that costs no import of TensorFlow."""
    if spec not in (NONE, AUTO, MTCNN):
        name, _, file = spec.partition(":")
        if name == YUNET and file:
            _yunet_file(file)
        else:
            open_detector(spec)


class Mtcnn:
    """MTCNN. Its eye points are whole pixels."""

    name = MTCNN
    # Medians of 525 training images of FER-2013 that were pasted and found (`faces.pasted`).
    reference = ((0.3169, 0.3878), (0.6874, 0.3854))
    thresholds = Thresholds(upright=0.8, again=0.95, sure=0.99)

    def __init__(self) -> None:
        if find_spec("tensorflow") is None or find_spec("mtcnn") is None:
            raise ConfigError(
                "Expected TensorFlow for detector=mtcnn. Received: it is not installed; pass "
                "detector=yunet:FILE, or detector=none"
            )
        console.load_keras()
        import keras

        if keras.backend.backend() != "tensorflow":
            raise ConfigError(
                "Expected TensorFlow as Keras's backend for detector=mtcnn. Received: "
                f"{keras.backend.backend()}; pass detector=yunet:FILE"
            )
        import mtcnn

        self._network = mtcnn.MTCNN()

    def detect(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        """See `FaceDetector`."""
        return self.detect_in_all([rgb], threshold)[0]

    def detect_in_all(self, pictures: Sequence[np.ndarray], threshold: float) -> list[list[Face]]:
        """See `FaceDetector`."""
        found = self._network.detect_faces(
            list(pictures), threshold_onet=threshold, fit_to_image=False
        )
        # Where no picture holds a face there is one list.
        return [[self._face(one) for one in faces] for faces in found] or [[] for _ in pictures]

    def _face(self, found: Mapping[str, Any]) -> Face:
        points = found["keypoints"]
        left, top, width, height = (float(value) for value in found["box"])
        return Face(
            box=(left, top, width, height),
            score=float(found["confidence"]),
            eyes=(_middle(points["left_eye"]), _middle(points["right_eye"])),  # as seen
            reference=self.reference,
        )


class YuNet:
    """YuNet by OpenCV."""

    name = YUNET
    # Medians of 576 training images of FER-2013 that were pasted and found (`faces.pasted`).
    reference = ((0.2992, 0.3795), (0.6841, 0.3841))
    thresholds = Thresholds(upright=0.6, again=0.8, sure=0.9)

    def __init__(self, file: str) -> None:
        path = _yunet_file(file)
        cv2 = opencv("detector=yunet")
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), self.thresholds.upright
            )
        except cv2.error as error:
            raise FerError(
                f"OpenCV {cv2.__version__} cannot read {path}: {summarize(error)}"
            ) from None

    def detect(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        """See `FaceDetector`."""
        height, width = rgb.shape[:2]
        self._network.setInputSize((width, height))
        self._network.setScoreThreshold(threshold)
        _, rows = self._network.detect(np.ascontiguousarray(rgb[:, :, ::-1]))
        return [
            Face(
                box=(float(x), float(y), float(w), float(h)),
                score=float(score),
                eyes=((float(ax), float(ay)), (float(bx), float(by))),
                reference=self.reference,
            )
            for x, y, w, h, ax, ay, bx, by, *_, score in (rows if rows is not None else ())
        ]

    def detect_in_all(self, pictures: Sequence[np.ndarray], threshold: float) -> list[list[Face]]:
        """See `FaceDetector`."""
        return [self.detect(picture, threshold) for picture in pictures]


def _yunet_file(file: str) -> Path:
    path = expanded(file)
    if not is_file(path):
        raise UsageError(
            f"Expected a file behind yunet:. Received: {quote(file, 200)} (looked for "
            f"{quote(located(redact(file)), 300)}); it comes from {YUNET_ADDRESS}"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != YUNET_SHA256:
        raise UsageError(
            f"Expected YuNet's file of March 2023, whose SHA-256 begins {YUNET_SHA256[:8]}. "
            f"Received: {quote(str(path), 200)}, whose begins {digest[:8]}; it comes from "
            f"{YUNET_ADDRESS}"
        )
    return path


def _middle(point: Any) -> Point:
    """Of a pixel that is named by whole numbers."""
    x, y = point
    return float(x) + 0.5, float(y) + 0.5


def _resized(rgb: np.ndarray, long_side: int) -> tuple[np.ndarray, float]:
    """The photo with a long side of 320 to `long_side` pixels; the photo's pixels for one."""
    height, width = rgb.shape[:2]
    longest = max(height, width)
    factor = longest / min(max(longest, _SHORTEST_LONG_SIDE), long_side)
    if factor == 1:
        return rgb, 1.0
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image), factor


def _turned_back(face: Face, quarters: int, width: int, height: int) -> Face:
    """A face of a photo that `np.rot90` turned, in the photo as it was, (height, width)."""
    moves: dict[int, Callable[[Point], Point]] = {
        1: lambda p: (width - p[1], p[0]),
        2: lambda p: (width - p[0], height - p[1]),
        3: lambda p: (p[1], height - p[0]),
    }
    return face.moved(moves[quarters])
