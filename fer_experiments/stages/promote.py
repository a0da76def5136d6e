"""`promote`, `rollback`, `registry`: move the aliases by hand, and see where they are."""

from __future__ import annotations

from fer_experiments import console
from fer_experiments.errors import one_line
from fer_experiments.stages import common
from fer_experiments.tracking import registry, store
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.models import describe
from fer_experiments.tracking.registry import CHAMPION, Version


def promote(
    number: int, *, model_name: str | None = None, experiment: str | None = None
) -> common.StageResult:
    """Makes a version champion whatever the promotion rule says; a run and tags say so.

    Raises:
        RunError: no such registered model or version, or a version of another tool's making.
    """
    name = registry.chosen_name(model_name)
    with registry.one_at_a_time(name):
        version = registry.version(name, number)
        describe(version.model_uri)
        before = registry.alias_holder(name, CHAMPION)
        if before is not None and before.number == number:
            console.say(f"version {number} of {name} is champion already")
            return common.StageResult(run_id="", scores={})
        with open_run("promote", f"promote {name} {number}", experiment=experiment) as writer:
            reason = f"by hand, in place of {_called(before.number if before else None)}"
            registry.set_alias(
                version,
                CHAMPION,
                tags={
                    "decision": CHAMPION,
                    "decision_reason": reason,
                    "decision_run_id": writer.run_id,
                },
            )
            line = f"version {number} of {name} is now champion, {reason}"
            writer.params({"model_name": name, "version": number})
            writer.note(line)
            undo = common.following(writer, "rollback", model_name=name)
            common.close(
                writer,
                [line, f"to undo it: {undo}"],
                following=common.command("registry", model_name=name),
            )
    return common.result(writer, {})


def rollback(*, model_name: str | None = None, experiment: str | None = None) -> common.StageResult:
    """Makes the champion before this one champion again.

    Raises:
        RunError: no such registered model, or no earlier champion of it exists.
    """
    name = registry.chosen_name(model_name)
    with (
        registry.one_at_a_time(name),
        open_run("rollback", f"rollback {name}", experiment=experiment) as writer,
    ):
        last, back = registry.step_back(
            name,
            tags={
                "decision": CHAMPION,
                "decision_reason": "rolled back to, by hand",
                "decision_run_id": writer.run_id,
            },
        )
        line = f"version {back.number} of {name} is champion again"
        if last != back.number:
            line += f", in place of {_called(last)}"
        writer.params({"model_name": name, "version": back.number})
        writer.note(line)
        common.close(writer, [line], following=common.command("registry", model_name=name))
    return common.result(writer, {})


def show(*, model_name: str | None = None) -> list[Version]:
    """Prints versions, aliases, scores and the reasons for what they are; gives the versions."""
    found: list[Version] = []
    names = [registry.chosen_name(model_name)] if model_name else registry.registered_models()
    if not names:
        console.say(
            f"no registered models in {store.looked_in()}; fer register makes the first version"
        )
    for name in names:
        versions = registry.versions(name)
        found += versions
        console.say(name)
        console.table(
            ["version", "alias", "val accuracy", "val macro-F1", "backbone", "made (UTC)"],
            [
                [
                    str(v.number),
                    ", ".join(v.aliases) or "–",
                    *(_score(v, f"val/{score}") for score in ("accuracy", "macro_f1")),
                    v.tags.get("backbone", "–"),
                    v.created,
                ]
                for v in versions
            ],
        )
        reference = registry.reference(name)
        if not (reference.is_champion and reference.by_fer):
            console.say(reference.found)
        for version in versions:
            edited = CHAMPION in version.aliases and not reference.by_fer
            if version.aliases and not edited:
                held = " and ".join(version.aliases)
                why = f": {one_line(version.reason)}" if version.reason is not None else ""
                console.say(f"version {version.number} is {held}{why}")
        there = {v.number for v in versions}
        numbers = [str(number) for number in registry.history(name) if number in there]
        console.say(f"champions, oldest first: {', '.join(numbers) or 'none'}")
    return found


def _called(number: int | None) -> str:
    return "none" if number is None else f"version {number}"


def _score(version: Version, name: str) -> str:
    value = version.tags.get(name, "–")
    try:
        return f"{float(value):.4f}"
    except ValueError:  # tags can be edited in MLflow
        return value
