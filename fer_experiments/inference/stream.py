"""Pictures in, answers out, in order and in batches: memory stays flat over any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fer_experiments.data.files import Unreadable
from fer_experiments.faces.photos import Photo, Search
from fer_experiments.inference.predictor import Predictor

# Crops that go through the model at a time, and pictures that are read ahead of it.
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture that can be read, twice if it is to be drawn in."""

    name: str  # a file, as text
    read: Callable[[], bytes | np.ndarray]  # a file's content, or colours; raises Unreadable
    time: float | None = None  # of a video, seconds from its beginning


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What came of a source."""

    source: Source
    photo: Photo | None  # None: it could not be read
    reason: str = ""  # why not
    # (F, C), a row for each of the photo's crops
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))


def judge(
    predictor: Predictor, sources: Iterable[Source], search: Search, *, largest: bool = False
) -> Iterator[Picture]:
    """Reads, searches and judges each source; one that cannot be read stops nothing.

    Args:
        predictor: the model.
        sources: in the order in which pictures are given back.
        search: whether and with what faces are searched.
        largest: the largest face of each picture only.

    Raises:
        ConfigError, UsageError: the detector cannot be used.
    """
    waiting: list[Picture] = []
    crops = 0
    for source in sources:
        try:
            photo = predictor.read(source.read(), search, largest=largest)
        except Unreadable as error:
            waiting.append(Picture(source=source, photo=None, reason=str(error)))
        else:
            waiting.append(Picture(source=source, photo=photo))
            crops += len(photo.crops)
        if crops >= BATCH or len(waiting) >= BATCH:
            yield from _answered(predictor, waiting)
            waiting, crops = [], 0
    yield from _answered(predictor, waiting)


def _answered(predictor: Predictor, pictures: list[Picture]) -> Iterator[Picture]:
    crops = [crop.pixels for p in pictures if p.photo for crop in p.photo.crops]
    found = predictor.probabilities(np.stack(crops)) if crops else np.empty((0, 0), np.float32)
    done = 0
    for picture in pictures:
        count = len(picture.photo.crops) if picture.photo else 0
        yield Picture(
            source=picture.source,
            photo=picture.photo,
            reason=picture.reason,
            probabilities=found[done : done + count],
        )
        done += count
