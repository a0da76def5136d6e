"""`predict`: the faces in any photos, videos or a camera's pictures, and what each shows."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments import console
from fer_experiments.data.files import (
    IMAGE_SUFFIXES,
    UNREAD_IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Unreadable,
    as_text,
    expanded,
    is_file,
    is_folder,
    located,
    read_file,
    suffix_of,
)
from fer_experiments.data.images import decode
from fer_experiments.data.listing import FolderFiles
from fer_experiments.errors import UsageError, quote
from fer_experiments.faces.alignment import Face
from fer_experiments.faces.detection import AUTO
from fer_experiments.faces.photos import Search
from fer_experiments.inference.files import is_model_file, open_predictor
from fer_experiments.inference.predictor import Predictor
from fer_experiments.inference.stream import Picture, Source, judge
from fer_experiments.reporting.photo_notes import photo_warning
from fer_experiments.secrets import redact
from fer_experiments.stages.annotate import Annotator

# Files of a kind that are named when they are left out.
_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for besides pictures and a model."""

    detector: str = AUTO  # see `faces.detection`
    largest: bool = False  # the largest face of each picture only
    every: float = 1.0  # of a video, seconds between two pictures
    annotate: str | None = None  # a folder for copies with what was found drawn in
    heat_map: bool = False  # drawn in too: where the model looked


@dataclass(frozen=True, kw_only=True)
class Row:
    """A face and what the model says of it; or a picture without an answer, and why."""

    file: str
    time: float | None = None  # of a video, seconds from its beginning
    face: int | None = None  # its number, from 1, the largest first
    faces: int = 0  # in the picture
    way: str | None = None  # how pixels were come by; see `Photo`
    found: Face | None = None  # None: the picture was not searched
    predicted: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    annotated: str | None = None  # name of the copy with what was found drawn in

    def as_json(self) -> dict[str, Any]:
        """For JSON Lines; coordinates in pixels of the upright picture."""
        row: dict[str, Any] = {"file": self.file}
        if self.time is not None:
            row["time"] = round(self.time, 3)
        if self.annotated is not None:
            row["annotated"] = self.annotated
        if self.error is not None:
            return row | {"error": self.error}
        return row | {
            "face": self.face,
            "faces": self.faces,
            "way": self.way,
            "box": self.found and [round(value, 1) for value in self.found.box],
            "score": self.found and round(self.found.score, 4),
            "predicted": self.predicted,
            "probabilities": self.probabilities,
        }


