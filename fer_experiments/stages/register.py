"""`register`: the best model on val becomes a version; the gate decides whether it is champion."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from fer_experiments.config import Thresholds
from fer_experiments.errors import ConfigError, DataError
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.evaluation.statistics import compare as compare_paired
from fer_experiments.stages import common, evaluate
from fer_experiments.stages.evaluations import Evaluation, evaluations, newest_of
from fer_experiments.stages.selection import check_fits
from fer_experiments.tracking import registry
from fer_experiments.tracking.models import describe
from fer_experiments.tracking.opening import open_run
from fer_experiments.tracking.registry import CHALLENGER, CHAMPION, Reference, Version
from fer_experiments.tracking.runs import config_of
from fer_experiments.tracking.writer import Writer

DEFAULT_METRIC = "val/macro_f1"
METRICS = tuple(
    f"val/{name}"
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss")
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of the candidate, and the numbers that it rests on."""

    candidate: Evaluation
    champion: Evaluation | None  # as judged on the candidate's val; None: there was none
    difference: Difference | None  # in the metric, candidate less champion
    clean: Difference | None  # the same of the images that neither was trained on
    refusals: list[str]  # why it did not replace the champion
    shortfalls: list[str]  # what it lacks by itself


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
    fingerprint: str | None = None,
) -> common.StageResult:
    """Registers the best evaluated model and moves the alias that it has earned.

    Args:
        metric: a score on val.
        thresholds: what a candidate must reach to replace a champion.
        model_name: the registered model; None: `emotion-<dataset name>`.
        dataset: see `compare`; None: the data of the newest evaluation.
        experiment: where to write, and the only place to look.
        fingerprint: the very data, if it is known.
    """
    asked = thresholds or Thresholds()
    check(metric)
    same = evaluations(dataset=dataset, experiment=experiment, fingerprint=fingerprint).same
    best = same[0]
    for candidate in same[1:]:
        if registry.is_better(metric, candidate.metrics[metric], best.metrics[metric]):
            best = candidate
    name = model_name or registry.registered_name(best.tags["dataset_name"])
    newcomer = describe(best.tags["model_uri"])
    check_fits(name, class_names=newcomer.class_names, image_size=newcomer.image_size)
    with (
        registry.one_at_a_time(name),
        open_run(
            "register",
            f"register {name}",
            experiment=experiment,
            tags={
                key: best.tags[key]
                for key in ("dataset_name", "dataset_fingerprint", "source_run_id", "model_uri")
            },
        ) as writer,
    ):
        writer.params({"metric": metric, "model_name": name, **asdict(asked)})
        reference = registry.reference(name)
        decision = _decide(best, reference.version, metric, asked, experiment)
        lines = _settle(name, reference, decision, metric, asked)
        writer.metrics(_figures(decision, metric))
        writer.note("\n\n".join(lines))
        _close(writer, lines, name, refused=bool(decision.refusals))
    return common.StageResult(run_id=writer.run_id, scores={metric: best.metrics[metric]})


def _decide(
    best: Evaluation,
    champion: Version | None,
    metric: str,
    thresholds: Thresholds,
    experiment: str | None,
) -> Decision:
    shortfalls = registry.shortfalls(best.metrics, thresholds)
    if champion is None or champion.model_uri == best.tags["model_uri"]:
        return Decision(
            candidate=best,
            champion=None,
            difference=None,
            clean=None,
            refusals=[],
            shortfalls=shortfalls,
        )
    judged = _champion_judged(champion, best, experiment)
    difference, clean = _differences(best, judged, metric)
    refusals = registry.gate(
        metric,
        candidate=best.metrics,
        champion=judged.metrics,
        difference=difference,
        clean=clean,
        thresholds=thresholds,
    )
    return Decision(
        candidate=best,
        champion=judged,
        difference=difference,
        clean=clean,
        refusals=refusals,
        shortfalls=shortfalls,
    )


def _champion_judged(champion: Version, best: Evaluation, experiment: str | None) -> Evaluation:
    """The champion's evaluation on the candidate's data; made now if there is none yet."""
    # The whole store: the champion may have been judged in another experiment.
    for known in evaluations(fingerprint=best.fingerprint).same:
        if known.tags["model_uri"] == champion.model_uri:
            return known
    judged = evaluate.run(
        model=champion.model_uri,
        fingerprint=best.fingerprint,
        data=asdict(config_of(best.run).data),
        experiment=experiment,
    )
    return newest_of(judged.run_id)


def _differences(
    best: Evaluation, champion: Evaluation, metric: str
) -> tuple[Difference, Difference | None]:
    """Of all val images, and of those that neither was trained on, if there are any."""
    own, other = best.predictions("val"), champion.predictions("val")
    if own.ids.tolist() != other.ids.tolist():
        raise DataError(
            "Expected candidate and champion to be judged on the same val images in one order. "
            f"Received: evaluations {best.run.info.run_id} and {champion.run.info.run_id}, whose "
            "images differ; evaluate both again"
        )

    def of(images: np.ndarray) -> Difference:
        compared = compare_paired(
            own.labels[images],
            own.probabilities[images],
            other.probabilities[images],
            classes=len(own.class_names),
        )
        return compared.differences[metric.removeprefix("val/")]

    clean = own.clean & other.clean
    return of(np.full(len(clean), True)), of(clean) if clean.any() else None


