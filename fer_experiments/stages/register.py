"""`register`: the best model on val becomes a version; the gate decides whether it is champion."""

from __future__ import annotations

from dataclasses import asdict

from fer_experiments.errors import ConfigError
from fer_experiments.stages import common, evaluate
from fer_experiments.stages.compare import Evaluation, evaluations
from fer_experiments.tracking import registry
from fer_experiments.tracking.registry import CHALLENGER, CHAMPION, Version
from fer_experiments.tracking.runs import config_of, open_run
from fer_experiments.tracking.writer import Writer

DEFAULT_METRIC = "val/macro_f1"
DEFAULT_MIN_IMPROVEMENT = 0.005
METRICS = tuple(
    f"val/{name}"
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss")
)


def check(metric: str, min_improvement: float) -> None:
    """Raises ConfigError for what register must not look at, or cannot."""
    if metric not in METRICS:
        raise ConfigError(
            f"Expected metric to be one of {', '.join(METRICS)}: choices are made on val, never "
            f"on test. Received: metric={metric[:80]}"
        )
    if not 0 < min_improvement < 1:
        raise ConfigError(
            "Expected min_improvement to be above 0 and below 1. "
            f"Received: min_improvement={min_improvement:g}"
        )


def run(
    *,
    metric: str = DEFAULT_METRIC,
    min_improvement: float = DEFAULT_MIN_IMPROVEMENT,
    model_name: str | None = None,
    dataset: str | None = None,
    experiment: str | None = None,
    fingerprint: str | None = None,
) -> common.StageResult:
    """Registers the best evaluated model and moves the alias that it has earned.

    Args:
        metric: a score on val.
        min_improvement: by how much the champion must be beaten.
        model_name: the registered model; None: `emotion-<dataset name>`.
        dataset: see `compare`; None: the data of the newest evaluation.
        experiment: where to write, and the only place to look.
        fingerprint: the very data, if it is known.
    """
    check(metric, min_improvement)
    same, _ = evaluations(dataset=dataset, experiment=experiment, fingerprint=fingerprint)
    best = same[0]
    for candidate in same[1:]:
        if registry.is_better(metric, candidate.metrics[metric], best.metrics[metric]):
            best = candidate
    name = model_name or registry.registered_name(best.tags["dataset_name"])
    with open_run(
        "register",
        f"register {name}",
        experiment=experiment,
        tags={
            key: best.tags[key]
            for key in ("dataset_name", "dataset_fingerprint", "source_run_id", "model_uri")
        },
    ) as writer:
        writer.params({"metric": metric, "min_improvement": min_improvement, "model_name": name})
        champion = registry.alias_holder(name, CHAMPION)
        champion_scores = _scores_of(champion, best, experiment)
        lines = _settle(name, best, champion, champion_scores, metric, min_improvement)
        writer.metrics(
            {f"candidate/{metric.replace('/', '_')}": best.metrics[metric]}
            | (
                {f"champion/{metric.replace('/', '_')}": champion_scores[metric]}
                if champion_scores
                else {}
            )
        )
        writer.note("\n\n".join(lines))
        _close(writer, lines, name)
    return common.StageResult(run_id=writer.run_id, scores={metric: best.metrics[metric]})


def _scores_of(
    champion: Version | None, best: Evaluation, experiment: str | None
) -> dict[str, float] | None:
    """The champion's scores on the candidate's val; judged now if they are not known yet."""
    if champion is None:
        return None
    # The whole store: the champion may have been judged in another experiment.
    same, _ = evaluations(fingerprint=best.fingerprint)
    for known in same:
        if known.tags["model_uri"] == champion.model_uri:
            return known.metrics
    judged = evaluate.run(
        model=champion.model_uri,
        fingerprint=best.fingerprint,
        data=asdict(config_of(best.run).data),
        experiment=experiment,
    )
    return judged.scores


def _settle(
    name: str,
    best: Evaluation,
    champion: Version | None,
    champion_scores: dict[str, float] | None,
    metric: str,
    min_improvement: float,
) -> list[str]:
    """Registers, moves the alias, and tells in lines what was decided and why."""
    score = f"{metric} {best.metrics[metric]:.4f}"
    if champion is not None and champion.model_uri == best.tags["model_uri"]:
        return [f"{best.label} is already champion (version {champion.number}, {score})"]
    if champion is None or champion_scores is None:
        alias, reason = CHAMPION, "the first version"
    elif refusal := registry.gate(
        metric,
        candidate=best.metrics,
        champion=champion_scores,
        min_improvement=min_improvement,
    ):
        alias, reason = CHALLENGER, refusal
    else:
        alias = CHAMPION
        reason = f"better than version {champion.number} ({champion_scores[metric]:.4f})"
    if shortfalls := registry.shortfalls(best.metrics):
        reason += f", although {' and '.join(shortfalls)}"

    version = registry.version_of(name, best.tags["model_uri"])
    holder = registry.alias_holder(name, alias)
    if version is not None and holder is not None and holder.number == version.number:
        return [f"{best.label} stays {alias} (version {version.number}, {score}): {reason}"]
    if version is None:
        version = registry.add_version(
            name,
            best.tags["model_uri"],
            description=_model_card(best, metric),
            tags={
                "backbone": best.tags["backbone"],
                "recipe": best.tags["recipe"],
                "dataset_fingerprint": best.fingerprint,
                "source_run_id": best.tags["source_run_id"],
                "evaluation_run_id": best.run.info.run_id,
                metric: f"{best.metrics[metric]:.6f}",
            },
        )
    registry.set_alias(version, alias, tags={"decision": alias, "decision_reason": reason})
    return [f"{best.label} is version {version.number} of {name}, now {alias} ({score}): {reason}"]


def _model_card(best: Evaluation, metric: str) -> str:
    m = best.metrics
    params = best.run.data.params
    low, high = (m[f"val/interval/accuracy_{end}"] for end in ("low", "high"))
    return "\n".join(
        [
            f"{best.label}: {params['backbone']} with weights `{params['weights']}`, "
            f"cut `{params['cut']}`, trained on {best.tags['dataset_name']}.",
            "",
            f"val: {metric.removeprefix('val/')} {m[metric]:.4f}, accuracy "
            f"{m['val/accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}, "
            f"{m['val/images']:.0f} images).",
            "",
            "Input: float32 pixels 0–255, grey, one face filling the image. Not for judging "
            "people: the labels are guesses of how a face looks, not of what a person feels.",
        ]
    )


def _close(writer: Writer, lines: list[str], name: str) -> None:
    champion = registry.alias_holder(name, CHAMPION)
    common.close(
        writer,
        [*lines, f"models:/{name}@{CHAMPION} is version {champion.number if champion else '–'}"],
        following="fer predict IMAGE…",
    )
