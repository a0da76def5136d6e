"""Runs the command that was typed; whatever goes wrong becomes one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click

from fer_experiments import console
from fer_experiments.cli import cli
from fer_experiments.errors import FerError, Terminated, one_line, summarize, truncate
from fer_experiments.migrations import renamed_arguments

# What was typed may be a whole file by mistake, and some errors quote it.
_LONGEST_LINE = 3000


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command; every error becomes one line and an exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    console.fit_encoding()
    typed = sys.argv[1:] if arguments is None else arguments
    given, renamed = renamed_arguments(typed)
    try:
        for warning in renamed:
            console.warn(warning)
        result = cli.main(args=given or ["--help"], prog_name="fer", standalone_mode=False)
        if failure := console.output_failure():
            _fail(f"What was printed could not be written: {failure}", 1)
        sys.exit(result if isinstance(result, int) else 0)
    except FerError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except Terminated:
        _fail("terminated", 143)
    except BrokenPipeError:
        # The reader of click's own output (`fer --help | head`) has left: nobody is to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if "--verbose" in given:
            console.complain(traceback.format_exc())
        text = summarize(error, 300) if str(error).strip() else "no message"
        _fail(f"{type(error).__name__}: {text} (fer --verbose COMMAND shows where)", 1)


def _terminate(signum: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what follows needs a moment undisturbed
    raise Terminated


def _fail(message: str, exit_code: int) -> NoReturn:
    line = truncate(one_line(message), _LONGEST_LINE)
    console.complain(f"Error: {line}")
    if os.environ.get("MLFLOW_RUN_ID"):
        # `mlflow run` has made a run already and will end it as FAILED: it shall say why.
        from fer_experiments.tracking.sync import explain

        with suppress(Exception):  # the store may be what the line is about
            explain(os.environ["MLFLOW_RUN_ID"], line)
    sys.exit(exit_code)