@dataclass
class Predictions:
    """The answers of one command as they come; counts are whole when all rows have come."""

    predictor: Predictor
    model: dict[str, Any]  # for scripts: uri, run_id, versions
    answered: str  # model, versions, aliases and run in words
    sources: Iterator[Source]
    count: int  # files; 0: a camera, nobody knows
    options: Options
    others: defaultdict[str, list[str]]  # what lies in folders and is no picture, by its ending
    judged: set[str] = field(default_factory=set)  # files with a face, or taken as they are
    faces: int = 0
    without_face: int = 0  # pictures
    unreadable: list[str] = field(default_factory=list)  # "file: reason"
    shrunk: int = 0  # pictures that look like photos and were not searched
    searched: int = 0  # pictures in which faces were found
    photo_warning: str | None = None  # what the model loses on those
    whites: Counter[str] = field(default_factory=Counter)

    def rows(self) -> Iterator[Row]:
        """In the order of the files, at least one for each."""
        search = Search(self.options.detector)
        asked = self.options
        annotator = Annotator(
            asked.annotate, self.predictor, heat_map=asked.heat_map, every=asked.every
        )
        pictures = judge(self.predictor, self.sources, search, largest=self.options.largest)
        last = ""
        with console.progress(self.count) as advance, annotator:
            for picture in pictures:
                copy = annotator.draw(picture)
                yield from (replace(row, annotated=copy) for row in self._rows_of(picture))
                if picture.source.name != last:
                    advance(1)
                last = picture.source.name

    def _rows_of(self, picture: Picture) -> list[Row]:
        file, seconds, photo = picture.source.name, picture.source.time, picture.photo
        if photo is None:
            self.unreadable.append(f"{quote(file, 200)}: {picture.reason}")
            return [Row(file=file, time=seconds, error=picture.reason)]
        if photo.white_because:
            self.whites[f"{photo.white:g} is white, {photo.white_because}"] += 1
        self.shrunk += photo.shrunk
        if not photo.crops:
            self.without_face += 1
            return [Row(file=file, time=seconds, error="no face was found")]
        self.judged.add(file)
        self.searched += photo.crops[0].face is not None
        self.faces += len(photo.crops)
        names = self.predictor.class_names
        return [
            Row(
                file=file,
                time=seconds,
                face=number,
                faces=len(photo.crops),
                way=photo.way,
                found=crop.face,
                predicted=names[int(p.argmax())],
                probabilities=dict(zip(names, map(float, p), strict=True)),
            )
            for number, (crop, p) in enumerate(
                zip(photo.crops, picture.probabilities, strict=True), start=1
            )
        ]

    @property
    def left_out(self) -> list[str]:
        """By kind, what lies in the folders and is no picture."""
        return _left_out(self.others)

    @property
    def failures(self) -> list[str]:
        """What kept files from being judged, in words."""
        lines = []
        if self.without_face:
            lines.append(f"no face was found in {self.without_face} pictures")
        if self.unreadable:
            some = "; ".join(self.unreadable[:3])
            more = f" and {len(self.unreadable) - 3} more" if len(self.unreadable) > 3 else ""
            lines.append(f"{len(self.unreadable)} files could not be read: {some}{more}")
        return lines

    def summary(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "model": self.model,
            "images": len(self.judged),
            "faces": self.faces,
            "without_face": self.without_face,
            "unreadable": self.unreadable,
            "left_out": self.left_out,
        }

    def as_cells(self, row: Row) -> list[Any]:
        """A row of the table for spreadsheets, under `columns`."""
        box = row.found.box if row.found else ("",) * 4
        return [
            row.file,
            "" if row.time is None else f"{row.time:.3f}",
            row.face or "",
            row.faces or "",
            row.way or "",
            *(value if value == "" else f"{value:.1f}" for value in box),
            f"{row.found.score:.4f}" if row.found else "",
            row.predicted or "",
            *(row.probabilities.get(name, "") for name in self.predictor.class_names),
            row.error or "",
            self.model["uri"],
            " ".join(f"{v['name']}/{v['version']}" for v in self.model["versions"]),
            " ".join(alias for v in self.model["versions"] for alias in v["aliases"]),
            self.model["run_id"],
        ]

    @property
    def columns(self) -> list[str]:
        """Heads of that table."""
        return [
            "file", "time", "face", "faces", "way", "left", "top", "width", "height", "score",
            "predicted", *self.predictor.class_names, "error",
            "model_uri", "model_version", "model_alias", "run_id",
        ]  # fmt: skip


def run(
    paths: Sequence[str],
    *,
    model: str | None = None,
    model_name: str | None = None,
    options: Options | None = None,
    camera: str | None = None,
) -> Predictions:
    """Finds the files and the model; the answers come by `Predictions.rows`.

    Args:
        paths: image files, videos, and folders of them.
        model: a model URI, or a file that `fer export` wrote.
        model_name: the registered model whose champion predicts; None: the only one.
        options: how pictures are searched and what is drawn.
        camera: in place of files, what OpenCV opens.

    Raises:
        UsageError: a path does not exist, or there is no picture.
        RunError: there is no champion, or more than one registered model and no name.
    """
    options = options or Options()
    if not options.every > 0:
        raise UsageError(f"Expected every to be above 0 seconds. Received: {options.every}")
    Search(options.detector)  # refused before anything is loaded
    others: defaultdict[str, list[str]] = defaultdict(list)
    if camera is not None:
        if paths:
            raise UsageError("Expected one of pictures and --camera. Received: both")
        sources, count = _of_camera(camera), 0
    else:
        files = _files(paths, others)
        sources, count = _of_files(files, others, options.every), len(files)
    predictor, told, answered, warning = _predictor(model, model_name)
    return Predictions(
        predictor=predictor,
        photo_warning=warning,
        model=told,
        answered=answered,
        sources=sources,
        count=count,
        options=options,
        others=others,
    )


def _predictor(
    model: str | None, model_name: str | None
) -> tuple[Predictor, dict[str, Any], str, str | None]:
    """The model, who it is for scripts and in words, and what to say before it judges photos."""
    if model is not None and is_model_file(model):
        return _from_file(model, model_name)
    from fer_experiments.stages import selection
    from fer_experiments.tracking import registry
    from fer_experiments.tracking.models import load_predictor, metrics_of

    logged = selection.predictor(model, model_name)
    versions = registry.holding(logged.uri)
    console.load_keras()
    told = {
        "uri": logged.uri,
        "run_id": logged.source_run_id,
        "versions": [
            {"name": v.name, "version": v.number, "aliases": list(v.aliases)} for v in versions
        ],
    }
    answered = selection.answered(logged, versions)
    warning = photo_warning(metrics_of(logged))
    return load_predictor(logged, versions=versions), told, answered, warning


