"""Files that a user names or a stranger packed: found without surprises, read within bounds."""

from __future__ import annotations

import os
import re
import stat
from importlib.util import find_spec
from pathlib import Path

# More than any photo of a face takes, and what a reader can hold.
LARGEST_FILE = 64 * 2**20  # bytes
# Pillow reads AVIF where it was built so, and HEIC with the package pillow-heif.
READS_AVIF = find_spec("PIL._avif") is not None
READS_HEIC = find_spec("pillow_heif") is not None
_SOMETIMES = {".avif": READS_AVIF, ".heic": READS_HEIC, ".heif": READS_HEIC}
# How files end whose formats are read (`images.FORMATS`); .jfif and .jpe are JPEG too.
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp",
    ".pgm", ".ppm", ".pbm", ".pnm",
    *(suffix for suffix, is_read in _SOMETIMES.items() if is_read),
})  # fmt: skip
# Images too, but none that is read: whoever has them must hear that they are left out.
UNREAD_IMAGE_SUFFIXES = frozenset({
    ".jxl", ".jp2", ".svg", ".psd", ".ico", ".tga", ".exr", ".hdr",
    ".dib", ".pfm", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
    *(suffix for suffix, is_read in _SOMETIMES.items() if not is_read),
})  # fmt: skip
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".webm", ".mov", ".mkv", ".m4v"})
# What systems and programs leave beside people's files; names that begin with a dot are junk too.
_JUNK = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir",
    "$recycle.bin", "system volume information", "lost+found",
})  # fmt: skip


class Unreadable(ValueError):
    """A file cannot be read; the message says why in a few words."""


def expanded(named: str) -> Path:
    """The path with `~` and `~name` replaced, where there is such a user."""
    try:
        return Path(named).expanduser()
    except RuntimeError:
        return Path(named)


def located(named: str) -> Path:
    """The absolute path that the user means."""
    try:
        return expanded(named).absolute()
    except OSError:  # the working folder is gone
        return expanded(named)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; no name, however odd, is an error."""
    return stat.S_ISDIR(_mode(path))


def is_file(path: Path) -> bool:
    """Whether a plain file is there: pipes and devices, which may never end, are none."""
    return stat.S_ISREG(_mode(path))


def read_file(path: Path, *, most: int = LARGEST_FILE) -> bytes:
    """The content of a plain file of at most so many bytes.

    Raises:
        Unreadable: it is not there, no plain file, too large, or may not be read.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("no plain file")
            if found.st_size > most:
                raise Unreadable(f"larger than {most / 2**20:.0f} MB")
            return file.read(found.st_size)
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a null byte
        raise Unreadable(f"cannot be read: {error}") from None


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name was left by a system or program, not by a person."""
    return name.startswith((".", "~$")) or name.lower() in _JUNK


def suffix_of(name: str) -> str:
    """How a file's name ends, such as `.png`, in lower case.

    "" where that tells no kind of file: `photo`, `face.0001`.
    """
    _, dot, end = name.rpartition(".")
    return f".{end.lower()}" if dot and re.fullmatch(r"(?=.*[^\W\d_])\w{1,8}", end) else ""


def as_text(path: str) -> str:
    """A path as text that can be stored: bytes that are no UTF-8 are spelled out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe would wait for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    # Too long, a loop of links, a folder that may not be entered; a null byte.
    except (OSError, ValueError):
        return 0
