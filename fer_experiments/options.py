"""Command-line options made from configuration fields: a value has one rule everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any

import click
import cloup
from click.shell_completion import CompletionItem

from fer_experiments import console
from fer_experiments.config import FIELDS, check_value, is_text
from fer_experiments.errors import ConfigError, quote
from fer_experiments.recipes import DEFAULT_RECIPE, resolve
from fer_experiments.secrets import holds_secret

# What most people set most days; it comes first in every help.
_DAILY = (
    "backbone", "dataset", "weights", "epochs", "learning_rate", "finetune_epochs",
    "finetune_learning_rate", "unfreeze_layers", "batch_size", "seed",
)  # fmt: skip
DAILY = cloup.OptionGroup("Most used")
TRACKING = cloup.OptionGroup("Tracking")
_GROUPS = {
    "data": cloup.OptionGroup("Data"),
    "model": cloup.OptionGroup("Model"),
    "head_training": DAILY,
    "fit": cloup.OptionGroup("Training"),
    "finetune": cloup.OptionGroup("Fine-tuning"),
    "features": cloup.OptionGroup("Feature cache"),
    "augmentation": cloup.OptionGroup("Augmentation"),
}


class Command(cloup.Command):
    """A command with its examples, and `--json` for scripts."""

    def __init__(
        self,
        *args: Any,
        params: list[click.Parameter] | None = None,
        examples: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        if examples:
            lines = "\n".join(f"  {example}" for example in examples)
            settings["epilog"] = f"\b\nExamples:\n{lines}"
        params = list(params or ())
        if all(param.name != "as_json" for param in params):
            params.append(_json_option())
        # A group of cloup's keeps the options of one command.
        own: dict[str, cloup.OptionGroup] = {}
        for param in params:
            group = getattr(param, "group", None)
            if group is not None:
                param.group = own.setdefault(  # type: ignore[attr-defined]
                    group.title, cloup.OptionGroup(group.title)
                )
        super().__init__(*args, params=params, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs it; with `--json` what it gives back is all that stands on standard output."""
        if not ctx.meta.get(_JSON):
            return super().invoke(ctx)
        with console.aside():
            found = super().invoke(ctx)
        if found is not None:
            console.result(_plain(found))
        return None


_JSON = "fer_experiments.json"


def _json_option() -> click.Option:
    def ask(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.meta[_JSON] = value

    return click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,
        callback=ask,
        help="Print the result as one line of JSON, everything else on standard error.",
    )


def _plain(found: Any) -> Any:
    """What a stage gives back, as JSON has it."""
    if is_dataclass(found) and not isinstance(found, type):
        values = {f.name: getattr(found, f.name) for f in fields(found)}
        return {name: _plain(v) for name, v in values.items() if not name.startswith("_")}
    if isinstance(found, Mapping):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_plain(value) for value in found]
    return found


class FieldOption(cloup.Option):
    """An option of a configuration field, whose help tells what the default recipe has."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """What `--help` shows."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        name = str(self.name)
        values = {
            backbone: _shown(resolve(DEFAULT_RECIPE, {"backbone": backbone}).flat()[name])
            for backbone in ("vgg16", "resnet50")
        }
        default = values["vgg16"]
        if len(set(values.values())) > 1 and name != "backbone":
            default = ", ".join(f"{backbone} {value}" for backbone, value in values.items())
        return record[0], f"{record[1]}  [{DEFAULT_RECIPE}: {default}]"


def _shown(value: Any) -> str:
    """A value as it can be typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


class FieldType(click.ParamType[Any]):
    """A configuration field: converted and checked by its own rule."""

    def __init__(self, field: Field[Any]) -> None:
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


class TextType(click.ParamType[Any]):
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
                f"control character. Received: {len(text)} characters, {quote(text)}"
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
            f"the run, for all who may see it. Received: {name}={quote(text)}"
        )


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def field_options(names: Sequence[str], completions: Mapping[str, Any] | None = None) -> Decorator:
    """An option for each of these fields of the configuration, whose recipe has the defaults.

    Args:
        names: of the fields.
        completions: by field, what the Tab key offers, where it is not the field's choices.
    """

    wanted = set(names)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        order = [*(name for name in _DAILY if name in wanted), *names]
        for name in reversed(list(dict.fromkeys(order))):
            section, field = FIELDS[name]
            command = cloup.option(
                _flag(name),
                name,
                cls=FieldOption,
                type=FieldType(field),
                help=field.metadata["help"],
                shell_complete=(completions or {}).get(name),
                group=DAILY if name in _DAILY else _GROUPS[section],
            )(command)
        return command

    return decorate


def class_options(cls: type) -> Decorator:
    """An option for each field of a dataclass that no recipe sets."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(fields(cls)):
            text = f"{field.metadata['help']} (default {field.default})"
            command = cloup.option(_flag(field.name), field.name, type=FieldType(field), help=text)(
                command
            )
        return command

    return decorate


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def text_option(name: str, text: str, **settings: Any) -> Decorator:
    """An option that is no configuration field."""
    rule = {key: settings.pop(key) for key in ("choices", "longest") if key in settings}
    settings.setdefault("type", TextType(**rule))
    return cloup.option(_flag(name), name, help=text, **settings)
