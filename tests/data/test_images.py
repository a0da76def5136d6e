"""Any usual image file becomes grey pixels of the size asked for; what was done is told."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data.images import (
    BadImage,
    PixelRule,
    decode,
    pixel_hash,
    pixel_hashes,
    refuse_bad,
    to_pixels,
    white_of,
)
from fer_experiments.errors import DataError, summarize

from .helpers import encode, read, says, write_folder

GREY = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
RAMP = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1))


def as_large_as(side, bitmap):
    """The same file with a header that promises side×side pixels."""
    return bitmap[:18] + struct.pack("<ii", side, side) + bitmap[26:]


def converted(mode, kind="PNG", picture=RAMP, **options):
    return decode(encode(Image.fromarray(picture).convert(mode), kind, **options))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_plain_grey_comes_through_unchanged(kind):
    decoded = decode(encode(GREY, kind))
    np.testing.assert_array_equal(decoded.grey, GREY)
    assert (decoded.grey.dtype, decoded.kind, decoded.white) == (np.dtype(np.uint8), "byte", 255)
    assert not decoded.colour_converted


def test_grey_jpeg_is_what_pillow_reads(tmp_path):
    (tmp_path / "1.jpg").write_bytes(encode(GREY, "JPEG", quality=90))
    with Image.open(tmp_path / "1.jpg") as image:
        expected = np.asarray(image)
    decoded = decode((tmp_path / "1.jpg").read_bytes())
    np.testing.assert_array_equal(decoded.grey, expected)
    assert not decoded.colour_converted


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
    assert np.abs(decoded.grey.astype(int) - RAMP).mean() < 5


def test_black_and_white_is_converted():
    decoded = converted("1")
    assert decoded.colour_converted
    assert set(np.unique(decoded.grey)) == {0, 255}


# Values of more than 8 bits


def pgm(values, highest, *, plain=False):
    """A PGM file that says which value is white."""
    height, width = values.shape
    head = f"P{2 if plain else 5} {width} {height} {highest}\n".encode()
    if plain:
        return head + b" ".join(b"%d" % value for value in values.ravel())
    return head + values.astype(">u2").tobytes()


def png_of_16_bits(values, *, channels=3):
    """A PNG file of 16-bit grey (1), grey and alpha (2) or colour (3); Pillow writes none."""
    height, width = values.shape
    layers = [values, np.full_like(values, 65535)] if channels == 2 else [values] * channels
    rows = np.stack(layers, axis=-1).astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    kind = {1: 0, 2: 4, 3: 2}[channels]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def pets(root, pictures, rule=None, **options):
    """What two classes of these files come to."""
    files = {f"{'cats' if i % 2 else 'dogs'}/{i}": file for i, file in enumerate(pictures)}
    return read(write_folder(root, files), rule, split="holdout", **options)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_decoded_as_they_are(kind):
    wide = RAMP.astype(np.uint16) * 257
    decoded = decode(encode(wide, kind))
    np.testing.assert_array_equal(decoded.grey, wide)
    assert (decoded.kind, decoded.white, decoded.colour_converted) == ("integer", None, True)


@pytest.mark.parametrize("plain", [False, True])
def test_what_pgm_says_is_white_is_white(plain):
    values = RAMP.astype(int) * 1000 // 255
    decoded = decode(pgm(values, 1000, plain=plain))
    assert decoded.white is not None
    pixels = to_pixels(decoded.grey, size=48, white=decoded.white)
    assert np.abs(pixels.astype(int) - RAMP).max() <= 1
    assert decode(pgm(values, 65535, plain=plain)).white is None


@pytest.mark.parametrize(
    "values",
    [
        np.array([[-5, 0], [1, 2]], np.int32),
        np.array([[0, 0], [2**16 - 1, 2**20]], np.int32),
        np.array([[0, -0.5], [1, 1]], np.float32),
        np.array([[0, np.nan], [1, 1]], np.float32),
        np.array([[0, np.inf], [1, 1]], np.float32),
    ],
)
def test_values_that_are_no_brightness_are_bad_images(values):
    with pytest.raises(BadImage) as caught:
        decode(encode(values, "TIFF"))
    says(caught, "its values")


@pytest.mark.parametrize(
    ("kind", "highest", "white"),
    [
        ("integer", 255, 255), ("integer", 256, 1023), ("integer", 1023, 1023),
        ("integer", 1024, 4095), ("integer", 4000, 4095), ("integer", 4096, 16383),
        ("integer", 16384, 65535), ("integer", 65535, 65535), ("integer", 64, 255),
        ("integer", 63, None), ("integer", 0, None), ("float", 1.0, 1), ("float", 0.3, 1),
        ("float", 0.2, None), ("float", 1.5, None), ("float", 250.5, 255), ("float", 70000, None),
        ("colour", 255, 255), ("colour", 64, 255), ("colour", 15, None),
    ],
)  # fmt: skip
def test_what_is_white_where_files_do_not_say(kind, highest, white):
    assert white_of(kind, highest) == white


WIDE = {
    "8 bits in 16": (lambda x: encode(x.astype(np.uint16)), {"integer": 255}),
    "10 bits in 16": (lambda x: encode(x.astype(np.uint16) * 4 + 3), {"integer": 1023}),
    "12 bits in 16": (lambda x: encode(x.astype(np.uint16) * 16), {"integer": 4095}),
    "16 bits": (lambda x: encode(x.astype(np.uint16) * 257), {"integer": 65535}),
    "12 bits in 32": (lambda x: encode(x.astype(np.int32) * 16, "TIFF"), {"integer": 4095}),
    "fractions": (lambda x: encode(x.astype(np.float32) / 255, "TIFF"), {"float": 1}),
    "fractions to 255": (lambda x: encode(x.astype(np.float32), "TIFF"), {"float": 255}),
    "12 bits, PGM": (lambda x: pgm(x.astype(np.uint16) * 16, 65535), {"integer": 4095}),
    "12 bits, PGM that says so": (lambda x: pgm(x.astype(np.uint16) * 16, 4095), {}),
    "16 bits of colour": (lambda x: png_of_16_bits(x.astype(np.uint16) * 257), {"colour": 255}),
}


@pytest.mark.parametrize(("file", "white"), WIDE.values(), ids=WIDE.keys())
def test_the_brightest_value_of_a_data_set_says_what_is_white(file, white, tmp_path):
    pictures = [GREY, RAMP, GREY // 4, 255 - RAMP]  # a dark one is scaled as the others are
    data = pets(tmp_path / "pets", [file(picture) for picture in pictures])
    expected = [pictures[int(name.split("/")[1].split(".")[0])] for name in data.ids]
    assert np.abs(data.images.astype(int) - np.stack(expected)).max() <= 1
    assert data.rule == PixelRule(white=white)
    assert len(np.unique(data.hashes, axis=0)) == 4


def test_each_kind_of_number_has_its_own_white(tmp_path):
    files = [
        encode(GREY),
        encode(GREY.astype(np.uint16) * 16),
        encode(GREY.astype(np.float32) / 255, "TIFF"),
    ]
    data = pets(tmp_path / "pets", files)
    assert np.abs(data.images.astype(int) - GREY).max() <= 1
    assert data.rule.white == {"integer": 4095, "float": 1}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([encode(GREY.astype(np.uint16) // 40)] * 4, ["Received: 6 in cats/1"]),
        ([encode(np.zeros((9, 9), np.uint16))] * 4, ["Received: 0 in"]),
        ([encode(GREY.astype(np.float32) / 100, "TIFF")] * 4, ["Received: 2.55 in"]),
        ([png_of_16_bits(GREY.astype(np.uint16) * 16)] * 4, ["Received: 15 in"]),
        (
            [encode(GREY.astype(np.uint16) * 257), *[encode(GREY.astype(np.uint16) * 16)] * 3],
            ["Received: 65535 in dogs/0, while most of 4 are far darker"],
        ),
    ],
)
def test_an_unclear_range_is_refused(files, words, tmp_path):
    with pytest.raises(DataError) as caught:
        pets(tmp_path / "pets", files, on_bad_image="skip")
    says(caught, "Expected images of more than 8 bits in", "scale them to 8 bits", *words)


def test_a_models_white_stays_its_own(tmp_path):
    dark = [encode(GREY.astype(np.uint16) * n) for n in (1, 1, 2, 2)]
    data = pets(tmp_path / "pets", dark, PixelRule(white={"integer": 4095.0}))
    assert data.images.max() == round(510 * 255 / 4095)
    with pytest.raises(DataError) as caught:
        pets(tmp_path / "pets", dark, PixelRule(white={"integer": 255.0}))
    says(caught, "2 of 4 images", "its values reach 510, and 255 is white")


@pytest.mark.parametrize("mode", ["P", "L"])
def test_transparent_pixels_become_white(mode):
    picture = np.zeros((48, 48), dtype=np.uint8)
    picture[:, 24:] = 9
    image = Image.fromarray(picture)
    if mode == "P":
        image = Image.fromarray(picture, "L").convert("P")
    decoded = decode(encode(image, transparency=9))
    assert (decoded.grey[:, :24] == 0).all()
    assert (decoded.grey[:, 24:] == 255).all()


def test_half_transparent_palette_is_mixed_with_white():
    image = Image.fromarray(np.zeros((48, 48), np.uint8)).convert("P")
    decoded = decode(encode(image, transparency=bytes([128] * 256)))
    assert set(np.unique(decoded.grey)) == {127}


# From grey values to pixels


def wide_picture():
    """160×96, the middle of it unlike the sides."""
    picture = np.full((96, 160), 90, np.uint8)
    picture[:, 32:128] = np.random.default_rng(1).integers(0, 256, (96, 96))
    return picture


@pytest.mark.parametrize("turned", [False, True])
def test_the_central_square_is_scaled_bilinearly(turned):
    wide = wide_picture()
    square = wide[:, 32:128].T if turned else wide[:, 32:128]
    expected = Image.fromarray(np.ascontiguousarray(square)).resize(
        (48, 48), Image.Resampling.BILINEAR
    )
    pixels = to_pixels(wide.T if turned else wide, size=48)
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_models_of_older_versions_see_all_of_an_image():
    wide = wide_picture()
    expected = Image.fromarray(wide).resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(to_pixels(wide, size=48, crop="squash"), np.asarray(expected))


@pytest.mark.parametrize("shape", [(10, 10), (48, 47), (300, 200), (1, 1), (1, 9)])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32])
def test_any_shape_becomes_a_square_of_the_size(shape, kind):
    pixels = to_pixels(np.full(shape, 77, kind), size=48, white=255)
    assert (pixels.shape, pixels.dtype, set(pixels.ravel())) == ((48, 48), np.dtype(np.uint8), {77})


def test_what_has_the_size_stays_as_it_is():
    assert np.shares_memory(to_pixels(GREY, size=48), GREY)


def test_a_source_says_what_it_did_with_images_that_are_not_square(tmp_path):
    files = [encode(picture) for picture in (GREY, GREY, wide_picture(), np.repeat(GREY, 2, 0))]
    data = pets(tmp_path / "pets", files)
    squashed = pets(tmp_path / "pets", files, PixelRule(crop="squash"))
    assert (data.not_square, data.resized) == (squashed.not_square, squashed.resized) == (2, 2)
    assert (data.rule.crop, squashed.rule.crop) == ("central_square", "squash")
    at = data.ids.index("dogs/2")
    np.testing.assert_array_equal(data.images[at], to_pixels(wide_picture(), size=48))
    np.testing.assert_array_equal(
        squashed.images[at], to_pixels(wide_picture(), size=48, crop="squash")
    )


# What an image is known by


def test_the_hash_is_of_the_image_as_it_came(tmp_path):
    files = [encode(GREY), encode(wide_picture()), encode(GREY.astype(np.uint16) * 16)]
    hashes = [pets(tmp_path / "pets", files, image_size=size).hashes for size in (24, 48)]
    np.testing.assert_array_equal(hashes[0], hashes[1])
    by_hand = [GREY.astype(np.uint16) * 16, wide_picture(), GREY]
    assert {h.tobytes() for h in hashes[0]} == {pixel_hash(values) for values in by_hand}


def test_the_hash_tells_shapes_and_values_apart():
    flat = np.zeros((4, 9), np.uint8)
    brighter = flat.copy()
    brighter[3, 8] = 1
    different: list[np.ndarray] = [
        flat,
        flat.reshape(9, 4),
        flat.reshape(6, 6),
        brighter,
        flat.astype(np.float32),
    ]
    assert len({pixel_hash(values) for values in different}) == len(different)
    assert {len(pixel_hash(values)) for values in different} == {16}
    same: list[np.ndarray] = [GREY, GREY.astype(np.uint16), GREY.astype(np.int32), GREY.T.copy().T]
    assert len({pixel_hash(values) for values in same}) == 1


def test_hashes_are_rows_of_bytes():
    images = np.stack([GREY, RAMP])
    assert [row.tobytes() for row in pixel_hashes(images)] == [pixel_hash(GREY), pixel_hash(RAMP)]
    assert pixel_hashes([]).shape == (0, 16)


def test_the_cameras_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    picture = np.zeros((48, 48), np.uint8)
    picture[:10] = 255
    upright = decode(encode(picture, exif=exif)).grey
    np.testing.assert_array_equal(upright, np.rot90(picture, -1))


def test_of_an_animation_the_first_frame_counts():
    first, second = Image.fromarray(RAMP), Image.fromarray(255 - RAMP)
    moving = encode(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(moving).grey, RAMP)


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
        decode(content)
    says(caught, reason)


def test_any_damage_is_a_bad_image_or_an_image():
    rng = np.random.default_rng(0)
    whole = [encode(GREY, kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP")]
    for number in range(400):
        broken = bytearray(whole[number % len(whole)])
        for place in rng.integers(0, len(broken), 8):
            broken[place] = rng.integers(0, 256)
        try:
            grey = decode(bytes(broken)).grey
            assert to_pixels(grey, size=48).shape == (48, 48)
        except BadImage as error:
            assert "\n" not in str(error)


def test_conversions_are_counted(tmp_path):
    colour = encode(Image.new("RGB", (48, 48), "red"))
    files: dict[str, np.ndarray | bytes] = {
        "cats/1.png": GREY,
        "cats/2.png": colour,
        "cats/3.jpg": encode(Image.new("CMYK", (60, 60)), "JPEG"),
        "dogs/1.png": np.full((20, 30), 5, np.uint8),
        "dogs/2.png": encode(RAMP.astype(np.uint16)),
    }
    data = read(write_folder(tmp_path / "pets", files), split="holdout")
    assert (data.colour_converted, data.resized) == (3, 2)


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
    assert summarize(error) == line
