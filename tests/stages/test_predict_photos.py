"""`predict` on photos, videos and a camera: faces found, rows that say why not, copies drawn in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ..conftest import Fer, Job, Outcome
from ..faces.photos import BOX, grace_hopper, iou


@pytest.fixture(scope="module", autouse=True)
def champion(job: Job) -> None:
    """The session's job has made one of 48×48 pixels, emotion-synthetic."""


@pytest.fixture
def predict(fer: Fer) -> Fer:
    return lambda *arguments: fer("predict", "--model-name", "emotion-synthetic", *arguments)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photo with a face, one with two, one without, a crop, and what is none of these."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = grace_hopper()
    photo.save(folder / "1 one.jpg", quality=95)
    two = Image.new("RGB", (1000, 620), "grey")
    two.paste(photo.resize((256, 300)), (0, 0))
    two.paste(photo, (450, 0))
    two.save(folder / "2 two.png")
    Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(folder / "3 none.png")
    left, top, width, _ = BOX
    photo.crop((left, top, left + width, top + width)).resize((48, 48)).save(folder / "4 crop.png")
    (folder / "5 broken.jpg").write_bytes(b"no image")
    (folder / "6.jxl").write_bytes(b"\xff\x0a")
    (folder / "notes.txt").write_text("of these photos")
    return folder


def rows_of(outcome: Outcome) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert outcome.exit_code == 0, outcome.err
    *rows, last = map(json.loads, outcome.out.splitlines())
    return rows, last["summary"]


def test_every_picture_has_a_row_and_every_face(predict: Fer, photos: Path) -> None:
    outcome = predict(photos, "--json")
    rows, summary = rows_of(outcome)
    told = [(Path(row["file"]).name, row.get("face"), row.get("way")) for row in rows]
    assert told == [
        ("1 one.jpg", 1, "mtcnn"), ("2 two.png", 1, "mtcnn"), ("2 two.png", 2, "mtcnn"),
        ("3 none.png", None, None), ("4 crop.png", 1, "as it is"), ("5 broken.jpg", None, None),
        ("6.jxl", None, None),
    ]  # fmt: skip
    assert iou(rows[0]["box"], BOX) > 0.7
    # The larger face first, where it was pasted.
    assert iou(rows[1]["box"], (BOX[0] + 450, *BOX[1:])) > 0.7
    assert iou(rows[2]["box"], tuple(v / 2 for v in BOX)) > 0.6
    assert rows[4]["box"] is None and rows[4]["score"] is None
    assert [rows[i]["error"] for i in (3, 5, 6)] == [
        "no face was found", "not an image", ".jxl is no format that is read",
    ]  # fmt: skip
    for row in rows:
        if "error" not in row:
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].get)
    assert (summary["images"], summary["faces"], summary["without_face"]) == (3, 4, 1)
    assert [Path(line.split(": ")[0]).name for line in summary["unreadable"]] == [
        "5 broken.jpg",
        "6.jxl",
    ]
    assert "left out: 1 .txt" in outcome.err
    assert "no face was found in 1 pictures; 2 files could not be read" in outcome.err


def test_the_largest_face_alone(predict: Fer, photos: Path) -> None:
    rows, _ = rows_of(predict(photos / "2 two.png", "--faces", "largest", "--json"))
    assert [(row["face"], row["faces"]) for row in rows] == [(1, 1)]
    assert rows[0]["box"][0] > 450


@pytest.mark.slow
def test_strict_fails_where_one_picture_has_no_answer(predict: Fer, photos: Path) -> None:
    outcome = predict(photos, "--strict")
    assert outcome.exit_code == 1
    assert "Expected an answer for every picture (--strict)" in outcome.err
    assert predict(photos / "1 one.jpg", "--strict").exit_code == 0
    outcome = predict(photos / "3 none.png", photos / "5 broken.jpg")
    assert outcome.exit_code == 1
    assert "Error: None of 2 files has an answer: no face was found in 1 pictures; 1 files" in (
        outcome.err
    )


def test_without_a_detector_the_central_square_is_judged(predict: Fer, photos: Path) -> None:
    outcome = predict(photos / "1 one.jpg", photos / "4 crop.png", "--detector", "none", "--json")
    rows, _ = rows_of(outcome)
    assert [row["way"] for row in rows] == ["central square", "as it is"]
    assert "1 pictures are much larger than the model's 48 pixels: pass --detector auto" in (
        outcome.err
    )


@pytest.mark.slow
def test_csv_and_table_hold_the_same(predict: Fer, photos: Path) -> None:
    import csv
    import io

    lines = list(csv.DictReader(io.StringIO(predict(photos, "--csv").out)))
    assert [line["face"] for line in lines] == ["1", "1", "2", "", "1", "", ""]
    assert [line["error"] for line in lines if line["error"]] == [
        "no face was found", "not an image", ".jxl is no format that is read",
    ]  # fmt: skip
    table = predict(photos).out.splitlines()
    assert sum("2 two.png face" in line for line in table) == 2
    assert any(line.endswith("no face was found") for line in table)


def test_copies_have_what_was_found_drawn_in(predict: Fer, photos: Path, tmp_path: Path) -> None:
    outcome = predict(photos, "--annotate", tmp_path / "found", "--heat-map")
    assert outcome.exit_code == 0, outcome.err
    names = sorted(path.name for path in (tmp_path / "found").iterdir())
    assert names == ["1 one.png", "2 two.png", "3 none.png", "4 crop.png"]
    before = np.asarray(Image.open(photos / "2 two.png").convert("RGB")).astype(int)
    after = np.asarray(Image.open(tmp_path / "found" / "2 two.png")).astype(int)
    changed = np.abs(after - before).max(axis=2) > 40
    left, top, width, height = (round(v) for v in (BOX[0] + 450, *BOX[1:]))
    assert changed[top : top + height, left : left + width].any()
    # Nothing is drawn where no face is, apart from labels below the boxes.
    assert not changed[:, 300:430].any()
    same = Image.open(tmp_path / "found" / "3 none.png")
    assert np.asarray(same).std() == 0
    # A small picture is enlarged, so that its label can be read.
    assert min(Image.open(tmp_path / "found" / "4 crop.png").size) == 256


