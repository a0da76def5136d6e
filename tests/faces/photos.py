"""Pictures for the tests: a real photo, which comes with matplotlib, and what it is turned into."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

# The face's box and eyes in the photo, read off by eye: left, top, width, height.
BOX = (184, 118, 168, 215)
EYES = ((227, 195), (309, 197))


def grace_hopper() -> Image.Image:
    """512 × 600 pixels, one face; public domain (US Navy)."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return Image.open(path).convert("RGB")


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def smooth(size: int, *, seed: int = 0) -> np.ndarray:
    """Grey (size, size) uint8 without fine patterns, so that sampling it costs little."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
