"""`predict`: which model answers, what of a folder is read, and what becomes of odd files."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image

from fer_experiments.data.images import FER_CLASSES

from ..conftest import Fer, Outcome
from ..data.helpers import encode, write_folder
from . import designed
from .test_pixels import model_uri

# Not marked as a registered model of this suite, so that other tests still have only one.
NAME = "answers"


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The runs of two designed models, versions 1 and 2 of a registered model."""
    answers = [designed.answers(0.8, seed=seed) for seed in (1, 2)]
    folder = tmp_path_factory.mktemp("designed")
    dataset = designed.write_images(folder / "answers", answers)
    runs = [designed.log_designed(dataset, row, confidence=0.9) for row in (1, 0)]
    for run in runs:
        mlflow.register_model(model_uri(run), NAME)
    return runs


@pytest.fixture
def champion(models: list[str]) -> str:
    """The run of version 2, which is champion."""
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    return models[1]


@pytest.fixture
def predict(champion: str, fer: Fer) -> Fer:
    """`fer predict` by the champion."""
    return lambda *arguments: fer("predict", "--model-name", NAME, *arguments)


def says(label: int) -> np.ndarray:
    """An image that the designed model 0 takes for this class."""
    image = np.full((16, 16), 60, np.uint8)
    image[0] = 0
    image[0, label] = 255
    return image


