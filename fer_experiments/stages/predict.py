"""`predict`: class probabilities for any image files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments import console
from fer_experiments.data.files import (
    IMAGE_SUFFIXES,
    UNREAD_IMAGE_SUFFIXES,
    Unreadable,
    as_text,
    expanded,
    is_file,
    is_folder,
    located,
    read_file,
    suffix_of,
)
from fer_experiments.data.listing import FolderFiles
from fer_experiments.errors import DataError, UsageError, quote
from fer_experiments.faces.square import square
from fer_experiments.secrets import redact
from fer_experiments.stages import selection
from fer_experiments.stages.selection import predictor
from fer_experiments.tracking import registry
from fer_experiments.tracking.models import LoggedModel, load_predictor
from fer_experiments.tracking.registry import Version

# Files of a kind that are named when they are left out.
_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Probabilities of each image, which model gave them, and what was not predicted."""

    model: LoggedModel
    versions: tuple[Version, ...]  # registered versions that are this model
    answered: str  # model, versions, aliases and run in words
    files: tuple[str, ...]
    probabilities: np.ndarray  # (N, C)
    bad: tuple[str, ...]  # "file: reason"
    left_out: tuple[str, ...]  # by kind, what lies in the folders and is no image that is read
    whites: tuple[str, ...]  # of files of more than 8 bits: what was taken for white, and why
    larger: int  # images that were shrunk by more than half: photos rather than cut-out faces

    @property
    def classes(self) -> list[str]:
        """The class of each image, (N,)."""
        return [self.model.class_names[int(p.argmax())] for p in self.probabilities]

    def as_json(self) -> list[dict[str, Any]]:
        """An object for each image (file, predicted, probabilities by class), then a summary."""
        names = self.model.class_names
        rows: list[dict[str, Any]] = [
            {
                "file": file,
                "predicted": predicted,
                "probabilities": dict(zip(names, map(float, p), strict=True)),
            }
            for file, predicted, p in zip(self.files, self.classes, self.probabilities, strict=True)
        ]
        summary = {
            "model": {
                "uri": self.model.uri,
                "run_id": self.model.source_run_id,
                "versions": [
                    {"name": v.name, "version": v.number, "aliases": list(v.aliases)}
                    for v in self.versions
                ],
            },
            "images": len(self.files),
            "unreadable": list(self.bad),
            "left_out": list(self.left_out),
        }
        return [*rows, {"summary": summary}]

    def as_rows(self) -> list[list[Any]]:
        """A header and a row for each image; last the columns that tell the model."""
        model = [
            self.model.uri,
            " ".join(f"{v.name}/{v.number}" for v in self.versions),
            " ".join(alias for v in self.versions for alias in v.aliases),
            self.model.source_run_id,
        ]
        told = ["model_uri", "model_version", "model_alias", "run_id"]
        rows: list[list[Any]] = [["file", "predicted", *self.model.class_names, *told]]
        for file, predicted, p in zip(self.files, self.classes, self.probabilities, strict=True):
            rows.append([file, predicted, *map(float, p), *model])
        return rows


def run(
    paths: Sequence[str], *, model: str | None = None, model_name: str | None = None
) -> Predictions:
    """Predicts each file, and every image below each folder.

    A photo becomes pixels as the images did that the model was trained on: turned grey, cut to its
    central square and scaled to the model's size. Faces are not searched for.

    Args:
        paths: image files and folders.
        model: a model URI.
        model_name: the registered model whose champion predicts; None: the only one.

    Raises:
        UsageError: a path does not exist, or there is no image.
        RunError: there is no champion, or more than one registered model and no name.
        DataError: no image could be read.
    """
    files, others = _files(paths)
    logged = predictor(model, model_name)
    pixels, good, bad, larger = [], [], [], 0
    whites: Counter[str] = Counter()
    for file, is_image in files.items():
        name = as_text(str(file))
        try:
            photo = square(read_file(file), size=logged.image_size, rule=logged.rule)
        except Unreadable as error:
            if is_image:
                bad.append(f"{quote(name, 200)}: {error}")
            else:
                others[""].append(name)
            continue
        if photo.white_because:
            whites[f"{photo.white:g} is white, {photo.white_because}"] += 1
        larger += photo.shrunk
        pixels.append(photo.pixels)
        good.append(name)
    unused = _left_out(others)
    if not good:
        what = "; ".join([*bad[:3], *(f"left out: {kind}" for kind in unused)])
        raise DataError(f"None of {len(files)} files could be read ({what})")
    versions = registry.holding(logged.uri)
    console.load_keras()
    return Predictions(
        model=logged,
        versions=tuple(versions),
        answered=selection.answered(logged, versions),
        files=tuple(good),
        probabilities=load_predictor(logged).probabilities(np.stack(pixels)),
        bad=tuple(bad),
        left_out=tuple(unused),
        whites=tuple(f"{count} of more than 8 bits: {how}" for how, count in whites.items()),
        larger=larger,
    )


def _files(paths: Sequence[str]) -> tuple[dict[Path, bool], defaultdict[str, list[str]]]:
    """Files to read, and the others by their ending ("junk" for what programs left).

    Whether a file to read is said to be an image, by its ending or by whoever named it: only then
    is it an error if it is none.
    """
    files: dict[Path, bool] = {}
    others: defaultdict[str, list[str]] = defaultdict(list)
    for given in paths:
        path = expanded(given)
        if is_folder(path):
            found, junk = _below(path)
            for file in found:
                suffix = suffix_of(file.name)
                if suffix in IMAGE_SUFFIXES or not suffix:
                    files.setdefault(file, bool(suffix))
                else:
                    others[suffix].append(as_text(str(file)))
            others["junk"] += [as_text(str(file)) for file in junk]
        elif is_file(path):
            files[path] = True
        else:
            raise UsageError(
                f"Expected an image file or a folder. Received: {quote(given, 200)} "
                f"(looked for {quote(located(redact(given)), 300)})"
            )
    if not files:
        unused = "".join(f"; left out: {kind}" for kind in _left_out(others))
        raise UsageError(f"Expected images. Found: none in {quote(', '.join(paths), 300)}{unused}")
    return files, others


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files below a folder, and what systems and programs left there; sorted.

    Raises:
        DataError: a folder may not be read, or links lead too far.
    """
    listing = FolderFiles(folder).listing()
    files = sorted(folder / relative for relative, _ in listing.files)
    return files, sorted(folder / relative for relative in listing.junk)


def _left_out(others: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each kind of file that is not read."""
    lines = []
    for suffix in sorted(others):
        paths = sorted(others[suffix])
        if not paths:
            continue
        kind = suffix or "without an ending, no images"
        if suffix in UNREAD_IMAGE_SUFFIXES:
            kind += ", a kind of image that is not read"
        some = ", ".join(quote(path, 200) for path in paths[:_EXAMPLES])
        more = f" and {len(paths) - _EXAMPLES} more" if len(paths) > _EXAMPLES else ""
        lines.append(f"{len(paths)} {kind} ({some}{more})")
    return lines
