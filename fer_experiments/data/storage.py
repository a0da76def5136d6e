"""The data home, and writing to it so that what is there is whole.

Everything is written beside its place and renamed into it; a full disk or a folder that may not be
written to is one clear error.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from fer_experiments.errors import DataError, DiskFullError, UsageError, quote


def data_home() -> Path:
    """`FER_DATA_HOME`, else the user's cache folder.

    Raises:
        UsageError: it is something else than a folder, or begins with `~` and a name that no user
            has.
    """
    chosen = os.environ.get("FER_DATA_HOME")
    if not chosen:
        return platformdirs.user_cache_path("fer_experiments")
    try:
        home = Path(chosen).expanduser()
    except RuntimeError:
        home = None
    # Of these two nothing is an error, whatever the name.
    if home is None or (os.path.exists(home) and not os.path.isdir(home)):  # noqa: PTH110, PTH112
        raise UsageError(f"Expected FER_DATA_HOME to be a folder. Received: {quote(chosen, 200)}")
    return home


def open_array(path: Path) -> np.ndarray:
    """A .npy file, memory-mapped; nothing is unpickled.

    Raises:
        OSError, EOFError, ValueError: it is not there or no such file.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):  # NumPy takes a zip for an .npz, whatever it is called
        raise ValueError("no single array")
    return array


def write_folder(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    manifest: Mapping[str, Any],
    *,
    is_whole: Callable[[Path], bool],
) -> None:
    """Writes `<name>.npy` for each array and `manifest.json`; a half-written folder never stays.

    Args:
        folder: its place; one that `is_whole` stays, for another process wrote the same first.
        arrays: by file name without ending.
        manifest: what JSON can hold.
        is_whole: tells whether a folder that is in the way can be used.

    Raises:
        DataError: the disk is full, or the folder may not be written to.
    """
    need = sum(array.nbytes for array in arrays.values())
    with writing(folder, need, is_whole=is_whole) as temporary:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2))


@contextmanager
def writing(folder: Path, need: int, *, is_whole: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder beside `folder`, which becomes it if all goes well and is gone otherwise.

    Args:
        folder: its place; one that `is_whole` stays, for another process wrote the same first.
        need: how much will be written, bytes; for the message if the disk is full.
        is_whole: tells whether a folder that is in the way can be used.

    Raises:
        DiskFullError: there is not as much room.
        DataError: the folder may not be written to.
    """
    # Not tempfile's folder, which nobody else may read: a data home may be shared.
    temporary = folder.parent / f"{unfinished(folder)}{uuid.uuid4().hex}"
    with disk_errors(folder.parent, need):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _put_in_place(temporary, folder, is_whole)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def unfinished(folder: Path) -> str:
    """How the names of temporary folders begin that were to become `folder`."""
    return f".writing-{folder.name}-"


def write_text(path: Path, text: str) -> None:
    """Writes a small file in one step.

    Raises:
        DataError: as `write_folder`.
    """
    with writing_file(path, len(text)) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writing_file(path: Path, need: int, *, suffix: str = "") -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place if all goes well and is gone otherwise.

    Args:
        path: its place; a file that is there is replaced.
        need: how much will be written, bytes; for the message if the disk is full.
        suffix: how the temporary file's name ends.

    Raises:
        DiskFullError, DataError: it cannot be written; the file before stays.
    """
    temporary = path.with_name(f".writing-{uuid.uuid4().hex}{suffix}")
    with disk_errors(path.parent, need):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """One process at a time holds the lock file; the others wait, and say so by `waiting`.

    Raises:
        DiskFullError, DataError: it cannot be written.
    """
    lock = FileLock(path)
    with disk_errors(path.parent, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting is not None:
                waiting()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _put_in_place(temporary: Path, folder: Path, is_whole: Callable[[Path], bool]) -> None:
    try:
        temporary.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        if not is_whole(folder):
            shutil.rmtree(folder)
            temporary.rename(folder)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error; MLflow and SQLite wrap it in others."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_errors(where: Path, need: int) -> Iterator[None]:
    """Turns what the operating system says into DiskFullError or DataError; `need` in bytes."""
    try:
        yield
    except OSError as error:
        # NumPy says "200 requested and 0 written", without a number, when the disk is full.
        if error.errno in (None, errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"The disk that holds {where} is full"
                + (f": {need / 1e6:.0f} MB are needed" if need else "")
                + ". Free some, or set FER_DATA_HOME to another disk"
            ) from None
        raise DataError(
            f"{where} cannot be written: {error.strerror}. "
            "Set FER_DATA_HOME to a folder that you may write to"
        ) from None
