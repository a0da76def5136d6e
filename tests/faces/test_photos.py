"""One way from an image to a model's pixels, whoever asks; and when faces are searched at all."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data.images import PixelRule
from fer_experiments.errors import ConfigError, UsageError
from fer_experiments.faces.alignment import square_of
from fer_experiments.faces.detection import open_detector
from fer_experiments.faces.photos import Search, read_photo
from fer_experiments.faces.preparing import prepare

from .photos import BOX, grace_hopper, iou, png

RULE = PixelRule()


def test_small_squares_are_taken_as_they_are() -> None:
    search = Search("auto")
    for shape, taken in (
        ((48, 48), True), ((96, 96), True), ((97, 97), False), ((96, 76), False), ((80, 64), True),
        ((20, 20), True), ((40, 96), False),
    ):  # fmt: skip
        assert search.takes_as_it_is(shape, 48) is taken, shape
    assert Search("none").takes_as_it_is((4000, 3000), 48)
    assert not Search("mtcnn").takes_as_it_is((48, 48), 48)


@pytest.mark.parametrize("spec", ["haar", "yunet", "mtcnn:file", ""])
def test_unknown_detectors_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="Expected detector to be auto, mtcnn, yunet:FILE or no"):
        Search(spec)


def test_yunets_file_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"looked for .*nothing.onnx.*opencv_zoo"):
        Search(f"yunet:{tmp_path / 'nothing.onnx'}")
    (tmp_path / "other.onnx").write_bytes(b"another network")
    with pytest.raises(UsageError, match=r"SHA-256 begins 8f2383e4. Received: .*other.onnx"):
        Search(f"yunet:{tmp_path / 'other.onnx'}")


@pytest.mark.slow
def test_mtcnn_finds_the_face_however_the_photo_is_turned() -> None:
    photo = grace_hopper()
    upright = read_photo(png(photo), size=48, rule=RULE, search=Search("mtcnn"))
    assert (upright.way, len(upright.crops)) == ("mtcnn", 1)
    face = upright.crops[0].face
    assert face is not None and iou(face.box, BOX) > 0.7
    for quarters in (1, 2, 3):
        turned = np.rot90(np.asarray(photo), quarters)
        found = read_photo(np.ascontiguousarray(turned), size=48, rule=RULE, search=Search("mtcnn"))
        [crop] = found.crops
        # The same pixels but for rounding: a face on its side is cut out upright.
        difference = crop.pixels.astype(int) - upright.crops[0].pixels
        assert np.abs(difference).mean() < 2, quarters


def test_every_door_gives_the_same_pixels(tmp_path: Path, home: Path) -> None:
    photo = grace_hopper()
    other = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    files = {
        f"{part}/{label}/{number}.png": png(image if part == "test" else darker(image, number))
        for part in ("train", "test")
        for label, image in (("a", photo), ("b", other))
        for number in (1, 2)
    }
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "faces" / name).write_bytes(content)
    [read] = read_photo(png(photo), size=48, rule=RULE, search=Search("auto")).crops
    for dataset in ("faces", "faces.zip"):
        config = DataConfig(
            dataset=str(tmp_path / dataset), split="given", detector="mtcnn", val_fraction=0.5
        )
        prepared = prepare(config)
        assert (prepared.detector, prepared.manifest["no_face"]) == ("mtcnn", 0)
        images, labels = prepared.split("test")
        np.testing.assert_array_equal(images[labels == 0], np.stack([read.pixels] * 2))
    [as_array] = read_photo(np.asarray(photo), size=48, rule=RULE, search=Search("auto")).crops
    np.testing.assert_array_equal(as_array.pixels, read.pixels)
    stream = io.BytesIO()
    photo.save(stream, "TIFF")
    [tiff] = read_photo(stream.getvalue(), size=48, rule=RULE, search=Search("auto")).crops
    np.testing.assert_array_equal(tiff.pixels, read.pixels)


def darker(image: Image.Image, times: int) -> Image.Image:
    return image.point(lambda value: value * 0.9**times)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "train"), [("drop", 4), ("keep", 6)])
def test_photos_without_a_face_are_dropped_or_kept_and_counted(
    what: str, train: int, tmp_path: Path, home: Path
) -> None:
    rng = np.random.default_rng(0)
    face = grace_hopper().resize((256, 300))
    for number in range(3):
        for label in "ab":
            image = face if number else Image.fromarray(rng.integers(0, 256, (90, 120), np.uint8))
            if label == "b":
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for part in ("train", "val"):
                path = tmp_path / "own" / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    config = DataConfig(dataset=str(tmp_path / "own"), detector="mtcnn", on_no_face=what)
    prepared = prepare(config)
    assert prepared.size("train") == train
    assert prepared.manifest["no_face"] == 4
    assert prepare(config).folder == prepared.folder


def test_yunet_finds_the_same_face(shared: Path) -> None:
    pytest.importorskip("cv2", reason="needs the extra faces")
    spec = f"yunet:{shared / 'detector' / 'face_detection_yunet_2023mar.onnx'}"
    assert open_detector(spec).name == "yunet"
    photo = grace_hopper()
    by_yunet, by_mtcnn = (
        read_photo(png(photo), size=48, rule=RULE, search=Search(one)).crops
        for one in (spec, "mtcnn")
    )
    assert len(by_yunet) == len(by_mtcnn) == 1
    first, second = by_yunet[0].face, by_mtcnn[0].face
    assert first is not None and second is not None
    assert iou(first.box, BOX) > 0.7 and iou(first.box, second.box) > 0.7
    # MTCNN sees the eyes of this photo a tenth further apart.
    assert square_of(first).side == pytest.approx(square_of(second).side, rel=0.15)
