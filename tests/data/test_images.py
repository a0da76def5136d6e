"""Any usual image file becomes grey pixels of the size asked for; what was done is told."""

import struct

import numpy as np
import pytest
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data.images import BadImage, decode, first_line, refuse_bad, resize
from fer_experiments.errors import DataError

from .helpers import encode, read, says, write_folder

GREY = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
RAMP = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1))


def as_large_as(side, bitmap):
    """The same file with a header that promises side×side pixels."""
    return bitmap[:18] + struct.pack("<ii", side, side) + bitmap[26:]


def converted(mode, kind="PNG", picture=RAMP, **options):
    return decode(encode(Image.fromarray(picture).convert(mode), kind, **options), image_size=48)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_plain_grey_comes_through_unchanged(kind):
    decoded = decode(encode(GREY, kind), image_size=48)
    np.testing.assert_array_equal(decoded.pixels, GREY)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.colour_converted, decoded.resized_from) == (False, None)


def test_grey_jpeg_is_what_pillow_reads(tmp_path):
    (tmp_path / "1.jpg").write_bytes(encode(GREY, "JPEG", quality=90))
    with Image.open(tmp_path / "1.jpg") as image:
        expected = np.asarray(image)
    decoded = decode((tmp_path / "1.jpg").read_bytes(), image_size=48)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert (decoded.colour_converted, decoded.resized_from) == (False, None)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "JPEG"),
        ("RGB", "WEBP"),
    ],
)
def test_colour_is_converted(mode, kind):
    decoded = converted(mode, kind)
    assert decoded.colour_converted
    assert np.abs(decoded.pixels.astype(int) - RAMP).mean() < 5


def test_black_and_white_is_converted():
    decoded = converted("1")
    assert decoded.colour_converted
    assert set(np.unique(decoded.pixels)) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    decoded = decode(encode(RAMP.astype(np.uint16) * 257, kind), image_size=48)
    np.testing.assert_array_equal(decoded.pixels, RAMP)
    assert decoded.colour_converted


def test_more_than_sixteen_bits_end_in_white():
    wide = np.array([[-5, 0], [2**16 - 1, 2**20]], dtype=np.int32)
    decoded = decode(encode(wide, "TIFF"), image_size=None)
    np.testing.assert_array_equal(decoded.pixels, [[0, 0], [255, 255]])


@pytest.mark.parametrize("mode", ["P", "L"])
def test_transparent_pixels_become_white(mode):
    picture = np.zeros((48, 48), dtype=np.uint8)
    picture[:, 24:] = 9
    image = Image.fromarray(picture)
    if mode == "P":
        image = Image.fromarray(picture, "L").convert("P")
    decoded = decode(encode(image, transparency=9), image_size=48)
    assert (decoded.pixels[:, :24] == 0).all()
    assert (decoded.pixels[:, 24:] == 255).all()


def test_half_transparent_palette_is_mixed_with_white():
    image = Image.fromarray(np.zeros((48, 48), np.uint8)).convert("P")
    decoded = decode(encode(image, transparency=bytes([128] * 256)), image_size=48)
    assert set(np.unique(decoded.pixels)) == {127}


@pytest.mark.parametrize("shape", [(10, 10), (48, 47), (300, 200), (1, 1)])
def test_other_sizes_are_scaled(shape):
    decoded = decode(encode(np.full(shape, 77, np.uint8)), image_size=48)
    assert decoded.resized_from == shape
    assert decoded.pixels.shape == (48, 48)
    assert (decoded.pixels == 77).all()


def test_no_size_leaves_the_image_as_it_is():
    decoded = decode(encode(np.full((30, 20), 7, np.uint8)), image_size=None)
    assert decoded.pixels.shape == (30, 20)
    assert decoded.resized_from is None


def test_the_cameras_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    picture = np.zeros((48, 48), np.uint8)
    picture[:10] = 255
    upright = decode(encode(picture, exif=exif), image_size=48).pixels
    np.testing.assert_array_equal(upright, np.rot90(picture, -1))


def test_of_an_animation_the_first_frame_counts():
    first, second = Image.fromarray(RAMP), Image.fromarray(255 - RAMP)
    moving = encode(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(moving, image_size=48).pixels, RAMP)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"\0", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (b"<html>" * 100, "not an image"),
        (encode(GREY, "JPEG")[:900], "truncated"),
        (encode(GREY)[:900], "truncated"),
        (encode(GREY, "BMP")[:900], "truncated"),
        (as_large_as(60_000, encode(GREY, "BMP")), "too many"),
    ],
)
def test_bad_images(content, reason):
    with pytest.raises(BadImage) as caught:
        decode(content, image_size=48)
    says(caught, reason)


def test_any_damage_is_a_bad_image_or_an_image():
    rng = np.random.default_rng(0)
    whole = [encode(GREY, kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP")]
    for number in range(400):
        broken = bytearray(whole[number % len(whole)])
        for place in rng.integers(0, len(broken), 8):
            broken[place] = rng.integers(0, 256)
        try:
            assert decode(bytes(broken), image_size=48).pixels.shape == (48, 48)
        except BadImage as error:
            assert "\n" not in str(error)


def test_conversions_are_counted(tmp_path):
    colour = encode(Image.new("RGB", (48, 48), "red"))
    files = {
        "cats/1.png": GREY,
        "cats/2.png": colour,
        "cats/3.jpg": encode(Image.new("CMYK", (60, 60)), "JPEG"),
        "dogs/1.png": np.full((20, 30), 5, np.uint8),
        "dogs/2.png": encode(RAMP.astype(np.uint16)),
    }
    data = read(write_folder(tmp_path / "pets", files), split="holdout")
    assert (data.colour_converted, data.resized) == (3, 2)


def test_resize_leaves_the_right_size_alone():
    assert resize(GREY, 48) is GREY
    assert resize(GREY, 24).shape == (24, 24)


@pytest.mark.parametrize("policy", ["refuse", "skip"])
def test_no_bad_images_are_no_reason_to_refuse(policy):
    refuse_bad([], 5, DataConfig(on_bad_image=policy), "faces")


def test_refusal_names_the_first_three():
    bad = [f"{i}.png: empty file" for i in range(5)]
    with pytest.raises(DataError) as caught:
        refuse_bad(bad, 9, DataConfig(), "faces")
    says(caught, "5 of 9 images in faces", "2.png: empty file; and 2 more", "on_bad_image=skip")
    assert "3.png" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "a"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 999), "x" * 159 + "…"),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == line
