"""`register`: the best model on val that meets the promotion rule becomes the champion."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial

from fer_experiments.config import Thresholds
from fer_experiments.errors import ConfigError, RunError
from fer_experiments.reporting.model_card import model_card
from fer_experiments.stages import common, evaluate
from fer_experiments.stages.contestants import contestants, left_out
from fer_experiments.stages.promotion import Decision, Verdict, decide, figures, reason, told
from fer_experiments.stages.selection import Meant, check_fits
from fer_experiments.tracking import names, registry
from fer_experiments.tracking.evaluations import Evaluation, evaluations, newest_of, ranked
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.models import describe
from fer_experiments.tracking.registry import CHALLENGER, CHAMPION, Version
from fer_experiments.tracking.runs import config_of
from fer_experiments.tracking.writer import Writer

DEFAULT_METRIC = "val/macro_f1"
METRICS = tuple(
    f"val/{name}"
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss")
)


def check(metric: str) -> None:
    """Raises ConfigError for what register must not look at, or cannot."""
    if metric not in METRICS:
        raise ConfigError(
            f"Expected metric to be one of {', '.join(METRICS)}: choices are made on val, never "
            f"on test. Received: metric={metric[:80]}"
        )


def run(
    *,
    metric: str = DEFAULT_METRIC,
    thresholds: Thresholds | None = None,
    model_name: str | None = None,
    dataset: str | None = None,
    experiment: str | None = None,
    parent: Writer | None = None,
    fingerprint: str | None = None,
    every_form: bool = False,
) -> common.StageResult:
    """Registers the best evaluated model that meets the promotion rule, and makes it champion.

    Where none passes, the best becomes challenger.

    Args:
        metric: a score on val.
        thresholds: what a candidate must reach to replace a champion.
        model_name: the registered model; None: `emotion-<dataset name>`.
        dataset: see `compare`; None: the data of the newest evaluation.
        experiment: where to write, and the only place to look.
        parent: the run of the job that this is a stage of.
        fingerprint: the very data, if known.
        every_form: all forms of a model; see `contestants`.
    """
    asked = thresholds or Thresholds()
    check(metric)
    if model_name is not None:
        registry.check_name(model_name)
    found = evaluations(dataset=dataset, experiment=experiment, fingerprint=fingerprint).same
    order = ranked(found if every_form else contestants(found), metric)
    if not order:
        raise RunError(
            "Expected an evaluated model that is no test-time variant. Found: "
            f"{', '.join(e.label for e in found)}; evaluate the model itself, or pass --all"
        )
    data = {key: order[0].tags[key] for key in (names.DATASET_NAME, names.FINGERPRINT)}
    name = model_name or registry.registered_name(data[names.DATASET_NAME])
    new = describe(order[0].tags[names.MODEL_URI])
    check_fits(name, class_names=new.class_names, image_size=new.image_size)
    with (
        registry.one_at_a_time(name),
        open_run(
            "register", f"register {name}", experiment=experiment, tags=data, parent=parent
        ) as writer,
    ):
        writer.params({"metric": metric, "model_name": name, **asdict(asked)})
        judged = partial(_champion_judged, best=order[0], experiment=experiment, parent=writer)
        decision = decide(order, registry.reference(name), metric, asked, judged=judged)
        settled = _settle(name, order[0], decision, asked)
        best = order[0] if settled.verdict is None else settled.verdict.candidate
        writer.tags({key: best.tags[key] for key in (names.SOURCE_RUN, names.MODEL_URI)})
        lines = [settled.line, *told(decision, but=settled.verdict), *left_out(found, order)]
        if settled.verdict is not None:
            writer.metrics(figures(decision, settled.verdict))
        writer.note("\n\n".join(lines))
        _close(writer, lines, name, settled.refused)
    return common.result(writer, {metric: best.metrics[metric]}, lines[:1])


def _champion_judged(
    champion: Version, best: Evaluation, experiment: str | None, parent: Writer
) -> Evaluation:
    """The champion's evaluation on the candidate's data; made now if there is none yet."""
    # The whole store: the champion may have been judged in another experiment.
    for known in evaluations(fingerprint=best.fingerprint).same:
        if known.tags["model_uri"] == champion.model_uri:
            return known
    judged = evaluate.run(
        Meant(model=champion.model_uri),
        fingerprint=best.fingerprint,
        data=asdict(config_of(best.run).data),
        experiment=experiment,
        parent=parent,
    )
    return newest_of(judged.run_id)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What was done."""

    line: str  # what and why
    verdict: Verdict | None = None  # on the model that is in the line; None: it is the champion
    refused: int | None = None  # the version that did not become champion


def _settle(name: str, best: Evaluation, decision: Decision, thresholds: Thresholds) -> Settled:
    """Registers, moves the alias, and tells what was decided and why.

    `best` ranks first, and may be the champion itself.
    """
    reference, metric = decision.reference, decision.metric
    held = reference.version
    candidate, verdict, alias = best, None, CHAMPION
    why = f"champion again: {reference.found}"
    stays = held is not None and held.model_uri == best.tags["model_uri"]
    if decision.passed is not None or not stays:
        verdict = decision.passed or decision.verdicts[0]
        candidate, why = verdict.candidate, reason(decision, verdict)
        alias = CHAMPION if decision.passed else CHALLENGER
    score = f"{metric} {candidate.metrics[metric]:.4f} on all images"
    if held is not None and verdict is None and reference.is_champion:
        return Settled(line=f"{best.label} is already champion (version {held.number}, {score})")
    version = registry.version_of(name, candidate.tags["model_uri"])
    holder = registry.alias_holder(name, alias)
    if version is not None and holder is not None and holder.number == version.number:
        line = f"{candidate.label} stays {alias} (version {version.number}, {score}): {why}"
    else:
        if version is None:
            uri = candidate.tags["model_uri"]
            version = registry.add_version(name, uri, tags=_version_tags(candidate, metric))
        registry.describe(version, model_card(candidate, describe(candidate.tags["model_uri"])))
        numbers = {"metric": metric, **asdict(thresholds)}
        if verdict is not None:
            numbers |= figures(decision, verdict)
        registry.set_alias(
            version,
            alias,
            tags={
                "decision": alias,
                "decision_reason": why,
                "decision_numbers": json.dumps(numbers),
            },
        )
        line = (
            f"{candidate.label} is version {version.number} of {name}, now {alias} ({score}): {why}"
        )
    refused = version.number if alias == CHALLENGER else None
    return Settled(line=line, verdict=verdict, refused=refused)


def _version_tags(candidate: Evaluation, metric: str) -> dict[str, str]:
    return {
        **{key: candidate.tags[key] for key in ("backbone", "recipe", "source_run_id")},
        "dataset_fingerprint": candidate.fingerprint,
        "evaluation_run_id": candidate.run.id,
        **{
            score: f"{candidate.metrics[score]:.6f}"
            for score in dict.fromkeys((metric, "val/accuracy", "val/macro_f1"))
        },
    }


def _close(writer: Writer, lines: list[str], name: str, refused: int | None) -> None:
    champion = registry.alias_holder(name, CHAMPION)
    lines = [
        *lines,
        f"models:/{name}@{CHAMPION} is version {champion.number if champion else '–'}",
    ]
    following = f"{common.command('predict', model_name=name)} photo.jpg"
    if refused is not None:
        lines.append(
            f"to make version {refused} champion by hand, whatever the promotion rule says:"
        )
        following = common.following(writer, "promote", version=refused, model_name=name)
    common.close(writer, lines, following=following)
