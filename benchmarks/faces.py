"""`python -m benchmarks.faces [--yunet FILE] [--pasted DATASET]`: how many faces are found.

Two photos of people (scikit-image's astronaut, matplotlib's grace_hopper) in 38 variants each,
eight of them turned by more than a detector is made for, and pictures without people. With
`--pasted`, val images of FER-2013 as the photo score pastes them, and how far the aligned squares
lie from where they were. Prints a line of JSON for each detector. Needs scikit-image.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from fer_experiments.config import DataConfig
from fer_experiments.faces.alignment import square_of
from fer_experiments.faces.detection import FaceDetector, find_faces, open_detector
from fer_experiments.faces.pasted import paste
from fer_experiments.faces.preparing import prepare

Box = tuple[float, float, float, float]  # left, top, width, height
# Read off by eye.
ASTRONAUT, GRACE_HOPPER = (178, 62, 90, 115), (184, 118, 168, 215)
# Of scikit-image's pictures those that come with it and show nobody.
WITHOUT_PEOPLE = (
    "brick", "cat", "coffee", "coins", "grass", "gravel", "horse", "hubble_deep_field",
    "immunohistochemistry", "moon", "page", "retina", "rocket", "text", "colorwheel", "cell",
)  # fmt: skip


def variants(photo: Image.Image, box: Box) -> Iterator[tuple[str, Image.Image, Box]]:
    """What was done, the picture, and where the face is then."""
    rng = np.random.default_rng(0)
    yield "as it is", photo, box
    yield "grey", photo.convert("L").convert("RGB"), box
    mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    yield "mirrored", mirrored, (photo.width - box[0] - box[2], *box[1:])
    for factor in (4.0, 2.0, 0.7, 0.5, 0.35, 0.25):
        size = (round(photo.width * factor), round(photo.height * factor))
        image = photo.resize(size, Image.Resampling.BICUBIC)
        yield f"× {factor:g}", image, tuple(factor * v for v in box)  # type: ignore[misc]
    for name, factor in (("dark", 0.25), ("darker", 0.12), ("bright", 1.8), ("brighter", 2.6)):
        yield name, ImageEnhance.Brightness(photo).enhance(factor), box
    for factor in (0.3, 2.0):
        yield f"contrast × {factor:g}", ImageEnhance.Contrast(photo).enhance(factor), box
    for radius in (2, 4):
        yield f"blurred {radius}", photo.filter(ImageFilter.GaussianBlur(radius)), box
    for spread in (20, 40):
        noise = rng.normal(0, spread, (photo.height, photo.width, 3))
        noisy = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
        yield f"noise {spread}", Image.fromarray(noisy), box
    for quality in (20, 8):
        stream = io.BytesIO()
        photo.save(stream, "JPEG", quality=quality)
        yield f"JPEG {quality}", Image.open(io.BytesIO(stream.getvalue())).convert("RGB"), box
    left, top, width, height = box
    for name, (x0, y0, x1, y1) in {
        "sunglasses": (0.1, 0.28, 0.9, 0.46), "mask": (0.1, 0.58, 0.9, 1.0),
        "half hidden": (0.5, 0.0, 1.0, 1.0),
    }.items():  # fmt: skip
        covered = photo.copy()
        place = (left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height)
        ImageDraw.Draw(covered).rectangle(place, fill="#202020")
        yield name, covered, box
    cut = photo.crop((int(left - 0.2 * width), int(top - 0.1 * height), *photo.size))
    yield "at the edge", cut, (0.2 * width, 0.1 * height, width, height)
    small = Image.new("RGB", (1600, 1200), "#708090")
    small.paste(photo.resize((photo.width // 2, photo.height // 2)), (900, 500))
    yield "small in a large one", small, (900 + left / 2, 500 + top / 2, width / 2, height / 2)
    for degrees in (-20, -10, 10, 20):
        yield f"turned {degrees}", *_turned(photo, box, degrees)
    for degrees in (-45, 45, 60, 90, 120, 180, 240, 270):
        yield f"turned far {degrees}", *_turned(photo, box, degrees)


def _turned(photo: Image.Image, box: Box, degrees: float) -> tuple[Image.Image, Box]:
    image = photo.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="grey")
    middle = complex(photo.width, photo.height) / 2
    there = complex(image.width, image.height) / 2
    centre = complex(box[0] + box[2] / 2, box[1] + box[3] / 2)
    centre = (centre - middle) * np.exp(-1j * np.deg2rad(degrees)) + there
    # A detector's box stays upright: between the face's width and height.
    side = (box[2] * box[3]) ** 0.5
    return image, (centre.real - side / 2, centre.imag - side / 2, side, side)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def faces_found(detector: FaceDetector) -> dict[str, object]:
    """Shares found of upright and of all variants, and false boxes."""
    import skimage.data

    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photos = (
        (Image.fromarray(skimage.data.astronaut()), ASTRONAUT),
        (Image.open(path).convert("RGB"), GRACE_HOPPER),
    )
    found: dict[str, list[bool]] = {"upright": [], "far": []}
    missed, false_beside = [], 0
    for number, (photo, box) in enumerate(photos):
        for name, image, where in variants(photo, box):
            faces = find_faces(np.asarray(image), detector)
            hits = [bool(overlap(face.box, where) >= 0.5) for face in faces]
            found["far" if "far" in name else "upright"].append(any(hits))
            false_beside += hits.count(False)
            if not any(hits):
                missed.append(f"{number} {name}")
    false, empty = 0, 0
    for name in WITHOUT_PEOPLE:
        try:
            image = Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB")
        except (AttributeError, OSError, ModuleNotFoundError, ValueError, TypeError):
            continue  # this version would download it
        empty += 1
        false += len(find_faces(np.asarray(image), detector))
    both = found["upright"] + found["far"]
    return {
        "detector": detector.name,
        "upright": f"{sum(found['upright'])} of {len(found['upright'])}",
        "all": f"{sum(both)} of {len(both)}",
        "false boxes beside them": false_beside,
        "false boxes in pictures without people": f"{false} in {empty}",
        "missed": missed,
    }


def squares_agree(detector: FaceDetector, images: np.ndarray) -> dict[str, object]:
    """How far the squares that were found lie from those that were pasted, pixels of the crop."""
    size = images.shape[1]
    rows = []
    for number, image in enumerate(images):
        pasted = paste(np.asarray(image), np.random.default_rng([0, number]))
        faces = find_faces(np.repeat(pasted.picture[..., np.newaxis], 3, axis=2), detector)
        face = next((face for face in faces if pasted.holds(face)), None)
        if face is None:
            continue
        found = square_of(face)
        true, seen = (complex(*square.edge) for square in (pasted.square, found))
        middles = [complex(*s.corner) + (0.5 + 0.5j) * complex(*s.edge) for s in (
            pasted.square, found,
        )]  # fmt: skip
        moved = size * (middles[1] - middles[0]) / true
        ratio = seen / true
        rows.append((moved.real, moved.imag, abs(ratio), np.degrees(np.angle(ratio))))
    table = np.array(rows)
    names = ("right", "down", "scale", "degrees")
    middle = np.median(table, axis=0)
    spread = (np.percentile(table, 75, axis=0) - np.percentile(table, 25, axis=0)) / 2
    return {
        "detector": detector.name,
        "found": f"{len(rows)} of {len(images)}",
        **{name: f"{m:+.2f} ± {s:.2f}" for name, m, s in zip(names, middle, spread, strict=True)},
    }


def main() -> None:
    """Prints what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faces", description=__doc__)
    parser.add_argument("--yunet", type=Path, metavar="FILE")
    parser.add_argument("--pasted", metavar="DATASET", help="such as archive.zip")
    parser.add_argument("--limit", type=int, default=1000, help="val images that are pasted")
    asked = parser.parse_args()
    specs = ["mtcnn", *([f"yunet:{asked.yunet}"] if asked.yunet else [])]
    for spec in specs:
        detector = open_detector(spec)
        print(json.dumps(faces_found(detector), ensure_ascii=False), flush=True)
        if asked.pasted:
            images, _ = prepare(DataConfig(dataset=asked.pasted)).split("val")
            pasted = squares_agree(detector, images[: asked.limit])
            print(json.dumps(pasted, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
