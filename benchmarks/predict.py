"""How long `fer predict` takes, and how much memory, against the bare minimum, in turns.

    python -m benchmarks.predict [--yunet FILE]

Trains quick's demo on drawn faces first, with the backbone that is named, and exports its champion.
Prints a line of JSON for each row: predict_cold and predict_cold_onnx (from typing to the answer,
against the imports alone), predict_folder (crops a second against the bare compiled forward pass),
predict_memory (anonymous memory of many pictures against few). Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from benchmarks.processes import ask, fer, run

_TURNS = 5
_TRAINED = [
    "--recipe",
    "demo",
    "--synthetic-count",
    "700",
    "--epochs",
    "1",
    "--finetune-epochs",
    "1",
]


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__)
    parser.add_argument("--yunet", type=Path, metavar="FILE", help="for the memory of photos")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--crops", type=int, default=10_000)
    parser.add_argument("--photos", type=int, default=2_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fer-predict-") as temporary:
        folder = Path(temporary)
        fer("main", "--backbones", asked.backbone, *_TRAINED, folder=folder)
        fer("export", "--out", "champion.onnx", folder=folder)
        _draw(folder, asked.crops, asked.photos)
        for row in (
            *_cold(folder),
            _rate(folder, asked.crops),
            *_memory(folder, asked.crops, asked.photos, asked.yunet),
        ):
            print(json.dumps({"backbone": asked.backbone, **row}), flush=True)


def _draw(folder: Path, crops: int, photos: int) -> None:
    """Crops of 48 pixels; photos of 320, each a little different."""
    rng = np.random.default_rng(0)
    for name, count in (("crops", crops), ("some crops", max(1, crops // 20))):
        (folder / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photo = Image.open(path).convert("RGB").resize((273, 320))
    for name, count in (("photos", photos), ("some photos", max(1, photos // 10))):
        (folder / name).mkdir()
        for i in range(count):
            photo.rotate(i % 7 - 3).save(folder / name / f"{i}.jpg")
    Image.fromarray(np.full((48, 48), 90, np.uint8)).save(folder / "face.png")


def _cold(folder: Path) -> list[dict[str, Any]]:
    rows = []
    onnx = ["--model", "champion.onnx"]
    for name, arguments, imports in (
        ("predict_cold", [], "import tensorflow, mlflow"),
        ("predict_cold_onnx", onnx, "import onnxruntime, numpy, PIL"),
    ):
        ours, bare = [], []
        for _ in range(_TURNS):
            bare.append(run("-c", imports, folder=folder).seconds)
            ours.append(fer("predict", "face.png", *arguments, folder=folder).seconds)
        ratio = median(ours) / median(bare)
        rows.append({"name": name, "ratio": round(ratio, 2), "seconds": round(median(ours), 2)})
    return rows


def _rate(folder: Path, crops: int) -> dict[str, Any]:
    """Crops a second of the command, its start left out, against the forward pass alone."""
    one = fer("predict", "face.png", "--json", folder=folder).seconds
    many = fer("predict", "crops", "--json", folder=folder).seconds
    bare, _ = ask("predict_bare", folder, crops=crops)
    ours = crops / (many - one)
    return {
        "name": "predict_folder",
        "ratio": round(ours / bare, 2),
        "crops a second": round(ours),
        "bare": round(bare),
    }


def _memory(folder: Path, crops: int, photos: int, yunet: Path | None) -> list[dict[str, Any]]:
    kinds = [("crops", crops, ["--detector", "none"])]
    if yunet:
        kinds.append(("photos", photos, ["--detector", f"yunet:{yunet.absolute()}"]))
    rows = []
    for name, count, arguments in kinds:
        few, many = (
            fer("predict", which, "--json", *arguments, folder=folder).anonymous_megabytes
            for which in (f"some {name}", name)
        )
        rows.append(
            {
                "name": f"predict_memory of {count} {name}",
                "ratio": round(many / few, 3),
                "megabytes": round(many),
            }
        )
    return rows


if __name__ == "__main__":
    main()
