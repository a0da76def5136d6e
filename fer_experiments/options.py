"""Command-line options made from configuration fields: a value has one rule everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

import click
from click.shell_completion import CompletionItem

from fer_experiments.config import FIELDS, check_value, is_text
from fer_experiments.errors import ConfigError, shown
from fer_experiments.secrets import holds_secret


class FieldType(click.ParamType):
    """A configuration field: converted and checked by its own rule."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.choices = [str(c) for c in self.field.metadata.get("choices", ())]
        self.name = str(self.field.type).removesuffix(" | None")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What `--help` shows behind the option."""
        return "|".join(self.choices) or self.name.upper()

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The field's value."""
        _refuse_secret(self.field.name, str(value))
        return check_value(self.field, value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """The choices, if the field has any."""
        return [CompletionItem(c) for c in self.choices if c.startswith(incomplete)]


class TextType(click.ParamType):
    """Text without secrets that can be stored and shown anywhere."""

    name = "text"

    def __init__(self, choices: Iterable[str] = (), longest: int = 4096) -> None:
        self.choices = tuple(choices)
        self.longest = longest  # characters

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The text."""
        name = param.name if param else "value"
        text = str(value)
        if not text.strip():
            raise ConfigError(f"Expected {name} to have a value. Received: {name}=")
        _refuse_secret(name, text)
        if len(text) > self.longest or not is_text(text):
            raise ConfigError(
                f"Expected {name} to be text of at most {self.longest} characters, none of them a "
                f"control character. Received: {len(text)} characters, {shown(text)}"
            )
        return value

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """The choices, if there are any."""
        return [CompletionItem(c) for c in self.choices if c.startswith(incomplete)]


def _refuse_secret(name: str, text: str) -> None:
    """What is asked for is written down with the run; a secret must not even come close.

    Raises:
        ConfigError: it holds one.
    """
    if holds_secret(text):
        raise ConfigError(
            f"Expected {name} without user name, password, token or key: it would be stored with "
            f"the run, for all who may see it. Received: {name}={shown(text)}"
        )


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def field_options(names: Iterable[str], completions: Mapping[str, Any] | None = None) -> Decorator:
    """An option for each of these fields of the configuration, whose recipe has the defaults.

    Args:
        names: of the fields.
        completions: by field, what the Tab key offers, where it is not the field's choices.
    """
    texts = {FIELDS[name][1]: FIELDS[name][1].metadata["help"] for name in names}
    return _options(texts, completions)


def class_options(cls: type) -> Decorator:
    """An option for each field of a dataclass that no recipe sets."""
    return _options({f: f"{f.metadata['help']} (default {f.default})" for f in fields(cls)})


def _options(texts: Mapping[Field, str], completions: Mapping[str, Any] | None = None) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field, text in reversed(list(texts.items())):
            name = field.name
            flag = f"--{name.replace('_', '-')}"
            complete = (completions or {}).get(name)
            command = click.option(
                flag, name, type=FieldType(field), help=text, shell_complete=complete
            )(command)
        return command

    return decorate


def text_option(name: str, text: str, **settings: Any) -> Decorator:
    """An option that is no configuration field."""
    rule = {key: settings.pop(key) for key in ("choices", "longest") if key in settings}
    settings.setdefault("type", TextType(**rule))
    return click.option(f"--{name.replace('_', '-')}", name, help=text, **settings)
