"""Properties of made-up values and damaged files: whatever comes is refused or right."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_experiments.config import FIELDS
from tests.faults import files
from tests.faults.bad_cases import FAILURE, MODEL, PREPARE, TRAIN, USAGE, Case

Try = Callable[[Case], None]

# What Hypothesis draws from where it makes up text: all of Unicode, broken pairs too.
TEXTS = st.one_of(
    st.text(st.characters(), max_size=40),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Nd"]), min_size=1, max_size=10),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["auto", "none", "None", "true", "-", "--", "=", "1e3", "0x10", "1_0", "١٢"]),
)


def properties(attempt: Try, examples: Mapping[str, int]) -> Iterator[Callable[[], None]]:
    """Functions that try so many examples each; the same ones every time."""
    doors = {
        "options": options,
        "images": images,
        "zips": zips,
        "tables": tables,
        "weights": weights,
    }
    for name, most in examples.items():
        yield settings(
            max_examples=most,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(doors[name](attempt))


_NUMBER = itertools.count(1)


def options(attempt: Try) -> Callable[[], None]:
    """Any text for any field: accepted by its rule or refused with the field's name."""

    @given(name=st.sampled_from(sorted(FIELDS)), value=TEXTS)
    def examine(name: str, value: str) -> None:
        attempt(option(name, value))

    return examine


def option(name: str, value: str) -> Case:
    """A field with this value, in a command that stops at its last option in any case."""
    command = "train" if name == "backbone" else "main"
    return Case(
        name=f"{name}={value!r}",
        # The last option is refused when all others are right: no command starts.
        arguments=(command, f"--{name.replace('_', '-')}={value}", "--recipe=unknown"),
        exit_codes=(USAGE,),
    )


def images(attempt: Try) -> Callable[[], None]:
    """Damaged images are refused, or still images."""
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")

    @given(content=st.sampled_from(kinds).flatmap(lambda kind: damaged(files.picture(kind))))
    def examine(content: bytes) -> None:
        attempt(
            Case(
                name=f"damaged image {next(_NUMBER)}",
                arguments=("predict", "x.png", "--model", MODEL),
                exit_codes=(0, FAILURE),
                make=lambda folder: (folder / "x.png").write_bytes(content),
            )
        )

    return examine


def zips(attempt: Try) -> Callable[[], None]:
    """Damaged zips."""
    whole = files.zipped({k: v for k, v in files.faces().items() if k[-5] in "012"})
    return _sources(attempt, "faces.zip", whole)


def tables(attempt: Try) -> Callable[[], None]:
    """Damaged CSVs."""
    return _sources(attempt, "faces.csv", files.table(files.rows(84)))


def _sources(attempt: Try, name: str, whole: bytes) -> Callable[[], None]:
    @given(content=damaged(whole))
    def examine(content: bytes) -> None:
        attempt(
            Case(
                name=f"damaged {name} {next(_NUMBER)}",
                arguments=(*PREPARE, name),
                exit_codes=(0, FAILURE),
                make=lambda folder: (folder / name).write_bytes(content),
            )
        )

    return examine


def weights(attempt: Try) -> Callable[[], None]:
    """Damaged HDF5 files that lack a layer, so that what is still whole is refused for that."""

    @given(content=st.deferred(lambda: damaged(_incomplete_weights())))
    def examine(content: bytes) -> None:
        attempt(
            Case(
                name=f"damaged weights {next(_NUMBER)}",
                arguments=(*TRAIN, "x.h5"),
                exit_codes=(FAILURE,),
                make=lambda folder: (folder / "x.h5").write_bytes(content),
            )
        )

    return examine


@cache
def _incomplete_weights() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        files.weights_file(path, without="block2_2_bn")
        return path.read_bytes()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The file with some bytes changed, cut out, doubled, or its end cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 8))):
        # Half of the damage hits the beginning, where most formats describe themselves.
        most = draw(st.sampled_from([min(64, len(content)), len(content)]))
        at = draw(st.integers(0, max(most - 1, 0)))
        size = draw(st.integers(1, 16))
        what = draw(st.sampled_from(["change", "change", "flip", "cut", "double", "end"]))
        if what == "change":
            content[at : at + size] = draw(st.binary(min_size=size, max_size=size))
        elif what == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del content[at : at + size]
        elif what == "double":
            content[at:at] = content[at : at + 64 * size]
        elif what == "end" and draw(st.booleans()):
            del content[at:]
    return bytes(content)