def told_to_scripts(outcome: Outcome) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row an image, and the summary."""
    *rows, last = map(json.loads, outcome.out.splitlines())
    return rows, last["summary"]


def test_who_answered_is_told_in_every_form(
    champion: str, predict: Fer, fer: Fer, tmp_path: Path
) -> None:
    files = write_folder(tmp_path / "faces", {"a.png": says(3), "b.png": says(5)})
    first = mlflow.MlflowClient().get_model_version(NAME, "1").source
    as_table = predict(files)
    assert as_table.exit_code == 0, as_table.err
    told = f"model: {model_uri(champion)} ({NAME} version 2, champion) of run {champion}"
    assert told in as_table.out.splitlines()
    rows, summary = told_to_scripts(predict(files, "--json"))
    assert [row["predicted"] for row in rows] == [FER_CLASSES[3], FER_CLASSES[5]]
    assert summary == {
        "model": {
            "uri": model_uri(champion),
            "run_id": champion,
            "versions": [{"name": NAME, "version": 2, "aliases": ["champion"]}],
        },
        "images": 2,
        "faces": 2,
        "without_face": 0,
        "unreadable": [],
        "left_out": [],
    }
    lines = list(csv.DictReader(io.StringIO(predict(files, "--csv").out)))
    assert [line["predicted"] for line in lines] == [FER_CLASSES[3], FER_CLASSES[5]]
    columns = ("model_uri", "model_version", "model_alias", "run_id")
    expected = (model_uri(champion), f"{NAME}/2", "champion", champion)
    assert all(tuple(line[name] for name in columns) == expected for line in lines)
    # The other version, asked for by its address, and after the alias has moved.
    _, other = told_to_scripts(fer("predict", files / "a.png", "--model", first, "--json"))
    assert other["model"]["versions"] == [{"name": NAME, "version": 1, "aliases": []}]
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    _, moved = told_to_scripts(predict(files / "a.png", "--json"))
    assert moved["model"]["versions"] == [{"name": NAME, "version": 1, "aliases": ["champion"]}]


def test_a_folder_is_read_as_prepare_reads_it(predict: Fer, tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "photos",
        {
            "1.png": says(1),
            "deep/er/2.PGM": encode(says(2), "PPM"),
            "3.jfif": encode(says(3), "JPEG", quality=100),
            "4": says(4),
            "LICENSE": b"of these photos",
            "5.psd": b"8BPS",
            "6.avif": b"\0\0\0\x18ftypavif",
            "list.csv": b"1.png,happy",
            ".ipynb_checkpoints/1-checkpoint.png": says(6),
            "__MACOSX/._1.png": b"\0\5\x16\7",
            "Thumbs.db": b"",
        },
    )
    outcome = predict(folder, "--json")
    assert outcome.exit_code == 0, outcome.err
    rows, summary = told_to_scripts(outcome)
    read = {Path(row["file"]).name: row.get("predicted", row.get("error")) for row in rows}
    assert read.pop("6.avif") in ("not an image", ".avif is no format that is read")
    assert read == {
        name: FER_CLASSES[i] for i, name in enumerate(["1.png", "2.PGM", "3.jfif", "4"], start=1)
    } | {"5.psd": ".psd is no format that is read"}
    assert [Path(line.split(": ")[0]).name for line in summary["unreadable"]] == ["5.psd", "6.avif"]
    *left_out, failed = outcome.err.splitlines()
    assert failed.startswith("2 files could not be read: ")
    for name in ("list.csv", "LICENSE", ".ipynb_checkpoints", "Thumbs.db"):
        assert sum(name in line for line in left_out) == 1, (name, left_out)
    assert all(line.startswith("left out: ") for line in left_out)


def test_rows_stand_in_the_order_of_folders_and_each_file_once(
    predict: Fer, tmp_path: Path
) -> None:
    """`a b/1.png` comes before `a/2.png` where names are compared as texts."""
    names = ["a/2.png", "a/10/3.png", "a b/1.png", "a!.png"]
    folder = write_folder(tmp_path / "photos", {name: says(i) for i, name in enumerate(names)})
    write_folder(folder, {f"a/{junk}": b"" for junk in (".DS_Store", "Thumbs.db", "__MACOSX/x")})
    (folder / "a" / "back").symlink_to(folder)
    outcome = predict(folder, folder / "a!.png", "--json")
    assert outcome.exit_code == 0, outcome.err
    read = [str(Path(row["file"]).relative_to(folder)) for row in told_to_scripts(outcome)[0]]
    assert read == sorted(names, key=lambda name: name.split("/"))
    assert "left out: 3 junk (" in outcome.err


def test_the_folder_of_the_case_book(predict: Fer, tmp_path: Path, shared: Path) -> None:
    import runpy

    draw = runpy.run_path(str(shared / "cases" / "draw.py"))
    draw["photos"](tmp_path / "photos", 5)
    outcome = predict(tmp_path / "photos", "--detector", "none", "--json")
    assert outcome.exit_code == 0, outcome.err
    names = [Path(row["file"]).name for row in told_to_scripts(outcome)[0]]
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "a.jfif", "b.heic"]
    assert ".ipynb_checkpoints" in outcome.err
    assert "__MACOSX" in outcome.err


def test_a_folder_without_images_says_what_is_there(predict: Fer, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", {"5.txt": b"x", ".git/1.png": says(1)})
    outcome = predict(folder)
    assert outcome.exit_code == 2
    assert "5.txt" in outcome.error
    assert ".git" in outcome.error


def test_files_that_are_no_images_are_named(predict: Fer, tmp_path: Path) -> None:
    files = {f"{n}.png": b"not an image" for n in range(5)} | {"good.png": says(2)}
    outcome = predict(write_folder(tmp_path / "photos", files), "--csv")
    assert outcome.exit_code == 0  # one has an answer
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [row["error"] for row in rows] == ["not an image"] * 5 + [""]
    assert "5 files could not be read: " in outcome.err and " and 2 more" in outcome.err


@pytest.mark.parametrize(
    ("photo", "said"),
    [
        (encode(says(3).astype(np.uint16) * 16), "1 of more than 8 bits: 4095 is white, as"),
        (encode(says(3).astype(np.uint16) * 257), "1 of more than 8 bits: 65535 is white, as"),
        (encode(says(3).astype(np.float32) / 255, "TIFF"), "1 of more than 8 bits: 1 is white"),
        (encode(Image.fromarray(says(3)).convert("RGB")), ""),
    ],
    ids=["12 bits", "16 bits", "fractions", "8 bits"],
)
def test_one_photo_of_more_than_8_bits(
    photo: bytes, said: str, predict: Fer, tmp_path: Path
) -> None:
    plain = write_folder(tmp_path / "plain", {"1.png": says(3)})
    [row], _ = told_to_scripts(predict(plain, "--json"))
    outcome = predict(write_folder(tmp_path / "photos", {"1.png": photo}), "--json")
    assert outcome.exit_code == 0, outcome.err
    [found], _ = told_to_scripts(outcome)
    assert found["predicted"] == FER_CLASSES[3]
    assert found["probabilities"] == pytest.approx(row["probabilities"], abs=5e-3)
    assert outcome.err.startswith(said) if said else not outcome.err


def test_a_photo_whose_range_is_unclear_is_refused(predict: Fer, tmp_path: Path) -> None:
    dark = encode(says(3).astype(np.uint16) // 10)
    outcome = predict(write_folder(tmp_path / "photos", {"1.png": dark}))
    assert outcome.exit_code == 1
    assert "its brightest value, 25, does not tell what is white" in outcome.error
