"""What older versions called the fields of a configuration, and what has become of them.

Stored configurations (`config.json`, the metadata of models, run journals) carry the version of the
fields that they hold, `config_version`; those without one are of version 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fer_experiments.errors import ConfigError, quote

CONFIG_VERSION = 2
VERSION_KEY = "config_version"


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """A field that has another name now."""

    old: str
    new: str
    value: Callable[[Any], Any] = lambda value: value  # the old value to the new one


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A field that is gone: nothing is lost where it had the value at which it did nothing."""

    old: str
    neutral: Any


def _copies(views: Any) -> Any:
    """Views counted the image itself among them."""
    text = str(views).strip()
    return int(text) - 1 if text.isdecimal() else views


RENAMED = (
    Renamed(old="cut", new="truncate_at"),
    Renamed(old="views", new="augmented_copies", value=_copies),
)
REMOVED: tuple[Removed, ...] = ()
# By field: an old value and what it is called now.
RENAMED_VALUES = {"head": {"average": "global_average_pooling"}}


def migrated(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A flat configuration, or the params of a run, with the fields of today.

    Fields that no version knows stay: who reads them decides.

    Raises:
        ConfigError: it is of a version that is not known yet, or used what is gone.
    """
    found = {name: value for name, value in flat.items() if name != VERSION_KEY}
    version = flat.get(VERSION_KEY, 1)
    if str(version) not in {str(known) for known in range(1, CONFIG_VERSION + 1)}:
        raise ConfigError(
            f"Expected a configuration of version 1 to {CONFIG_VERSION}. Received: version "
            f"{quote(version)}, of a newer fer_experiments; update it"
        )
    for change in RENAMED:
        if change.old in found:
            found[change.new] = change.value(found.pop(change.old))
    for gone in REMOVED:
        if gone.old in found and (value := found.pop(gone.old)) != gone.neutral:
            raise ConfigError(
                f"Expected {gone.old}={gone.neutral}: the field is gone. "
                f"Received: {gone.old}={quote(value)}"
            )
    for name, values in RENAMED_VALUES.items():
        if name in found:
            found[name] = values.get(str(found[name]), found[name])
    return found


def renamed_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line with the options of today, and a warning for each that was renamed."""
    given, warnings = list(arguments), []
    flags = {f"--{change.old.replace('_', '-')}": change for change in RENAMED}
    end = given.index("--") if "--" in given else len(given)
    for i, word in enumerate(given[:end]):
        flag, equals, text = word.partition("=")
        change = flags.get(flag.replace("_", "-"))
        if change is not None:
            new = f"--{change.new.replace('_', '-')}"
            value = str(change.value(text)) if equals else ""
            given[i] = f"{new}={value}" if equals else new
            if not equals and i + 1 < end:
                value = given[i + 1] = str(change.value(given[i + 1]))
            warnings.append(f"{flag} is called {new} now: {new} {quote(value)}")
        for name, values in RENAMED_VALUES.items():
            option = f"--{name.replace('_', '-')}"
            for old, new_value in values.items():
                if word == f"{option}={old}":
                    given[i] = f"{option}={new_value}"
                elif word == option and i + 1 < end and given[i + 1] == old:
                    given[i + 1] = new_value
                else:
                    continue
                warnings.append(f"{option} {old} is called {new_value} now")
    return given, warnings
