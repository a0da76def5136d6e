"""Command-line options made from configuration fields: a value has one rule everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

import click
from click.shell_completion import CompletionItem

from fer_experiments.config import FIELDS, check_value
from fer_experiments.errors import ConfigError

AUTO = "auto"  # "the recipe decides": what MLflow passes on for what was not given


class FieldType(click.ParamType):
    """A configuration field: converted and checked by its own rule; `auto` means not given."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.choices = [str(c) for c in self.field.metadata.get("choices", ())]
        self.name = str(self.field.type).removesuffix(" | None")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What `--help` shows behind the option."""
        return "|".join(self.choices) or self.name.upper()

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The field's value; None for `auto`."""
        return None if value == AUTO else check_value(self.field, value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """The choices, if the field has any."""
        return [CompletionItem(c) for c in self.choices if c.startswith(incomplete)]


class TextType(click.ParamType):
    """Text that may be left to the recipe with `auto`."""

    name = "text"

    def __init__(self, choices: Iterable[str] = ()) -> None:
        self.choices = tuple(choices)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The text; None for `auto`."""
        if value == AUTO:
            return None
        if not str(value).strip():
            name = param.name if param else "value"
            raise ConfigError(f"Expected {name} to have a value. Received: {name}=")
        return value

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """The choices, if there are any."""
        return [CompletionItem(c) for c in self.choices if c.startswith(incomplete)]


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def field_options(names: Iterable[str]) -> Decorator:
    """An option for each of these fields of the configuration, whose recipe has the defaults."""
    return _options({FIELDS[name][1]: FIELDS[name][1].metadata["help"] for name in names})


def class_options(cls: type) -> Decorator:
    """An option for each field of a dataclass that no recipe sets."""
    return _options({f: f"{f.metadata['help']} (default {f.default})" for f in fields(cls)})


def _options(texts: Mapping[Field, str]) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field, text in reversed(list(texts.items())):
            name = field.name
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, name, type=FieldType(field), help=text)(command)
        return command

    return decorate


def text_option(name: str, text: str, **settings: Any) -> Decorator:
    """An option that is no configuration field."""
    settings.setdefault("type", TextType(settings.pop("choices", ())))
    return click.option(f"--{name.replace('_', '-')}", name, help=text, **settings)
