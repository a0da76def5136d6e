"""Pictures of a video file or a camera, by OpenCV (extra `faces`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.data.files import Unreadable
from fer_experiments.errors import DataError, UsageError


def frames(file: Path, *, every: float) -> Iterator[tuple[float, np.ndarray]]:
    """Pictures of a video file at 0, `every`, 2 × `every`, … seconds.

    Args:
        file: mp4, avi, webm or what else OpenCV reads.
        every: seconds between two pictures, above 0; every picture where it has fewer.

    Yields:
        Seconds from the beginning, and (H, W, 3) uint8.

    Raises:
        Unreadable: it is no video, or ends before the time that it promises.
        UsageError: OpenCV is not installed.
    """
    cv2 = opencv("videos")
    with _opened(cv2, str(file)) as capture:
        if capture is None:
            raise Unreadable("not a video that OpenCV can read")
        rate = capture.get(cv2.CAP_PROP_FPS)
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        rate = rate if rate > 0 else 25.0
        number, due = 0, 0.0
        while capture.grab():
            seconds = number / rate
            number += 1
            if seconds + 0.5 / rate < due:
                continue
            read, picture = capture.retrieve()
            if read:
                yield seconds, np.ascontiguousarray(picture[:, :, ::-1])
                due += every
                due = max(due, seconds + 0.5 / rate)
        if number == 0:
            raise Unreadable("a video without pictures")
        if promised > number + 1:
            raise Unreadable(
                f"the video ends after {number / rate:.1f} of {promised / rate:.1f} seconds"
            )


def camera(source: str) -> Iterator[np.ndarray]:
    """Pictures of a camera (its number) or of anything else that OpenCV opens, until it ends.

    Yields:
        (H, W, 3) uint8.

    Raises:
        UsageError: it cannot be opened, or OpenCV is not installed.
    """
    cv2 = opencv("--camera")
    with _opened(cv2, int(source) if source.isdecimal() else source) as capture:
        if capture is None:
            raise UsageError(
                f"Expected a camera's number or address that OpenCV opens. Received: {source}; is "
                "it plugged in, and may you use it?"
            )
        while True:
            read, picture = capture.read()
            if not read:
                return
            yield np.ascontiguousarray(picture[:, :, ::-1])


def writer(file: Path, rate: float, size: tuple[int, int]) -> Any:
    """OpenCV's writer of an mp4 file.

    Args:
        file: ends in `.mp4`.
        rate: pictures a second.
        size: width and height.

    Raises:
        DataError: OpenCV cannot write there.
    """
    cv2 = opencv("annotated videos")
    found = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
    if not found.isOpened():
        raise DataError(f"OpenCV cannot write {file}")
    return found


def opencv(purpose: str) -> Any:
    """The package cv2, silent.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise UsageError(
            f"Expected OpenCV for {purpose}. Received: no package cv2; run pip install "
            "'fer_experiments[faces]'"
        ) from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


@contextmanager
def _opened(cv2: Any, source: str | int) -> Iterator[Any]:
    """The capture, None where nothing can be opened."""
    capture = cv2.VideoCapture(source)
    try:
        yield capture if capture.isOpened() else None
    finally:
        capture.release()