def _settle(
    name: str,
    reference: Reference,
    decision: Decision,
    metric: str,
    thresholds: Thresholds,
) -> list[str]:
    """Registers, moves the alias, and tells in lines what was decided and why."""
    best = decision.candidate
    score = f"{metric} {best.metrics[metric]:.4f}"
    champion = reference.version
    same = champion is not None and champion.model_uri == best.tags["model_uri"]
    if champion is not None and same and reference.is_champion:
        return [f"{best.label} is already champion (version {champion.number}, {score})"]
    alias = CHALLENGER if decision.refusals else CHAMPION
    if same:
        reason = f"champion again: {reference.found}"
    elif champion is None or decision.champion is None or decision.difference is None:
        reason = "the first version" if reference.by_fer else reference.found
        if decision.shortfalls:
            reason += f", although {' and '.join(decision.shortfalls)}"
    elif decision.refusals:
        reason = "; ".join(decision.refusals)
    else:
        d = decision.difference
        reason = (
            f"better than version {champion.number} "
            f"({decision.champion.metrics[metric]:.4f}) by {d.value:+.4f}, 95 % interval "
            f"{d.low:+.4f} to {d.high:+.4f} on the same images"
        )
    if champion is not None and not same and not reference.is_champion:
        reason += f" ({reference.found})"
    version = registry.version_of(name, best.tags["model_uri"])
    holder = registry.alias_holder(name, alias)
    if version is not None and holder is not None and holder.number == version.number:
        return [f"{best.label} stays {alias} (version {version.number}, {score}): {reason}"]
    if version is None:
        version = registry.add_version(
            name,
            best.tags["model_uri"],
            tags={
                **{key: best.tags[key] for key in ("backbone", "recipe", "source_run_id")},
                "dataset_fingerprint": best.fingerprint,
                "evaluation_run_id": best.run.info.run_id,
                **{
                    score: f"{best.metrics[score]:.6f}"
                    for score in dict.fromkeys((metric, "val/accuracy", "val/macro_f1"))
                },
            },
        )
    registry.describe(version, _model_card(best))
    registry.set_alias(
        version,
        alias,
        tags={
            "decision": alias,
            "decision_reason": reason,
            "decision_numbers": json.dumps(
                {"metric": metric, **asdict(thresholds), **_figures(decision, metric)}
            ),
        },
    )
    return [f"{best.label} is version {version.number} of {name}, now {alias} ({score}): {reason}"]


def _figures(decision: Decision, metric: str) -> dict[str, float]:
    """The numbers behind the decision, as metrics."""
    plain = metric.replace("/", "_")
    figures = {f"candidate/{plain}": decision.candidate.metrics[metric]}
    if decision.champion is not None and decision.difference is not None:
        figures[f"champion/{plain}"] = decision.champion.metrics[metric]
        d = decision.difference
        figures |= {
            "difference/value": d.value,
            "difference/low": d.low,
            "difference/high": d.high,
            "difference/p": d.p,
        }
    if decision.clean is not None:
        figures["difference/clean"] = decision.clean.value
    return figures


def _model_card(best: Evaluation) -> str:
    params = best.run.data.params
    rows = [
        f"{best.label}: {params['backbone']} with weights `{params['weights']}`, "
        f"cut `{params['cut']}`, recipe `{params['recipe']}`, trained on "
        f"{best.tags['dataset_name']} (dataset `{params['dataset']}`, "
        f"fingerprint `{best.fingerprint[:16]}`).",
        "",
        "| | images | accuracy (95 % interval) | macro-F1 (95 % interval) | ECE |",
        "|---|---:|---:|---:|---:|",
    ]
    twins = [split for split in ("val", "test") if best.metrics.get(f"{split}/images_with_twin")]
    for split in ("val", "val/clean", "test", "test/clean"):
        if split.endswith("/clean") and split.removesuffix("/clean") not in twins:
            continue
        if f"{split}/accuracy" in best.metrics:
            rows.append(f"| {split} | {' | '.join(best.scores_in_words(split))} |")
    remarks = [best.val_remark]
    if twins:
        remarks.append("clean: images that the model was not trained on.")
    rows += [
        "",
        " ".join(remarks).strip(),
        "",
        "**Input**: float32 pixels 0–255, grey, one face filling the image.",
        "",
        "**Limits**: the labels are what people guessed; on FER-2013 people themselves name about "
        "65 % as labelled (Goodfellow et al. 2013). Faces unlike the training images are judged "
        "worse.",
        "",
        "**Intended use**: comparing image backbones, teaching, research. Not for judging people: "
        "a face does not tell what a person feels.",
    ]
    return "\n".join(rows)


def _close(writer: Writer, lines: list[str], name: str, *, refused: bool) -> None:
    champion = registry.alias_holder(name, CHAMPION)
    challenger = registry.alias_holder(name, CHALLENGER)
    lines = [
        *lines,
        f"models:/{name}@{CHAMPION} is version {champion.number if champion else '–'}",
    ]
    following = f"{common.command('predict', model_name=name)} photo.jpg"
    if refused and challenger is not None:
        lines.append("to make the challenger champion by hand, past the gate:")
        following = common.following(writer, "promote", version=challenger.number, model_name=name)
    common.close(writer, lines, following=following)
