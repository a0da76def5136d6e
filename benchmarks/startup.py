"""How long `fer` takes to say something, against a Python that does nothing, in turns.

    python -m benchmarks.startup

Wall time is what one waits for; CPU time, of all threads, moves less when the machine is busy.
The aim is 0.35 seconds each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

from benchmarks.processes import ROOT

_NOTHING = "python -c pass"
# What is typed -> what Python is given, and the exit code.
_COMMANDS = {
    _NOTHING: (["-c", "pass"], 0),
    "fer --help": (["-m", "fer_experiments", "--help"], 0),
    "fer train --help": (["-m", "fer_experiments", "train", "--help"], 0),
    "fer train --epochs abc": (["-m", "fer_experiments", "train", "--epochs", "abc"], 2),
}


@click.command()
@click.option("--rounds", default=15, type=click.IntRange(min=1))
def main(rounds: int) -> None:
    """Medians of so many rounds, after one that counts for nothing."""
    loads = os.getloadavg()
    found: dict[str, list[tuple[float, float]]] = {typed: [] for typed in _COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for typed, (arguments, code) in _COMMANDS.items():
                took = _seconds(arguments, code, Path(folder))
                if turn:
                    found[typed].append(took)
    medians = {typed: tuple(map(median, zip(*took, strict=True))) for typed, took in found.items()}
    least = medians[_NOTHING]
    click.echo(
        "| command | wall, s | CPU, s | wall, ratio | CPU, ratio |\n|---|---:|---:|---:|---:|"
    )
    for typed, (wall, cpu) in medians.items():
        click.echo(
            f"| `{typed}` | {wall:.3f} | {cpu:.3f} | {wall / least[0]:.1f} | {cpu / least[1]:.1f} |"
        )
    click.echo(
        f"\nMedians of {rounds}; Python {sys.version.split()[0]}, {os.cpu_count()} cores; "
        f"load before: {loads[0]:.1f} (1 min), {loads[1]:.1f} (5 min)"
    )


def _seconds(arguments: list[str], code: int, folder: Path) -> tuple[float, float]:
    """Wall and CPU time of a process.

    Raises:
        RuntimeError: it ended with another exit code.
    """
    environment = os.environ | {"FER_DATA_HOME": str(folder / "data"), "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(
            f"Expected exit code {code} of {arguments}. Received: {process.returncode}"
        )
    return wall, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
