"""Files as strangers send them: whole ones to start from, and what can be wrong with them."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

EMOTIONS = 7
MB = 2**20


@cache
def pixels(seed: int = 0) -> np.ndarray:
    """Noise, 48×48."""
    return np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)


@cache
def picture(kind: str = "PNG", mode: str = "L", seed: int = 0) -> bytes:
    """A whole image file."""
    return saved(Image.fromarray(pixels(seed)).convert(mode), kind)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sixteen_bit() -> bytes:
    """A PNG with 16 bits a pixel."""
    return saved(Image.fromarray(pixels().astype(np.uint16) * 257))


def animated(kind: str) -> bytes:
    """Three frames."""
    frames = [Image.fromarray(pixels(i)) for i in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def chunk(name: bytes, content: bytes) -> bytes:
    """A PNG chunk."""
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def png_of(width: int, height: int, *, colour: int = 0, depth: int = 1) -> bytes:
    """A whole PNG, black all over: 20,000×20,000 pixels take 50 kB."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = bytes(1 + (width * depth * channels + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return _PNG + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def png_with_text_bomb() -> bytes:
    """A PNG whose comment unpacks to 256 MB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(MB)) for _ in range(256)) + packer.flush()
    whole = picture()
    comment = chunk(b"zTXt", b"Comment\0\0" + packed)
    return whole[:33] + comment + whole[33:]


def bitmap_promising(side: int) -> bytes:
    """A BMP whose header promises side×side pixels."""
    whole = picture("BMP")
    return whole[:18] + struct.pack("<ii", side, side) + whole[26:]


def gif_promising() -> bytes:
    """A GIF whose header promises 65,535×65,535 pixels."""
    whole = picture("GIF")
    return whole[:6] + b"\xff\xff\xff\xff" + whole[10:]


_PNG = b"\x89PNG\r\n\x1a\n"


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files by their paths below the folder."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@cache
def faces() -> Mapping[str, bytes]:
    """Two classes of four images."""
    return {f"{c}/{i}.png": picture(seed=4 * n + i) for n, c in enumerate("ab") for i in range(4)}


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def encrypted(archive: bytes) -> bytes:
    """The same zip with every member marked as encrypted."""
    changed = bytearray(archive)
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + place] |= 1
            at = changed.find(mark, at + 4)
    return bytes(changed)


def lying(files: Mapping[str, bytes], name: str, size: int) -> bytes:
    """A zip that says of one member that it has another size."""
    changed = bytearray(zipped(files))
    true = len(files[name])
    for mark, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = changed.find(mark)
        while at >= 0:
            name_at = at + (30 if mark == b"PK\3\4" else 46)
            if changed[name_at : name_at + len(name)] == name.encode():
                assert struct.unpack_from("<I", changed, at + place)[0] == true
                struct.pack_into("<I", changed, at + place, size)
            at = changed.find(mark, at + 4)
    return bytes(changed)


@cache
def rows(count: int = 42) -> tuple[tuple[str, str, str], ...]:
    """(emotion, pixels, Usage) as the challenge has them, in all usages."""
    usages = ("Training", "Training", "Training", "Training", "PublicTest", "PrivateTest")
    return tuple(
        (str(i % EMOTIONS), " ".join(map(str, pixels(i).ravel())), usages[i // EMOTIONS % 6])
        for i in range(count)
    )


def table(
    lines: list[tuple[str, ...]] | tuple[tuple[str, ...], ...],
    header: str = "emotion,pixels,Usage",
) -> bytes:
    """The rows below a header."""
    return "\n".join([header, *(",".join(line) for line in lines)]).encode() + b"\n"


def endless_line(path: Path, size: int, start: bytes = b"emotion,pixels,Usage\n0,") -> None:
    """A file that is one line of so many bytes; takes no room on the disk."""
    path.write_bytes(start)
    os.truncate(path, size)


def weights_file(path: Path, *, without: str = "", wrong: str = "", dtype: str = "f4") -> None:
    """Weights of the tiny backbone by layer name, one layer left out or of another shape."""
    import h5py

    shapes: dict[str, list[tuple[int, ...]]] = {
        "block1_conv": [(3, 3, 3, 8)],
        "block1_bn": [(8,)] * 4,
        "block2_0_conv": [(1, 1, 8, 16), (16,)],
        "block2_1_conv": [(3, 3, 8, 16), (16,)],
        "block2_1_bn": [(16,)] * 4,
        "block2_2_conv": [(3, 3, 16, 16), (16,)],
        "block2_2_bn": [(16,)] * 4,
    }
    with h5py.File(path, "w") as file:
        names = [name for name in shapes if name != without]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group = file.create_group(name)
            own = [f"{name}/{i}:0" for i in range(len(shapes[name]))]
            group.attrs["weight_names"] = [weight.encode() for weight in own]
            for weight, shape in zip(own, shapes[name], strict=True):
                group[weight] = np.full((9,) if name == wrong else shape, 0.1, dtype=dtype)
