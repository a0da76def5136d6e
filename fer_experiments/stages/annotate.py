"""Copies of photos and videos with what was found drawn in, for `predict --annotate`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fer_experiments.data.files import expanded, located, suffix_of
from fer_experiments.data.images import decode
from fer_experiments.data.storage import writing_file
from fer_experiments.errors import UsageError, quote
from fer_experiments.faces import video
from fer_experiments.faces.photos import Photo, colours
from fer_experiments.inference.predictor import Predictor
from fer_experiments.inference.stream import Picture
from fer_experiments.reporting.annotations import Mark, annotated
from fer_experiments.secrets import redact


class Annotator:
    """Writes into a folder; without one it does nothing."""

    def __init__(
        self, folder: str | None, predictor: Predictor, *, heat_map: bool, every: float
    ) -> None:
        """Makes the folder; `every`: seconds between the pictures of a video.

        Raises:
            UsageError: heat maps without a folder, or of a model that has none; no folder that is
                new or empty.
        """
        self._folder: Path | None = None
        self._predictor = predictor
        self._heat = predictor.heat_map if heat_map else None
        self._names: dict[str, str] = {}  # of copies, by name of the file
        self._video: _VideoCopy | None = None
        self._rate = 1 / every
        if heat_map and folder is None:
            raise UsageError("Expected --annotate DIR beside --heat-map. Received: none")
        if heat_map and self._heat is None:
            raise UsageError(
                "Expected a Keras model with a feature map of 3×3 or more for --heat-map. "
                f"Received: {predictor.identity}"
            )
        if folder is None:
            return
        self._folder = expanded(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            held = sum(1 for _ in self._folder.iterdir())
        except OSError as error:
            raise UsageError(
                "Expected annotate to be a folder. Received: "
                f"{quote(located(redact(folder)), 300)} ({error.strerror})"
            ) from None
        if held:  # a photo that lies there may be called as a copy will be
            raise UsageError(
                "Expected annotate to be a new or empty folder. Received: "
                f"{quote(located(redact(folder)), 300)}, which holds {held} files"
            )

    def __enter__(self) -> Annotator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_video()

    def draw(self, picture: Picture) -> str | None:
        """Writes a copy of a picture that could be read, or adds it to its video's copy.

        Returns:
            The copy's name in the folder.
        """
        if self._folder is None or picture.photo is None:
            return None
        content = picture.source.read()
        if isinstance(content, bytes):
            rgb = colours(decode(content, colours=True), picture.photo.white)
        else:
            rgb = content
        image = annotated(rgb, self._marks(picture.photo, picture.probabilities))
        name = picture.source.name
        if picture.source.time is None:
            with writing_file(self._folder / self._name_of(name, ".png"), 0) as file:
                image.save(file, "PNG")
            return self._names[name]
        if self._video is None or self._video.of != name:
            self._close_video()
            self._video = _VideoCopy(name, self._folder / self._name_of(name, ".mp4"), self._rate)
        self._video.add(np.asarray(image))
        return self._names[name]

    def _marks(self, photo: Photo, found: np.ndarray) -> list[Mark]:
        crops = photo.crops
        heats: list[Any] = [None] * len(crops)
        if self._heat is not None and crops:
            pixels = np.stack([crop.pixels for crop in crops])
            heats = list(self._heat(pixels, found.argmax(axis=1)))
        names = self._predictor.class_names
        return [
            Mark(
                face=crop.face,
                likeliest=[(names[i], float(p[i])) for i in np.argsort(-p)[:2]],
                heat=heat,
            )
            for crop, p, heat in zip(crops, found, heats, strict=True)
        ]

    def _name_of(self, file: str, suffix: str) -> str:
        """A name of its own in the folder: files of different folders may be called the same."""
        if file not in self._names:
            stem = Path(file).name
            stem = stem.removesuffix(Path(stem).suffix) if suffix_of(stem) else stem
            taken = set(self._names.values())
            number, name = 1, f"{stem}{suffix}"
            while name in taken:
                number += 1
                name = f"{stem} {number}{suffix}"
            self._names[file] = name
        return self._names[file]

    def _close_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None


class _VideoCopy:
    """An annotated video, written beside its place and renamed when it is whole."""

    def __init__(self, of: str, path: Path, rate: float) -> None:
        self.of = of
        self._path, self._rate = path, rate
        self._writing: AbstractContextManager[Path] | None = None
        self._writer: Any = None

    def add(self, rgb: np.ndarray) -> None:
        """One more picture, as large as the first."""
        if self._writer is None:
            # OpenCV tells the format by the name's ending.
            self._writing = writing_file(self._path, 0, suffix=".mp4")
            file = self._writing.__enter__()
            self._writer = video.writer(file, self._rate, (rgb.shape[1], rgb.shape[0]))
        self._writer.write(np.ascontiguousarray(rgb[:, :, ::-1]))

    def close(self) -> None:
        """Puts it in its place."""
        if self._writer is not None and self._writing is not None:
            self._writer.release()
            self._writing.__exit__(None, None, None)
