"""Wrong input through every public door, in one process after another that it kills.

Each case must end with its exit code and one `Error:` line, without a traceback, without leftovers,
and with its run, if it opened one, FAILED with the reason.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.bad_cases import DRAWN, MODEL, Case, every
from tests.faults.results import Result

ROOT = Path(__file__).parents[2]
# A case that takes longer hangs; 1 GB is hashed once, which may take some seconds.
_PATIENCE = 180  # seconds
_MOST_MEMORY = 1500  # megabytes that a case may need beyond what the process has


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    exit_code: int
    out: str
    err: str
    megabytes: float = 0.0  # that it needed beyond what the process had


Call = Callable[[list[str]], Ended]


@dataclass(frozen=True, kw_only=True)
class Store:
    """The runs in a store."""

    statuses: Mapping[str, str]
    reasons: Mapping[str, str]

    @classmethod
    def read(cls, database: Path) -> Store:
        """What a local database holds; nothing before it is made."""
        if not database.exists():
            return cls(statuses={}, reasons={})
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            statuses = dict(connection.execute("SELECT run_uuid, status FROM runs"))
            reasons = dict(
                connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'failure_reason'")
            )
        finally:
            connection.close()
        return cls(statuses=statuses, reasons=reasons)


def problems(case: Case, ended: Ended, before: Store, after: Store, folder: Path) -> list[str]:
    """What is wrong with how a case ended."""
    found = []
    if ended.exit_code not in case.exit_codes:
        found.append(f"exit code {ended.exit_code} instead of {case.exit_codes}")
    if "Traceback" in ended.out + ended.err:
        found.append("a traceback")
    lines = [line for line in ended.err.splitlines() if line.startswith("Error: ")]
    if len(lines) != (ended.exit_code != 0):
        found.append(f"{len(lines)} error lines")
    for line in ended.err.splitlines():
        if ended.exit_code != 0 and not line.startswith(("Error: ", "Warning: ")):
            found.append(f"another line on standard error: {line[:80]!r}")
        if not line.isprintable() or len(line) > 3100:
            found.append("a line that is not fit to be shown")
    if case.says and ended.exit_code != 0 and not any(case.says in line for line in lines):
        found.append(f"no word of {case.says!r}: {lines[:1]}")
    if "hunter2x" in ended.out + ended.err:
        found.append("the password is shown")
    opened = after.statuses.keys() - before.statuses.keys()
    wanted = "FINISHED" if ended.exit_code == 0 else "FAILED"
    for run_id in opened:
        if after.statuses[run_id] != wanted:
            found.append(f"a run is {after.statuses[run_id]}")
        elif wanted == "FAILED" and not after.reasons.get(run_id):
            found.append("a run failed without a reason")
    if ended.megabytes > _MOST_MEMORY:
        found.append(f"{ended.megabytes:.0f} MB of memory")
    for home in {Path(os.environ["FER_DATA_HOME"]), folder / "home"}:
        for left in list(home.rglob(".writing-*")):
            found.append("a half-written folder")
            shutil.rmtree(left, ignore_errors=True)
    return found


def attempt(
    case: Case, folder: Path, *, model: str, database: Path, call: Call
) -> tuple[Ended, list[str]]:
    """Builds the input in `folder`, runs the command there, judges how it ended.

    Args:
        case: what to try.
        folder: made for it, gone afterwards.
        model: the URI of a model that is there.
        database: of the store that the environment names.
        call: runs `fer` with these arguments in this process.
    """
    folder.mkdir()
    try:
        case.make(folder)
        before = Store.read(database)
        arguments = [argument.replace(MODEL, model) for argument in case.arguments]
        with _inside(folder, case.environment):
            ended = call(arguments)
        found = problems(case, ended, before, Store.read(database), folder)
        with _inside(folder, {}):
            wrong = _look(case, folder)
        return ended, [*found, wrong] if wrong else found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _look(case: Case, folder: Path) -> str | None:
    try:
        return case.after(folder)
    except Exception as error:
        return f"afterwards: {type(error).__name__}: {error}"


@contextmanager
def _inside(folder: Path, environment: Mapping[str, str]) -> Any:
    saved, before = dict(os.environ), Path.cwd()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(saved)


def fer(arguments: list[str]) -> Ended:
    """`fer` with these arguments; all that reaches the file descriptors is caught."""
    from fer_experiments.entry import main

    streams: dict[int, Any] = {n: tempfile.TemporaryFile() for n in (1, 2)}  # noqa: SIM115
    kept = {number: os.dup(number) for number in streams}
    _forget_peak()
    resident = _kilobytes("VmRSS")
    code: Any = None
    for number, stream in streams.items():
        os.dup2(stream.fileno(), number)
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        code = -1
        sys.stderr.write(f"Traceback: {type(error).__name__} left main\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in streams:
            os.dup2(kept[number], number)
            os.close(kept[number])
    texts = []
    for stream in streams.values():
        stream.seek(0)
        texts.append(stream.read().decode(errors="replace"))
        stream.close()
    return Ended(
        exit_code=code if isinstance(code, int) else 0,
        out=texts[0],
        err=texts[1],
        megabytes=max(0, _kilobytes("VmHWM") - resident) / 1024,
    )


def _forget_peak() -> None:
    """Linux then counts the peak of memory anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _kilobytes(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


class Trials:
    """Tries cases one after another in this process and tells each result on standard output."""

    def __init__(self, base: Path, model: str, *, skip: int) -> None:
        self._base, self._model, self._skip = base, model, skip
        self._number = 0

    def __call__(self, case: Case) -> None:
        """Tries it, unless an earlier process has."""
        self._number += 1
        if self._number <= self._skip or (case.as_user and os.geteuid() == 0):
            return
        _tell({"begin": case.name, "number": self._number})
        started = time.perf_counter()
        ended, found = attempt(
            case,
            self._base / f"work-{self._number}",
            model=self._model,
            database=self._base / "mlflow.db",
            call=fer,
        )
        told = {"line": ended.err.strip()[-300:]} if found else {}
        seconds = round(time.perf_counter() - started, 2)
        _tell({"end": case.name, "problems": found, "seconds": seconds, **told})


def _tell(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _try_everything(base: Path, *, quick: bool, skip: int) -> None:
    job = ["main", "--backbones", "tiny", *DRAWN, "--epochs", "1", "--finetune-epochs", "1"]
    trials = Trials(base, a_model(base, job, fer), skip=skip)
    for case in every(large=not quick):
        trials(case)
    from tests.faults.bad_bytes import properties

    for examine in properties(trials, _QUICK if quick else _EXAMPLES):
        examine()


_EXAMPLES = {"options": 1500, "images": 300, "zips": 150, "tables": 150, "weights": 60}
_QUICK = {"options": 200, "images": 40, "zips": 30, "tables": 30, "weights": 5}


def a_model(base: Path, job: list[str], call: Call) -> str:
    """The URI of a trained model in the store in `base`; made once, by this command."""
    kept = base / "model.txt"
    if not kept.exists():
        with _inside(base, {}):
            ended = call(job)
        if ended.exit_code != 0:
            raise RuntimeError(f"no model to try things on: {ended.err}")
        connection = sqlite3.connect(base / "mlflow.db")
        query = "SELECT value FROM tags WHERE key = 'model_uri' LIMIT 1"
        kept.write_text(connection.execute(query).fetchone()[0])
        connection.close()
    return kept.read_text()


def run(folder: Path, *, quick: bool) -> Result:
    """All cases; a process that dies or hangs over one of them is replaced for the next."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "bad_input.jsonl"
    log.write_text("")
    tried = 0
    failures: dict[str, str] = {}
    skip: int | None = -1
    while skip is not None:
        for message in _process(folder, quick=quick, skip=max(skip, 0)):
            with log.open("a") as file:
                file.write(json.dumps(message) + "\n")
            if "end" in message:
                tried += 1
                if message["problems"]:
                    failures[f"{tried}: {message['end']}"] = "; ".join(message["problems"])
            elif "died" in message:
                tried += 1
                failures[f"{tried}: {message['died']}"] = message["how"]
        last = message
        skip = last.get("number") if "died" in last else None
    shown = "; ".join(f"{name}: {why}" for name, why in list(failures.items())[:20])
    note = f"{len(failures)} not survived: {shown}" if failures else "every case ended as it should"
    return Result(name="bad input", tried=tried, survived=tried - len(failures), note=note)


def _process(folder: Path, *, quick: bool, skip: int) -> Any:
    """What a process that tries the cases tells; the last message says whether it died."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        "FER_DATA_HOME": str(folder / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "HOME": str(folder),
    }
    question = json.dumps({"base": str(folder), "quick": quick, "skip": skip})
    with (folder / "stderr.txt").open("a") as noise:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.bad_input", question],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=noise,
        )
    assert process.stdout is not None
    begun: dict[str, Any] = {}
    buffer = b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
        data = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
        if not data:
            break
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            message = json.loads(line)
            begun = message if "begin" in message else {}
            yield message
    hung = process.poll() is None and not ready
    if hung:
        process.kill()
    code = process.wait()
    process.stdout.close()
    if begun:
        how = "hung" if hung else f"the process ended with {code}"
        yield {"died": begun["begin"], "how": how, "number": begun["number"]}
    elif code != 0:
        raise RuntimeError(f"the cases ended with {code}; see {folder}/stderr.txt")
    yield from () if begun else [{"finished": code}]


def main() -> None:
    """One process: tries the cases after `skip`."""
    asked = json.loads(sys.argv[1])
    _try_everything(Path(asked["base"]), quick=asked["quick"], skip=asked["skip"])


if __name__ == "__main__":
    main()
