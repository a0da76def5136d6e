"""What lies in a folder, a zip or a tar: names, what changes with the content, and the content."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from fer_experiments.data.files import LARGEST_FILE, Unreadable, as_text, is_junk, read_file
from fer_experiments.errors import DataError, quote, summarize

# Links to folders on the way to a file: folders that link to each other have no end of ways.
_MOST_LINKS = 3


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a tree holds. Paths are posix, relative to its root."""

    files: list[tuple[str, Any]]  # (path, what changes when the content does), sorted, no junk
    empty_folders: list[str]  # below which there is no file but junk; sorted
    junk: list[str]  # files and folders that systems and programs left; sorted


class Files(Protocol):
    """A tree of files."""

    @property
    def path(self) -> Path:
        """The folder, zip or tar."""

    def listing(self) -> Listing:
        """What it holds."""

    def open(self) -> Callable[[str], bytes]:
        """A function from relative path to content, which raises Unreadable."""

    def stream(self, relative: str) -> AbstractContextManager[IO[bytes]]:
        """One file, however large, to be read from its beginning; OSError says what is wrong."""


@dataclass(frozen=True)
class FolderFiles:
    """The files below a folder."""

    path: Path

    def listing(self) -> Listing:
        """Every file however deep, with its size and times of change."""
        files: list[tuple[str, Any]] = []
        empty: list[str] = []
        junk: list[str] = []
        todo: list[tuple[Path, str, tuple[tuple[int, int], ...], int]] = [(self.path, "", (), 0)]
        while todo:
            # Instead of os.walk: a class folder may be a link, and links that lead back must end.
            folder, prefix, above, links = todo.pop()
            try:
                entries = list(os.scandir(folder))
                about = folder.stat()
            except OSError as error:
                raise DataError(f"{folder} cannot be read: {error.strerror}") from None
            if (about.st_dev, about.st_ino) in above:
                continue
            above = (*above, (about.st_dev, about.st_ino))
            bare = bool(prefix)
            for entry in entries:
                relative = f"{prefix}{entry.name}"
                if is_junk(entry.name):
                    junk.append(relative)
                    continue
                bare = False
                if _is_folder(entry):
                    more = links + entry.is_symlink()
                    if more > _MOST_LINKS:
                        raise DataError(
                            f"Expected at most {_MOST_LINKS} links on the way to a folder. "
                            f"Received: {quote(as_text(entry.path), 300)}"
                        )
                    todo.append((Path(entry.path), f"{relative}/", above, more))
                else:
                    files.append((relative, _mark(entry)))
            if bare:
                empty.append(prefix.rstrip("/"))
        return Listing(files=sorted(files), empty_folders=sorted(empty), junk=sorted(junk))

    def open(self) -> Callable[[str], bytes]:
        """A reader of single files; raises Unreadable."""
        return lambda relative: read_file(self.path / relative)

    @contextmanager
    def stream(self, relative: str) -> Iterator[IO[bytes]]:
        """One file, to be read from its beginning."""
        with (self.path / relative).open("rb") as file:
            yield file


