"""Numbers that the environment gives: checked when a command starts, as options are."""

from __future__ import annotations

import os

from fer_experiments.errors import UsageError, quote


def seconds(name: str, default: float, *, zero: bool = True) -> float:
    """The seconds that an environment variable gives, which may be `inf`.

    Args:
        name: of the variable.
        default: where it is not set, or empty.
        zero: whether 0 is a value.

    Raises:
        UsageError: it gives no such number.
    """
    given = os.environ.get(name, "")
    if not given.strip():
        return default
    try:
        value = float(given)
        fits = value > 0 or (zero and value == 0)  # nan is neither
    except ValueError:
        fits = False
    if not fits:
        least = "0 or more" if zero else "more than 0"
        raise UsageError(
            f"Expected {name} to be a number of seconds, {least}. Received: {quote(given)}; change "
            "or unset it"
        )
    return value