def test_copies_are_told_and_a_narrow_picture_stays_small(
    predict: Fer, photos: Path, tmp_path: Path
) -> None:
    Image.new("L", (1, 60_000), 200).save(photos / "7 narrow.png")
    (photos / "more").mkdir()
    grace_hopper().save(photos / "more" / "1 one.png")
    outcome = predict(photos, "--annotate", tmp_path / "found", "--json")
    rows, _ = rows_of(outcome)
    copies = {Path(row["file"]).relative_to(photos): row.get("annotated") for row in rows}
    assert copies[Path("1 one.jpg")] == "1 one.png"
    assert copies[Path("more/1 one.png")] == "1 one 2.png"
    assert copies[Path("5 broken.jpg")] is None
    assert Image.open(tmp_path / "found" / "7 narrow.png").size == (1, 60_000)


def test_what_cannot_be_drawn_is_refused_first(predict: Fer, photos: Path, tmp_path: Path) -> None:
    assert "Expected --annotate DIR beside --heat-map" in predict(photos, "--heat-map").error
    refused = predict(photos, "--annotate", photos / "1 one.jpg")
    assert refused.exit_code == 2 and "Expected annotate to be a folder" in refused.error
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    refused = predict(photos, "--annotate", photos)  # a copy could take a photo's place
    assert refused.exit_code == 2
    assert "Expected annotate to be a new or empty folder" in refused.error
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    assert "Expected a photo, a video, a folder or --camera" in predict().error
    assert "Expected one of pictures and --camera" in predict(photos, "--camera", "0").error
    for every in ("0", "-1", "nan", "x"):
        assert predict(photos, "--every", every).exit_code == 2


@pytest.fixture
def video(tmp_path: Path) -> Iterator[Path]:
    """Four seconds: a face for two, then none."""
    cv2 = pytest.importorskip("cv2", reason="needs the extra faces")
    photo = np.asarray(grace_hopper().resize((256, 300)))[:, :, ::-1]
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (256, 300))
    for number in range(40):
        writer.write(photo if number < 20 else np.full_like(photo, 60))
    writer.release()
    yield path


def test_a_video_has_a_row_a_second_and_an_annotated_copy(
    predict: Fer, video: Path, tmp_path: Path
) -> None:
    import cv2

    rows, summary = rows_of(predict(video, "--json", "--annotate", tmp_path / "found"))
    assert [row["time"] for row in rows] == [0.0, 1.0, 2.0, 3.0]
    assert ["error" in row for row in rows] == [False, False, True, True]
    assert (summary["images"], summary["without_face"]) == (1, 2)
    copy = cv2.VideoCapture(str(tmp_path / "found" / "film.mp4"))
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["film.mp4"]
    rows, _ = rows_of(predict(video, "--every", "0.5", "--json"))
    assert [row["time"] for row in rows] == [n / 2 for n in range(8)]


def test_a_video_that_was_cut_short_says_so(predict: Fer, video: Path) -> None:
    video.write_bytes(video.read_bytes()[:-2000])
    outcome = predict(video, "--json")
    assert outcome.exit_code in (0, 1)
    assert "Traceback" not in outcome.err
    video.write_bytes(b"RIFF no video")
    outcome = predict(video)
    assert outcome.exit_code == 1
    assert "not a video that OpenCV can read" in outcome.err


def test_a_camera_that_is_not_there(predict: Fer, video: Path) -> None:
    outcome = predict("--camera", "97")
    assert outcome.exit_code == 2
    assert "Expected a camera's number or address that OpenCV opens. Received: 97" in outcome.error
    outcome = predict("--camera", str(video), "--json")  # whatever OpenCV opens
    assert outcome.exit_code == 0, outcome.err
    assert len(outcome.out.splitlines()) == 41
    assert "pictures a second" in outcome.err


def test_without_opencv_that_is_said(
    predict: Fer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "film.mp4").write_bytes(b"")
    for arguments in ((tmp_path / "film.mp4",), ("--camera", "0")):
        outcome = predict(*arguments)
        assert outcome.exit_code == 2
        assert "pip install 'fer_experiments[faces]'" in outcome.error


def test_an_exported_model_judges_as_the_champion_does(
    fer: Fer, predict: Fer, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("tf2onnx", reason="needs the extra export")
    file = tmp_path / "champion.onnx"
    exported = fer("export", "--model-name", "emotion-synthetic", "--out", file)
    assert exported.exit_code == 0, exported.err
    rows, summary = rows_of(predict(photos, "--json"))
    told, other = rows_of(fer("predict", photos, "--model", file, "--json"))
    for row, same in zip(rows, told, strict=True):
        assert same.pop("probabilities", {}) == pytest.approx(
            row.pop("probabilities", {}), abs=1e-4
        )
        assert same == row
    assert other["model"]["file"] == "champion.onnx"
    assert other["model"]["uri"] == summary["model"]["uri"]
    both = fer("predict", photos, "--model", file, "--model-name", "emotion-synthetic")
    assert "Expected one of model and model_name" in both.error
    assert (
        "Expected a Keras model with a feature map"
        in fer("predict", photos, "--model", file, "--annotate", tmp_path / "x", "--heat-map").error
    )
