"""Folders as people have them, drawn at random: each has one right reading, which is known.

As a folder and as a zip, a layout must come to the images, classes and parts that were meant, in
one data set; where its folders can be read in two ways, or a class has no image, it must be
refused, with the option that settles it, and read rightly with that.
"""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fer_experiments.config import DataConfig
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.prepared import prepare
from fer_experiments.errors import FerError
from tests.faults.moments import Tally
from tests.faults.results import Result

_LAYOUTS, _QUICK_LAYOUTS = 400, 40
_SIZE = 16  # pixels
_PER_CLASS = {"train": 5, "val": 1, "test": 2}
_CLASSES = (
    ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"],
    ["Happy", "Sad"],
    ["0", "1", "2", "3"],
    ["freude", "wut", "überraschung"],
    ["with glasses", "no-glasses", "x.y"],
    ["contest", "valley", "strain"],  # hold no part's word, for all their letters
)
_SPELLINGS = {
    "train": ("train", "Train", "TRAINING", "training_set", "X_train", "trainSet", "FER2013Train"),
    "val": ("val", "Validation", "valid", "my-val", "dev", "PublicTest", "FER2013Valid"),
    "test": ("test", "Testing", "TEST images", "test2", "PrivateTest", "FER2013Test"),
}
_NAMES = ("some faces", "test faces", "Train")
_WRAPPERS = ("", "", "faces", "fer dataset", "train_test_split")
_SAYING = ("test faces", "Train", "fer test data")  # folders above all that say a part for nothing
_PASSED = ("images", "data", "Bilder", "faces_48x48")
_OTHERS = ("README.md", "labels.csv", "list.txt", "notes.pdf")
_JUNK = (".DS_Store", "__MACOSX/._x.png", ".ipynb_checkpoints/0-checkpoint.png", "Thumbs.db")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A drawn layout: files as they lie, and what they mean."""

    name: str = "some faces"  # of the folder, and of the zip
    meant: dict[str, tuple[str, str]]  # path of an image -> part, class
    beside: tuple[str, ...] = ()  # files that are no images of a class
    junk: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()  # empty folders
    level: int = 1  # of the classes
    refused: str | None = None  # what the refusal says, where it must be refused at first
    settled: dict[str, Any] = field(default_factory=dict)  # the options that settle that
    official: bool = False  # FER-2013's names tell PublicTest from PrivateTest

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [*self.meant, *self.beside, *self.junk]

    def reading(self) -> set[tuple[str, str, str]]:
        """Path, part and class of every image."""
        return {(path, part, label) for path, (part, label) in self.meant.items()}


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Class folders in or above parts, below pass-through folders, above others, with by-files."""
    classes = draw(st.sampled_from(_CLASSES))
    parts = draw(
        st.sampled_from([(), ("train", "test"), ("train", "val"), ("train", "val", "test")])
    )
    spelt = {part: draw(st.sampled_from(_SPELLINGS[part])) for part in parts}
    passed = draw(st.lists(st.sampled_from(_PASSED), max_size=2, unique=True))
    name = draw(st.sampled_from(_NAMES))
    wrapper = draw(st.sampled_from([*_WRAPPERS, name, *(["fer test data"] if parts else [])]))
    part_below = bool(parts) and draw(st.booleans())
    lacking = draw(st.booleans())  # the test part has no image of the last class
    deeper = draw(st.sampled_from(["no", "no", "own", "some", "repeated"]))
    meant: dict[str, tuple[str, str]] = {}
    for part in parts or ("train",):
        for label in classes[:-1] if lacking and part == "test" else classes:
            for i in range(_PER_CLASS[part]):
                below = {
                    "no": [],
                    "own": [f"{label} person {i % 2}"],
                    "some": [f"person {i}"] if i == 1 and part == "train" else [],
                    "repeated": [f"person {i % 2}"],
                }[deeper]
                said = [spelt[part]] if parts else []
                names = [label, *said, *below] if part_below else [*said, *passed, label, *below]
                names = [*([wrapper] if wrapper else []), *(passed if part_below else []), *names]
                path = "/".join([*names, f"{len(meant):05d}.pgm"])
                meant[path] = (part, label)
    level = 1 + len(passed) + bool(wrapper and wrapper not in _SAYING)
    tests = {part: spelt[part] for part in parts if part != "train"}
    layout = Layout(
        name=name,
        meant=meant,
        level=level,
        official=tests in ({"val": "PublicTest"}, {"val": "PublicTest", "test": "PrivateTest"}),
    )
    if deeper == "repeated":
        layout = replace(layout, refused="--class-level", settled={"class_level": level})
    if draw(st.booleans()):
        unsorted = (
            ""
            if part_below or not parts
            else f"{wrapper}/{draw(st.sampled_from(sorted(spelt.values())))}/"
        )
        layout = replace(layout, beside=(f"{unsorted}unsorted.pgm".lstrip("/"),))
    return draw(_with_company(layout))


@st.composite
def named_by_usage(draw: st.DrawFn) -> Layout:
    """As Kaggle has FER-2013, or the same without parts: the files' names say what they are for."""
    classes = draw(st.sampled_from(_CLASSES))
    in_parts = draw(st.booleans())
    usages = {"train": ("Training", "train"), "val": ("PublicTest", "test")}
    if draw(st.booleans()):
        usages["test"] = ("PrivateTest", "test")
    meant = {
        f"{folder + '/' if in_parts else ''}{label}/{usage}_{number:06d}.pgm": (part, label)
        for part, (usage, folder) in usages.items()
        for label in classes
        for i in range(_PER_CLASS[part])
        for number in [int(f"{list(usages).index(part)}{classes.index(label)}{i}")]
    }
    return draw(_with_company(Layout(meant=meant, official=True)))