@dataclass(frozen=True)
class ZipFiles:
    """The members of a zip."""

    path: Path
    # Members are read in memory and never written out, so no path inside a zip can escape.
    largest_member: int = LARGEST_FILE

    def listing(self) -> Listing:
        """Every member, with its size and check sum.

        Raises:
            DataError: no zip, or names that cannot be told.
        """
        with self._opened() as archive:
            members = archive.infolist()
        folders = {info.filename.rstrip("/") for info in members if info.is_dir()}
        marks = [
            (info.filename, (info.file_size, info.CRC)) for info in members if not info.is_dir()
        ]
        names = [name for name, _ in marks]
        crooked = [name for name in names if "\\" in name]
        if crooked and not any("/" in name for name in names):
            raise DataError(
                f"Expected names with / in {self.path}. Received: {quote(min(crooked), 200)}, as "
                "some programs for Windows write them; unpack it there, and pass the folder or "
                "pack it anew"
            )
        if getattr(archive, "metadata_encoding", None) is None:
            self._refuse_unknown_letters(members)
        return _sorted_out(marks, folders)

    def _refuse_unknown_letters(self, members: Iterable[zipfile.ZipInfo]) -> None:
        """Raises DataError for folders whose names' letters cannot be told: classes, perhaps."""
        for info in members:
            folder = info.filename.rpartition("/")[0]
            # Without the flag that says UTF-8, Python reads code page 437, whatever was meant.
            if not info.flag_bits & 0x800 and not folder.isascii():
                raise DataError(
                    f"Expected names in UTF-8 in {self.path}. Received: {quote(folder, 200)}, in "
                    "an encoding that it does not tell; unpack it where it was packed, rename the "
                    "folders or pack it anew with names in UTF-8"
                )

    def open(self) -> Callable[[str], bytes]:
        """A reader of single members; raises Unreadable."""
        archive = self._opened()

        def read(relative: str) -> bytes:
            try:
                member = archive.getinfo(relative)
                if member.file_size > self.largest_member:
                    raise Unreadable(f"larger than {self.largest_member / 2**20:.0f} MB")
                if member.flag_bits & 1:
                    raise Unreadable("encrypted: unpack the zip and pass the folder")
                with archive.open(member) as file:
                    # Not all that comes: the size that a bomb tells of itself may be a lie.
                    return file.read(member.file_size + 1)
            except Unreadable:
                raise
            # Damage shows as BadZipFile, zlib.error, RuntimeError (encrypted) and more.
            except Exception as error:
                raise Unreadable(f"cannot be unpacked: {summarize(error)}") from None

        return read

    @contextmanager
    def stream(self, relative: str) -> Iterator[IO[bytes]]:
        """One member, to be read from its beginning."""
        with self._opened() as archive:
            try:
                file = archive.open(relative)
            except Exception as error:  # RuntimeError (encrypted), BadZipFile and more
                raise OSError(summarize(error)) from None
            with file, _damage():
                yield file

    def _opened(self) -> zipfile.ZipFile:
        try:
            try:
                # Many programs write UTF-8 without saying so, and hardly anything else is UTF-8.
                return zipfile.ZipFile(self.path, metadata_encoding="utf-8")
            except UnicodeDecodeError:
                return zipfile.ZipFile(self.path)
        # Damage shows as BadZipFile, OSError, struct.error, UnicodeDecodeError and more.
        except Exception as error:
            raise DataError(
                f"{self.path} cannot be opened as a zip: {summarize(error)}. "
                "If it was downloaded, download it again"
            ) from None


@dataclass(frozen=True)
class TarFiles:
    """The members of a tar, packed or not. Images in it would have to be searched for each time."""

    path: Path

    def listing(self) -> Listing:
        """Every plain file, with its size."""
        try:
            with tarfile.open(self.path) as archive:
                members = archive.getmembers()
        # Damage shows as TarError, OSError, EOFError, zlib.error, lzma's error and more.
        except Exception as error:
            raise DataError(
                f"{self.path} cannot be opened as a tar: {summarize(error)}. "
                "If it was downloaded, download it again"
            ) from None
        marks = [
            (member.name, (member.size, member.mtime)) for member in members if member.isfile()
        ]
        return _sorted_out(marks, {member.name for member in members if member.isdir()})

    def open(self) -> Callable[[str], bytes]:
        """A reader that reads nothing: images are not taken out of a tar."""

        def read(relative: str) -> bytes:
            raise Unreadable("in a tar: unpack it and pass the folder")

        return read

    @contextmanager
    def stream(self, relative: str) -> Iterator[IO[bytes]]:
        """One member, to be read from its beginning."""
        with _damage(), tarfile.open(self.path) as archive:
            file = archive.extractfile(relative)
            if file is None:
                raise OSError("no plain file")
            yield file


@contextmanager
def _damage() -> Iterator[None]:
    """Turns what unpacking raises on damaged content into OSError."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise OSError(f"damaged: {summarize(error)}") from None


def _sorted_out(marks: list[tuple[str, Any]], folders: Iterable[str]) -> Listing:
    """The listing of an archive; a folder of junk counts once, as on a disk."""
    junk: set[str] = set()
    seen: set[str] = set()  # folders
    full: set[str] = set()  # those that hold something

    def clean(path: str) -> bool:
        names = [name for name in path.split("/") if name not in ("", ".")]
        for i, name in enumerate(names):
            if is_junk(name):
                junk.add("/".join(names[: i + 1]))
                seen.add("/".join(names[:i]))
                return False
            full.add("/".join(names[:i]))
        return bool(names)

    files = [(path, mark) for path, mark in marks if clean(path)]
    seen |= {"/".join(n for n in f.split("/") if n not in ("", ".")) for f in folders if clean(f)}
    bare = seen - full - {""}
    return Listing(files=sorted(files), empty_folders=sorted(bare), junk=sorted(junk))


def _mark(entry: os.DirEntry[str]) -> tuple[int, ...]:
    try:
        stat = entry.stat()
    except OSError:  # a dangling link: reading it will say so
        return 0, 0
    # The second time changes with the content even where the first is set back.
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will say so
        return False
