"""`promote`, `rollback`, `registry`: move the aliases by hand, and see where they are."""

from __future__ import annotations

from fer_experiments import console
from fer_experiments.errors import RunError
from fer_experiments.stages import common
from fer_experiments.tracking import registry
from fer_experiments.tracking.opening import open_run
from fer_experiments.tracking.registry import CHAMPION, Version


def promote(
    number: int, *, model_name: str | None = None, experiment: str | None = None
) -> common.StageResult:
    """Makes a version champion, past the gate, and leaves a run and tags that say so.

    Raises:
        RunError: no such registered model or version.
    """
    name = _name(model_name)
    with registry.one_at_a_time(name):
        version = registry.version(name, number)
        before = registry.alias_holder(name, CHAMPION)
        if before is not None and before.number == number:
            console.say(f"version {number} of {name} is champion already")
            return common.StageResult(run_id="", scores={})
        with open_run("promote", f"promote {name} {number}", experiment=experiment) as writer:
            reason = f"by hand, in place of {_called(before)}"
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
            common.close(writer, [line], following="fer registry, or fer rollback to undo it")
    return common.StageResult(run_id=writer.run_id, scores={})


def rollback(*, model_name: str | None = None, experiment: str | None = None) -> common.StageResult:
    """Makes the champion before this one champion again.

    Raises:
        RunError: no such registered model, or it had no other champion before.
    """
    name = _name(model_name)
    registry.versions(name)  # says so if there is no such registered model
    with (
        registry.one_at_a_time(name),
        open_run("rollback", f"rollback {name}", experiment=experiment) as writer,
    ):
        left, back = registry.step_back(
            name,
            tags={
                "decision": CHAMPION,
                "decision_reason": "rolled back to, by hand",
                "decision_run_id": writer.run_id,
            },
        )
        line = f"version {back.number} of {name} is champion again, in place of {_called(left)}"
        writer.params({"model_name": name, "version": back.number})
        writer.note(line)
        common.close(writer, [line], following="fer registry")
    return common.StageResult(run_id=writer.run_id, scores={})


def show(*, model_name: str | None = None) -> None:
    """Prints versions, aliases, scores and the reasons for what they are."""
    names = [model_name] if model_name else registry.registered_models()
    if not names:
        console.say("no registered models; fer register makes the first version")
    for name in names:
        versions = registry.versions(name)
        console.say(name)
        console.table(
            ["version", "alias", "val accuracy", "val macro-F1", "backbone", "made (UTC)", "why"],
            [
                [
                    str(v.number),
                    ", ".join(v.aliases) or "–",
                    *(_score(v, f"val/{score}") for score in ("accuracy", "macro_f1")),
                    v.tags.get("backbone", "–"),
                    v.created,
                    v.tags.get("decision_reason", "–")[:90],
                ]
                for v in versions
            ],
        )
        numbers = ", ".join(map(str, registry.history(name)))
        console.say(f"champions, oldest first: {numbers or 'none'}")


def _name(model_name: str | None) -> str:
    """The registered model that is meant; without a name, the only one."""
    if model_name is not None:
        return model_name
    names = registry.registered_models()
    if len(names) != 1:
        raise RunError(
            "Expected model_name where there is not exactly one registered model. "
            f"Received: none, there are {', '.join(names) or 'none'}"
        )
    return names[0]


def _called(version: Version | None) -> str:
    return "none" if version is None else f"version {version.number}"


def _score(version: Version, name: str) -> str:
    value = version.tags.get(name)
    return "–" if value is None else f"{float(value):.4f}"
