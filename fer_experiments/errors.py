"""What can go wrong, as the user sees it.

Every message is one line without secrets: the rule, what was received, what to do.

    FerError                    exit code 1: the work could not be done
    ├── UsageError              exit code 2: what was asked for cannot be done
    │   ├── ConfigError         a field's value is unknown or out of range
    │   └── RunError            a run or model that cannot serve this stage
    ├── DataError               the images cannot be used as they are
    │   └── DiskFullError           what is computed does not fit on the disk
    ├── WeightsError            the pre-trained weights cannot be had or do not fit
    ├── TrainingError           training cannot continue
    └── TrackingError           MLflow refuses or cannot be reached

`Terminated` is no failure but a request, as KeyboardInterrupt is.
"""

from __future__ import annotations

from fer_experiments.secrets import redact

FULL_DISK = "The disk that holds the MLflow store or the data home is full; free some and run again"


def escaped(text: str) -> str:
    """The text with what is no visible character, such as a terminal's commands, spelled out."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def one_line(text: str) -> str:
    """The text as it can stand in one line that is shown or stored: visible, without secrets."""
    return escaped(" ".join(redact(text).split()))


def quote(value: object, most: int = 80) -> str:
    """A value that was received, as it can stand in an error: visible, cut where it is long."""
    return truncate(escaped(redact(str(value))), most)


def truncate(text: str, most: int) -> str:
    """The text, with `…` in the place of what is too much."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def summarize(error: BaseException, most: int = 160) -> str:
    """What another library's error says, as it can stand inside one line of ours."""
    lines = str(error).strip().splitlines()
    return quote(lines[0], most) if lines else type(error).__name__


class FerError(Exception):
    """Base of all errors of this suite; ends a command with `exit_code` and one line."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(FerError):
    """Something in the request itself is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration field has an unknown value or one that is out of range."""


class RunError(UsageError):
    """A run or model does not exist, is not finished, or is of the wrong stage."""


class DataError(FerError):
    """The images, or the disk that they are written to, do not allow what was asked."""


class DiskFullError(DataError):
    """The disk has no room for what was to be written."""


class WeightsError(FerError):
    """Pre-trained weights cannot be downloaded, or do not fit the backbone."""


class TrainingError(FerError):
    """Training cannot continue, for example because the loss is no longer finite."""


class Terminated(BaseException):
    """SIGTERM has come: what schedulers send before they kill. Ends a command with code 143."""


class TrackingError(FerError):
    """MLflow cannot be reached or refuses what it was given."""
