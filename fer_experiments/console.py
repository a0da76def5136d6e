"""What the terminal shows: our own lines, and nobody else's start-up noise."""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

import click

from fer_experiments.errors import escaped, one_line
from fer_experiments.secrets import redact


def quieten() -> None:
    """Silences TensorFlow, absl and MLflow; call before they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in ("mlflow", "alembic", "absl", "tensorflow", "kagglehub", "git"):
        # Not ERROR: MLflow logs whole tracebacks there, of errors that reach us anyway.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def load_keras() -> None:
    """Imports Keras; every stage that needs it calls this first.

    TensorFlow writes to the process's standard error before any of its settings count. Keras on JAX
    imports TensorFlow too, later, where it is installed.
    """
    # TensorFlow leaves oneDNN's kernels off where the processor has no AVX-512. They are faster
    # there, too, up to twice when ResNet50 trains: python -m benchmarks.kernels
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "keras" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        return
    with stderr_aside():
        import keras  # noqa: F401

        with suppress(ModuleNotFoundError):
            import tensorflow  # noqa: F401


@contextmanager
def stderr_aside() -> Iterator[None]:
    """What is written to the process's standard error, by C++ too, is shown only if this fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            noise.seek(0)
            os.write(kept, noise.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def keras_is_silent() -> Iterator[None]:
    """Keras draws no bars in this thread; what other threads print is left alone.

    Standard output belongs to all threads: to redirect it here would swallow the others' lines.
    """
    import keras

    before = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if before:
            keras.config.enable_interactive_logging()


# What stands for our own characters where the terminal, or the file behind it, has no UTF-8.
_PLAIN = {
    "–": "-", "—": "-", "−": "-", "…": "...", "±": "+/-", "×": "x", "≥": ">=", "≤": "<=",
    "→": "->", "·": "*", "“": '"', "”": '"', "’": "'", "\u202f": " ", "\xa0": " ",
}  # fmt: skip
# Why standard output could not be written; a reader that has left (`| head`) is no failure.
_failures: list[str] = []


def fit_encoding() -> None:
    """From here on, what a terminal or log cannot encode is spelled out instead of an error."""
    codecs.register_error("fer_experiments", _spelled_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="fer_experiments")


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    plain = (_PLAIN.get(c, c) for c in wrong)
    return "".join(
        c if c.isascii() else c.encode("ascii", "backslashreplace").decode() for c in plain
    ), error.end


# Whether lines go to standard error, since standard output belongs to the result.
_aside: list[bool] = []


@contextmanager
def aside() -> Iterator[None]:
    """While it is open, standard output holds nothing but what `result` writes."""
    _aside.append(True)
    try:
        yield
    finally:
        _aside.pop()


def is_for_scripts() -> bool:
    """Whether standard output holds results alone."""
    return bool(_aside)


def say(text: str = "") -> None:
    """A line of ours, or some, without secrets."""
    _print(redact(text), sys.stderr if _aside else sys.stdout)


def result(value: object) -> None:
    """One line of JSON on standard output, for scripts, without secrets."""
    _print(redact(json.dumps(value, default=str)), sys.stdout)


def warn(text: str) -> None:
    """One line that asks for attention, on standard error."""
    _print(f"Warning: {one_line(text)}", sys.stderr)


def complain(text: str) -> None:
    """A line on standard error, or some, without secrets."""
    _print(redact(text), sys.stderr)


def output_failure() -> str | None:
    """Why something that was said could not be written, such as a full disk; forgotten with it."""
    found = _failures[0] if _failures else None
    _failures.clear()
    return found


def _print(text: str, stream: TextIO | None) -> None:
    """Prints; who reads, or where it is written to, never decides over the work itself."""
    if stream is None:  # closed by whoever started us: `>&-`
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _failures.append(error.strerror or str(error))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def fitted(text: str) -> str:
    """A line of ours, wrapped where a person watches; words such as links are never parted."""
    width = _width()
    if width is None:
        return text
    return textwrap.fill(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: bool = True,
    fit: bool = False,
) -> None:
    """A plain table: the first column to the left, the others to the right where they are numbers,
    mostly.

    With `fit`, a table that is too wide for the terminal is turned, so that rows become columns; if
    that is too wide as well, every row becomes a block of lines.
    """
    # Names of files and folders may hold anything, a terminal's commands too.
    cells = [[escaped(cell) for cell in row] for row in (header, *rows)]
    width = _width() if fit else None
    if width is not None and _wide(cells) > width:
        cells = [list(column) for column in zip(*cells, strict=True)]
        if _wide(cells) > width:
            _blocks(cells)
            return
    _lines(cells, numbers=numbers)


def _wide(cells: Sequence[Sequence[str]]) -> int:
    """Characters of a line of the table."""
    return sum(_widths(cells)) + 2 * (len(cells[0]) - 1)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _blocks(columns: Sequence[Sequence[str]]) -> None:
    """A block for each row of a table that is given as its columns, heads first."""
    (_, *firsts), *others = columns
    longest = max((len(head) for head, *_ in others), default=0)
    for i, first in enumerate(firsts, 1):
        say(first)
        for column in others:
            say(f"  {column[0].ljust(longest)}  {column[i]}")


def _lines(cells: Sequence[Sequence[str]], *, numbers: bool) -> None:
    widths = _widths(cells)
    for row in cells:
        first, *others = (
            cell.rjust(width) if i and numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join([first, *others]).rstrip())


@contextmanager
def progress(length: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, where a person watches; yields what moves it on by so many."""
    if _aside or not is_terminal():
        yield lambda done: None
        return
    with click.progressbar(length=length, show_pos=True) as bar:
        yield bar.update


def _width() -> int | None:
    """Columns of the terminal; None where nobody watches."""
    if _aside or not is_terminal():
        return None
    return max(20, shutil.get_terminal_size().columns)


def is_terminal() -> bool:
    """Whether a person watches, so that a progress bar makes sense."""
    return sys.stdout is not None and sys.stdout.isatty()
