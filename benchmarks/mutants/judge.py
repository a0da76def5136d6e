"""Runs an area's tests on a changed copy of the tree, several copies at a time.

Each run is a fork of a process that has imported what takes long (Keras, MLflow) and nothing of
ours, so that a change costs its tests alone.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutants.areas import Area
from benchmarks.mutants.changes import Change

ROOT = Path(__file__).parent.parent.parent
_COPIED = ("fer_experiments", "tests", "benchmarks", "docs")
_OURS = ("fer_experiments", "tests", "benchmarks")
_LIGHT = ("numpy", "scipy.stats", "sklearn.metrics", "matplotlib.figure", "PIL.Image")
_HEAVY = ("keras", "mlflow", "mlflow.pyfunc", "mlflow.keras", "sqlalchemy")
# Seconds that tests may take: so many times what they take on the unchanged tree, and some more.
_PATIENCE, _MORE = 4, 20
_SURVIVED, _KILLED, _ERRORS = 0, 1, 2  # pytest's exit codes


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the tests said."""

    change: Change | None  # None: the tree as it is
    killed: bool
    seconds: float
    by: str  # the test that failed, or why there is none


class Judge:
    """Copies of the tree in a folder, in which tests run."""

    def __init__(self, folder: Path, copies: int, *, slow: bool = False) -> None:
        self._slow = slow
        self._trees = [folder / f"tree{i}" for i in range(copies)]
        for tree in self._trees:
            shutil.rmtree(tree, ignore_errors=True)
            tree.mkdir(parents=True)
            for name in _COPIED:
                shutil.copytree(
                    ROOT / name,
                    tree / name,
                    ignore=shutil.ignore_patterns("__pycache__", "predictions"),
                )
            for path in ROOT.iterdir():
                if path.is_file() and not path.name.startswith("."):
                    shutil.copy(path, tree)
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a changed file may be as long and as old

    def check(self, area: Area) -> float:
        """Seconds that the area's tests take on the tree as it is.

        Raises:
            RuntimeError: they do not pass.
        """
        _import(area)
        [verdict] = self.run(area, [None], patience=1800)
        if verdict.killed:
            raise RuntimeError(f"The tests of {area.name} fail on the tree as it is: {verdict.by}")
        return verdict.seconds

    def run(
        self, area: Area, changes: Iterable[Change | None], *, patience: float
    ) -> Iterator[Verdict]:
        """A verdict for each change, as they come."""
        _import(area)
        waiting = iter(changes)
        free = list(self._trees)
        running: dict[int, tuple[Path, Change | None, float]] = {}
        while True:
            while free and (change := next(waiting, _END)) is not _END:
                tree = free.pop()
                assert change is None or isinstance(change, Change)
                if change is not None:
                    (tree / change.file).write_text(change.code, encoding="utf-8")
                running[_start(tree, area, slow=self._slow)] = (tree, change, time.monotonic())
            if not running:
                return
            for pid, (tree, change, started) in list(running.items()):
                seconds = time.monotonic() - started
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended and seconds < patience:
                    continue
                _end(pid, wait=not ended)
                del running[pid]
                if change is not None:
                    (tree / change.file).write_text(change.original, encoding="utf-8")
                free.append(tree)
                yield _verdict(tree, change, seconds, os.waitstatus_to_exitcode(status), ended > 0)
            time.sleep(0.05)


_END = object()


def patience(seconds: float) -> float:
    """How long changed tests may take that take so long unchanged."""
    return _PATIENCE * seconds + _MORE


def _import(area: Area) -> None:
    for name in (*_LIGHT, *(_HEAVY if area.heavy else ())):
        importlib.import_module(name)


def _start(tree: Path, area: Area, *, slow: bool) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(tree)
        log = os.open(tree / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for name in [name for name in sys.modules if name.split(".")[0] in _OURS]:
            del sys.modules[name]
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(tree)
        import pytest

        options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=no", "-rfE"]
        options += [] if slow else ["-m", "not slow"]
        # Of what was imported above, some belongs to plugins, which pytest would have rewritten.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, *(f"tests/{test}" for test in area.tests)]))
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _end(pid: int, *, wait: bool) -> None:
    """The test process and whatever it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if wait:
        os.waitpid(pid, 0)


def _verdict(tree: Path, change: Change | None, seconds: float, code: int, ended: bool) -> Verdict:
    log = (tree / "log").read_text(encoding="utf-8", errors="replace")
    failed = [line for line in log.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    by = failed[0].split(" ")[1] if failed else log[-300:]
    if not ended:
        by = "the time was up"
    elif code not in (_SURVIVED, _KILLED, _ERRORS) and code >= 0:
        raise RuntimeError(f"pytest ended with {code} in {tree}: {log[-2000:]}")
    return Verdict(
        change=change,
        killed=not ended or code != _SURVIVED,
        seconds=seconds,
        by="" if code == _SURVIVED and ended else by,
    )
