"""Sources whose prepared form, made by version 0.1.0 before layout.py, lies in earlier.zip.

Made with that version: `python -m tests.data.earlier FOLDER`, which prepares each of REQUESTS and
packs the data home. The bytes of the sources hang on nothing that is installed.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from fer_experiments.config import DataConfig
from fer_experiments.data.images import FER_CLASSES

SIZE = 16
HOME = Path(__file__).parent / "earlier.zip"


def pgm(number: int) -> bytes:
    """A grey image file that no other number has."""
    pixels = bytes((number * 37 + i * (number % 11 + 1)) % 256 for i in range(SIZE * SIZE))
    return b"P5 16 16 255\n" + pixels


def _files(*patterns: tuple[str, int]) -> dict[str, bytes]:
    """`{c}` and `{i:06d}` in the patterns become each class and a running number."""
    numbers = iter(range(10**6))
    return {
        pattern.format(c=name, i=i): pgm(i)
        for pattern, count in patterns
        for name in FER_CLASSES
        for _ in range(count)
        for i in [next(numbers)]
    }


SOURCES = {
    "archive": _files(
        ("train/{c}/Training_{i:06d}.pgm", 5),
        ("test/{c}/PublicTest_{i:06d}.pgm", 1),
        ("test/{c}/PrivateTest_{i:06d}.pgm", 1),
    ),
    "own": _files(("{c}/{i:06d}.pgm", 5)),
    "parts": _files(("Train/{c}/{i:06d}.pgm", 5), ("Test/{c}/{i:06d}.pgm", 2)),
    "three": _files(
        ("train/{c}/{i:06d}.pgm", 5), ("val/{c}/{i:06d}.pgm", 1), ("test/{c}/{i:06d}.pgm", 1)
    ),
    "extra": _files(("train/images/{c}/{i:06d}.pgm", 5), ("test/images/{c}/{i:06d}.pgm", 2)),
}
CSV = "\n".join(
    [
        "emotion,pixels,Usage",
        *(
            f"{i % 7},{' '.join(map(str, pgm(i)[-SIZE * SIZE :]))},{usage}"
            for i, usage in enumerate(
                ["Training"] * 35 + ["PublicTest"] * 14 + ["PrivateTest"] * 14
            )
        ),
        "",
    ]
)
# Source and split of each request.
REQUESTS = [
    ("archive.zip", "official"),
    ("archive.zip", "holdout"),
    ("archive", "official"),
    ("archive", "holdout"),
    ("own.zip", "holdout"),
    ("own", "holdout"),
    ("parts.zip", "holdout"),
    ("three.zip", "holdout"),  # val was taken for test
    ("extra.zip", "holdout"),  # test was taken for train
    ("fer2013.csv", "official"),
    ("fer2013.csv", "holdout"),
]


def write(root: Path) -> Path:
    """Writes every source: as a zip, and as a folder with fixed times of change."""
    root.mkdir(parents=True, exist_ok=True)
    for name, files in SOURCES.items():
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
                (root / name / path).parent.mkdir(parents=True, exist_ok=True)
                (root / name / path).write_bytes(content)
                os.utime(root / name / path, (10**9, 10**9))
    (root / "fer2013.csv").write_text(CSV)
    return root


def config(root: Path, source: str, split: str) -> DataConfig:
    """The request for one of the sources."""
    return DataConfig(dataset=str(root / source), split=split, image_size=SIZE)


if __name__ == "__main__":
    import sys

    from fer_experiments.data.prepared import prepare

    folder = Path(sys.argv[1]).absolute()
    os.environ["FER_DATA_HOME"] = str(folder / "home")
    write(folder)
    os.chdir(folder)
    for asked in REQUESTS:
        print(*asked, prepare(config(Path(), *asked)).folder.name)  # noqa: T201
    with zipfile.ZipFile(HOME, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted((folder / "home").rglob("*")):
            if file.is_file():
                packed.write(file, file.relative_to(folder / "home"))
