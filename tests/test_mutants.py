"""The mutation tester: which changes it knows, what it draws, what it leaves alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.mutants.areas import AREAS

from .conftest import ROOT

SOURCE = '''\
def limited(values, most=3, *, strict=False):
    """Texts are left alone."""
    if len(values) > most and not strict:
        raise ValueError("Expected fewer values. " "Received: more")
    return list(zip(values, values, strict=True)), "mixup"


class Shown:
    @property
    def name(self):
        return self.first or self.second
'''


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_areas_name_files_and_tests_that_exist(area) -> None:
    for name in area.files:
        assert (ROOT / "fer_experiments" / name).is_file(), name
    for name in area.tests:
        assert (ROOT / "tests" / name.partition("::")[0]).is_file(), name


def test_no_file_is_drawn_twice() -> None:
    files = [name for area in AREAS for name in area.files]
    assert len(files) == len(set(files))


@pytest.fixture
def changed(tmp_path: Path) -> list[tuple[str, str]]:
    pytest.importorskip("mutmut")
    from benchmarks.mutants.changes import File

    (tmp_path / "some.py").write_text(SOURCE)
    file = File(tmp_path, "some.py")
    changes = list(file.changes(set(range(len(file)))))
    assert len({change.key for change in changes}) == len(changes)
    for change in changes:
        compile(change.code, "some.py", "exec")
        assert change.code != SOURCE
    return [(change.before, change.after) for change in changes]


def test_careless_changes_are_known(changed: list[tuple[str, str]]) -> None:
    condition = "if len(values) > most and not strict:"
    assert (condition, "if len(values) >= most and not strict:") in changed
    assert (condition, "if len(values) > most or not strict:") in changed
    assert (condition, "if len(values) > most and strict:") in changed
    properties = ("return self.first or self.second", "return self.first and self.second")
    assert properties in changed
    assert any('"XXmixupXX"' in after for _, after in changed)


def test_wording_and_what_never_happens_are_left_alone(changed: list[tuple[str, str]]) -> None:
    assert not [after for _, after in changed if "EXPECTED" in after or "XXExp" in after]
    assert not [after for _, after in changed if "strict=False))" in after]
    assert not [after for _, after in changed if "zip(values, values, )" in after]


@pytest.mark.slow
def test_a_draw_follows_from_its_seed_and_reaches_every_file() -> None:
    pytest.importorskip("mutmut")
    from benchmarks.mutants.draw import draw

    some = [area for area in AREAS if area.name in ("splits", "metrics")]
    first, again, other = (
        [change for changes in draw(ROOT, 9, seed, some).values() for change in changes]
        for seed in (0, 0, 1)
    )
    keys = [change.key for change in first]
    assert keys == [change.key for change in again] != [change.key for change in other]
    assert len(set(keys)) == 9
    by_file = Counter(change.file for change in first)
    assert set(by_file) == {f"fer_experiments/{name}" for area in some for name in area.files}
    assert sorted(by_file.values()) == [2, 2, 2, 3]