def _from_file(
    model: str, model_name: str | None
) -> tuple[Predictor, dict[str, Any], str, str | None]:
    """A model that `fer export` wrote: of an ONNX file without TensorFlow, Keras and MLflow."""
    if model_name is not None:
        raise UsageError("Expected one of model and model_name. Received: both")
    predictor = open_predictor(model)
    identity = predictor.identity
    registered = [version.rpartition("/") for version in identity.versions if "/" in version]
    told = {
        "uri": identity.uri,
        "run_id": identity.run_id,
        "file": identity.address,
        "versions": [
            {"name": name, "version": int(number), "aliases": []}
            for name, _, number in registered
            if number.isdecimal()
        ],
    }
    return predictor, told, str(identity), None


def _of_files(
    files: Mapping[Path, bool], others: defaultdict[str, list[str]], every: float
) -> Iterator[Source]:
    for file, is_image in files.items():
        name = as_text(str(file))
        suffix = suffix_of(file.name)
        if suffix in VIDEO_SUFFIXES:
            yield from _of_video(file, name, every)
        elif suffix in UNREAD_IMAGE_SUFFIXES:
            yield Source(name=name, read=partial(_refuse, _unread(suffix)))
        elif is_image or _is_image(file):
            yield Source(name=name, read=partial(read_file, file))
        else:
            others[""].append(name)


def _of_video(file: Path, name: str, every: float) -> Iterator[Source]:
    from fer_experiments.faces.video import frames

    try:
        for seconds, rgb in frames(file, every=every):
            yield Source(name=name, read=partial(_given, rgb), time=seconds)
    except Unreadable as error:
        yield Source(name=name, read=partial(_refuse, str(error)))


def _of_camera(camera: str) -> Iterator[Source]:
    from fer_experiments.faces.video import camera as pictures

    started = time.monotonic()
    for rgb in pictures(camera):
        seconds = time.monotonic() - started
        yield Source(name=f"camera {camera}", read=partial(_given, rgb), time=seconds)


def _given(rgb: np.ndarray) -> np.ndarray:
    return rgb


def _unread(suffix: str) -> str:
    how = "; pip install pillow-heif reads it" if suffix in (".heic", ".heif") else ""
    return f"{suffix} is no format that is read{how}"


def _refuse(reason: str) -> bytes:
    raise Unreadable(reason)


def _is_image(file: Path) -> bool:
    """Whether a file that nothing says to be an image is one all the same."""
    try:
        decode(read_file(file))
    except Unreadable:
        return False
    return True


def _files(paths: Sequence[str], others: defaultdict[str, list[str]]) -> dict[Path, bool]:
    """Files to read; what is none goes to `others`, by its ending ("junk": left by programs).

    Whether a file to read is said to be an image, by its ending or by whoever named it: only then
    is it an error if it is none.
    """
    files: dict[Path, bool] = {}
    read = IMAGE_SUFFIXES | UNREAD_IMAGE_SUFFIXES | VIDEO_SUFFIXES
    for given in paths:
        path = expanded(given)
        if is_folder(path):
            found, junk = _below(path)
            for file in found:
                suffix = suffix_of(file.name)
                if suffix in read or not suffix:
                    files.setdefault(file, bool(suffix))
                else:
                    others[suffix].append(as_text(str(file)))
            others["junk"] += [as_text(str(file)) for file in junk]
        elif is_file(path):
            files[path] = True
        else:
            raise UsageError(
                f"Expected an image, a video or a folder. Received: {quote(given, 200)} "
                f"(looked for {quote(located(redact(given)), 300)})"
            )
    if not files:
        unused = "".join(f"; left out: {kind}" for kind in _left_out(others))
        raise UsageError(f"Expected images. Found: none in {quote(', '.join(paths), 300)}{unused}")
    return files


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files below a folder, and what systems and programs left there; sorted.

    Raises:
        DataError: a folder may not be read, or links lead too far.
    """
    listing = FolderFiles(folder).listing()
    files = sorted(folder / relative for relative, _ in listing.files)
    return files, sorted(folder / relative for relative in listing.junk)


def _left_out(others: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each kind of file that is no picture."""
    lines = []
    for suffix in sorted(others):
        paths = sorted(others[suffix])
        if not paths:
            continue
        kind = suffix or "without an ending, no images"
        some = ", ".join(quote(path, 200) for path in paths[:_EXAMPLES])
        more = f" and {len(paths) - _EXAMPLES} more" if len(paths) > _EXAMPLES else ""
        lines.append(f"{len(paths)} {kind} ({some}{more})")
    return lines
