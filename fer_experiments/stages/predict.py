"""`predict`: class probabilities for any image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_experiments import console
from fer_experiments.data.files import (
    Unreadable,
    as_text,
    expanded,
    is_file,
    is_folder,
    located,
    read_file,
)
from fer_experiments.data.images import BYTE, Decoded, decode, to_pixels, white_of
from fer_experiments.errors import DataError, UsageError, shown
from fer_experiments.secrets import redact
from fer_experiments.stages.selection import predictor
from fer_experiments.tracking.models import LoggedModel, load

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Probabilities of each image, and what could not be read."""

    model: LoggedModel
    files: tuple[str, ...]
    probabilities: np.ndarray  # (N, C)
    bad: tuple[str, ...]  # "file: reason"
    larger: int  # images that were shrunk by more than half: photos rather than cut-out faces


def run(
    paths: Sequence[str], *, model: str | None = None, model_name: str | None = None
) -> Predictions:
    """Predicts each file, and every image below each folder.

    A photo is cut to its central square, turned grey and scaled to the model's size; faces are not
    searched for.

    Args:
        paths: image files and folders.
        model: a model URI.
        model_name: the registered model whose champion predicts; None: the only one.

    Raises:
        UsageError: a path does not exist, or there is no image.
        RunError: there is no champion, or more than one registered model and no name.
        DataError: no image could be read.
    """
    files = _files(paths)
    logged = predictor(model, model_name)
    pixels, good, bad, larger = [], [], [], 0
    for file in files:
        name = as_text(str(file))
        try:
            decoded = decode(read_file(file))
            grey, white = decoded.grey, _white(decoded, logged)
        except Unreadable as error:
            bad.append(f"{shown(name, 200)}: {error}")
            continue
        larger += min(grey.shape) > 2 * logged.image_size
        pixels.append(to_pixels(grey, size=logged.image_size, crop=logged.crop, white=white))
        good.append(name)
    if not good:
        raise DataError(f"None of {len(files)} files could be read ({'; '.join(bad[:3])})")
    console.load_keras()
    from fer_experiments.evaluation.predictions import predict

    return Predictions(
        model=logged,
        files=tuple(good),
        probabilities=predict(load(logged), np.stack(pixels)),
        bad=tuple(bad),
        larger=larger,
    )


def _files(paths: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for given in paths:
        path = expanded(given)
        if is_folder(path):
            found = (p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
            files += sorted(p for p in found if not is_folder(p))
        elif is_file(path):
            files.append(path)
        else:
            raise UsageError(
                f"Expected an image file or a folder. Received: {shown(given, 200)} "
                f"(looked for {shown(located(redact(given)), 300)})"
            )
    if not files:
        raise UsageError(f"Expected images. Found: none in {shown(', '.join(paths), 300)}")
    return files


def _white(decoded: Decoded, logged: LoggedModel) -> float:
    """The value that is white in a photo: as its file says, as for the model's images, as it looks.

    Raises:
        Unreadable: its brightest value does not fit.
    """
    highest = float(decoded.grey.max())
    white = decoded.white or logged.white.get(decoded.kind) or white_of(decoded.kind, highest)
    if white is None:
        raise Unreadable(f"its brightest value, {highest:g}, does not tell what is white")
    if decoded.kind != BYTE and highest > white:
        raise Unreadable(
            f"its values reach {highest:g}, and in the model's images {white:g} is white"
        )
    return white