@st.composite
def _with_company(draw: st.DrawFn, layout: Layout) -> Layout:
    """What lies about among the images."""
    folders = sorted({path.rpartition("/")[0] for path in layout.meant})
    tops = sorted({path.partition("/")[0] for path in layout.meant})
    beside = draw(st.lists(st.sampled_from(_OTHERS), max_size=2, unique=True))
    beside = [f"{draw(st.sampled_from(['', *folders]))}/{name}".lstrip("/") for name in beside]
    if draw(st.booleans()):
        beside.append(f"{draw(st.sampled_from(folders))}/portrait.jxl")
    junk = draw(st.lists(st.sampled_from(_JUNK), max_size=2, unique=True))
    junk = [f"{draw(st.sampled_from(['', *tops, *folders]))}/{name}".lstrip("/") for name in junk]
    beside = [*layout.beside, *beside]
    layout = replace(layout, beside=tuple(dict.fromkeys(beside)), junk=tuple(dict.fromkeys(junk)))
    if layout.refused or not draw(st.booleans()) or draw(st.booleans()):
        return layout
    # A class folder beside another one.
    path, (_, label) = draw(st.sampled_from(sorted(layout.meant.items())))
    names = path.split("/")
    above = names[: names.index(label)]
    empty = "/".join([*above, "contempt"])
    return replace(layout, empty=(empty,), refused="contempt", settled={"on_empty_class": "drop"})


def pgm(number: int) -> bytes:
    """A grey image file that no other number below 65,536 has."""
    head = bytes([number % 256, number // 256])
    return b"P5 16 16 255\n" + head + bytes(range(64, 64 + _SIZE * _SIZE - 2 - 64)) + bytes(64)


def write(layout: Layout, folder: Path) -> tuple[Path, Path]:
    """The layout as a folder and as a zip of it."""
    root = folder / layout.name
    content = {path: pgm(i) for i, path in enumerate(layout.meant)}
    content |= dict.fromkeys((*layout.beside, *layout.junk), b"no image")
    for path, body in content.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(body)
    for path in layout.empty:
        (root / path).mkdir(parents=True, exist_ok=True)
    archive = folder / f"{layout.name}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(root.rglob("*")):
            packed.write(file, file.relative_to(root))
    return root, archive


def problems(layout: Layout, folder: Path) -> list[str]:
    """What is wrong with how a layout is read; `folder` is empty and becomes the data home, too."""
    os.environ["FER_DATA_HOME"] = str(folder / "home")
    found: list[str] = []
    made = []
    for source in write(layout, folder):
        asked: dict[str, Any] = {"dataset": str(source), "image_size": _SIZE}
        if layout.refused is not None:
            try:
                prepare(DataConfig(**asked))
                found.append(f"{source.name}: not refused, {layout.refused} was to be said")
            except FerError as error:
                if layout.refused not in str(error):
                    found.append(f"{source.name}: {error}")
        try:
            data = prepare(DataConfig(**asked, **layout.settled))
        except FerError as error:
            found.append(f"{source.name}: {error}")
            continue
        found += [f"{source.name}: {text}" for text in _differences(layout, data)]
        made.append(data)
    told = {(data.name, data.class_names, data.fingerprint) for data in made}
    if len(told) > 1:
        found.append(f"folder and zip differ: {told}")
    return found


def _differences(layout: Layout, data: PreparedDataset) -> list[str]:
    """Where the data is not what was meant; val may be any of train where none is given."""
    given = {part for part, _ in layout.meant.values()}
    read: set[tuple[str, str, str]] = set()
    for name, split, label in zip(data.ids, data.splits, data.labels, strict=True):
        part = "train" if split == "val" and "val" not in given else str(split)
        read.add((str(name), part, data.class_names[label]))
    wrong = []
    if read != layout.reading():
        missing, more = layout.reading() - read, read - layout.reading()
        wrong.append(f"missing {sorted(missing)[:2]}, instead {sorted(more)[:2]}")
    numbers = {path: i for i, path in enumerate(layout.meant)}
    pixels = [int(image[0, 0]) + 256 * int(image[0, 1]) for image in data.images]
    if pixels != [numbers.get(str(name)) for name in data.ids]:
        wrong.append("ids name other images")
    if not data.size("val"):
        wrong.append("no val")
    policy = str(data.manifest["split"])
    expected = "official" if layout.official else "given" if given - {"train"} else "holdout"
    if policy != expected:
        wrong.append(f"split {policy} instead of {expected}")
    return wrong


def run(folder: Path, *, quick: bool, count: int | None = None) -> Result:
    """Draws so many; each counts as tried."""
    planned = count or (_QUICK_LAYOUTS if quick else _LAYOUTS)
    tally = Tally(name="layouts", planned=planned)
    seen: Counter[str] = Counter()

    @seed(0)
    @settings(
        max_examples=planned,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(layouts(), layouts(), layouts(), named_by_usage()))
    def every(layout: Layout) -> None:
        number = sum(seen.values())
        seen["refused first" if layout.refused else "read"] += 1
        place = folder / str(number)
        tally.add(_title(layout, number), problems(layout, place))

    every()
    return tally.result(
        f"{planned} layouts by Hypothesis, each as a folder and as a zip: parts in many spellings "
        "above or below the class or told by FER-2013's names of files, wrappers, pass-through "
        "folders, folders of persons, files of other kinds, junk, empty classes; "
        f"{seen['refused first']} of them must be refused first, with the option that settles it. "
        "Right: every image in its part and class, its id its own, one fingerprint of folder and "
        "zip"
    )


def _title(layout: Layout, number: int) -> str:
    paths: Sequence[str] = list(layout.meant)
    return f"layout {number}: {paths[0]} … {paths[-1]}"
