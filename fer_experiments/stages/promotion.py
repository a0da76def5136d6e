"""Who may become champion: candidates, best first, held against the model that they have to beat.

Only images of val count that neither of the two was trained on, and each test is corrected for the
number of candidates: the best of many looks better than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_experiments.config import Thresholds
from fer_experiments.errors import DataError
from fer_experiments.evaluation.comparison import shortage
from fer_experiments.evaluation.metrics import report
from fer_experiments.evaluation.statistics import Difference, superiority
from fer_experiments.tracking import registry
from fer_experiments.tracking.evaluations import Evaluation
from fer_experiments.tracking.registry import Reference, Version
from fer_experiments.tracking.writer import metric_name

_MOST_REFUSED = 5  # that are told of


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found of one candidate."""

    candidate: Evaluation
    images: int  # of val, that it was judged on
    refusals: list[str]  # why it may not become champion
    shortfalls: list[str] = field(default_factory=list)  # what the first version may lack
    score: float | None = None  # in the metric, of these images; None: they allow no verdict
    beaten: float | None = None  # the same of the model to beat; None: there is none
    difference: Difference | None = None  # in the metric, candidate less that model


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of the candidates."""

    metric: str
    reference: Reference  # what they had to beat
    looked_at: int  # how many candidates there were
    verdicts: list[Verdict]  # best first, up to the one that passed
    passed: Verdict | None

    @property
    def refused(self) -> list[Verdict]:
        """The verdicts on the others."""
        return [verdict for verdict in self.verdicts if verdict is not self.passed]


def decide(
    order: Sequence[Evaluation],
    reference: Reference,
    metric: str,
    thresholds: Thresholds,
    *,
    judged: Callable[[Version], Evaluation],
) -> Decision:
    """Looks at the candidates until one passes.

    Args:
        order: all models, best first; the one to beat is no candidate.
        reference: the model to beat.
        metric: the score on val that decides.
        thresholds: what is asked.
        judged: the evaluation of the model to beat on the candidates' data.
    """
    held = reference.version
    candidates = [e for e in order if held is None or e.tags["model_uri"] != held.model_uri]
    other = judged(held) if held is not None and candidates else None
    verdicts: list[Verdict] = []
    passed = None
    for candidate in candidates:
        if other is None:
            verdict = _alone(candidate, metric, thresholds)
        else:
            verdict = _against(other, candidate, metric, thresholds, len(candidates))
        verdicts.append(verdict)
        if not verdict.refusals and not verdict.shortfalls:
            passed = verdict
            break
    if passed is None:
        # The first version may fall short of what a later one must reach.
        passed = next((v for v in verdicts if not v.refusals), None)
    return Decision(
        metric=metric,
        reference=reference,
        looked_at=len(candidates),
        verdicts=verdicts,
        passed=passed,
    )


def reason(decision: Decision, verdict: Verdict) -> str:
    """Why this candidate is champion now, or is not."""
    held, d = decision.reference.version, verdict.difference
    images = f"{verdict.images:,} val images that {_nobody(decision)} trained on"
    if verdict.refusals:
        text = "; ".join(verdict.refusals)
        if verdict.score is not None:
            text += f" (on the {images}{_corrected(decision)})"
    elif held is None or d is None:
        best = f", the best of {decision.looked_at} candidates" if decision.looked_at > 1 else ""
        first = "the first version" if decision.reference.by_fer else decision.reference.found
        text = f"{first}{best}, judged on {images}"
        if verdict.shortfalls:
            text += f", although {' and '.join(verdict.shortfalls)}"
    else:
        text = (
            f"better than version {held.number} ({verdict.beaten:.4f}) by {d.value:+.4f}, 95 % "
            f"interval {d.low:+.4f} to {d.high:+.4f} on the {images}{_corrected(decision)}"
        )
    if held is not None and not decision.reference.is_champion:
        text += f"; {decision.reference.found}"
    return text


def told(decision: Decision, *, but: Verdict | None) -> list[str]:
    """Which candidates were refused and why, best first, without the one that is told elsewhere."""
    refused = [verdict for verdict in decision.refused if verdict is not but]
    lines = []
    for verdict in refused[:_MOST_REFUSED]:
        score = "" if verdict.score is None else f" ({decision.metric} {verdict.score:.4f})"
        why = "; ".join([*verdict.refusals, *verdict.shortfalls])
        lines.append(f"refused: {verdict.candidate.label}{score}: {why}")
    if len(refused) > _MOST_REFUSED:
        lines.append(
            f"refused: {len(refused) - _MOST_REFUSED} more, further down in {decision.metric}"
        )
    return lines


def figures(decision: Decision, verdict: Verdict) -> dict[str, float]:
    """The numbers behind a verdict, as metrics."""
    plain = decision.metric.replace("/", "_")
    numbers = {
        f"candidate/{plain}": verdict.candidate.metrics[decision.metric],
        f"candidate/clean/{plain}": verdict.score,
        f"champion/clean/{plain}": verdict.beaten,
        "images_judged": float(verdict.images),
        "candidates": float(decision.looked_at),
    }
    if (d := verdict.difference) is not None:
        numbers |= {
            "difference/value": d.value,
            "difference/low": d.low,
            "difference/high": d.high,
            "difference/p": d.p,
        }
    return {name: value for name, value in numbers.items() if value is not None}


def _alone(candidate: Evaluation, metric: str, thresholds: Thresholds) -> Verdict:
    """A candidate where there is no model to beat."""
    clean = candidate.predictions("val").clean
    if not clean.any():
        every = "it was trained on every val image: nothing shows what it has learnt"
        return Verdict(candidate=candidate, images=0, refusals=[_unknown(candidate) or every])
    scores = _scores(candidate, clean)
    return Verdict(
        candidate=candidate,
        images=int(clean.sum()),
        refusals=[],
        shortfalls=registry.shortfalls(scores, thresholds),
        score=scores[metric],
    )


def _against(
    other: Evaluation,
    candidate: Evaluation,
    metric: str,
    thresholds: Thresholds,
    candidates: int,
) -> Verdict:
    """A candidate and the model to beat, on the images that neither of them was trained on."""
    own, its = candidate.predictions("val"), other.predictions("val")
    if own.ids.tolist() != its.ids.tolist():
        raise DataError(
            "Expected candidate and champion to be judged on the same val images in one order. "
            f"Received: evaluations {candidate.run.id} and {other.run.id}, "
            "whose images differ; evaluate both again"
        )
    clean = own.clean & its.clean
    why = _unknown(candidate) or _unknown(other)
    if not why and (short := shortage(own.labels, clean, own.class_names)):
        why = f"of the val images that neither it nor the champion was trained on, {short}"
    if why:
        return Verdict(candidate=candidate, images=int(clean.sum()), refusals=[why])
    scores, beaten = _scores(candidate, clean), _scores(other, clean)
    difference = superiority(
        own.labels[clean],
        own.probabilities[clean],
        its.probabilities[clean],
        classes=len(own.class_names),
        metric=metric.removeprefix("val/"),
        candidates=candidates,
    )
    refusals = registry.promotion_refusals(
        metric, candidate=scores, champion=beaten, difference=difference, thresholds=thresholds
    )
    return Verdict(
        candidate=candidate,
        images=int(clean.sum()),
        refusals=refusals,
        score=scores[metric],
        beaten=beaten[metric],
        difference=difference,
    )


def _unknown(of: Evaluation) -> str:
    if not of.overlap_unknown:
        return ""
    return f"unknown which val images {of.label} was trained on: {of.overlap_unknown}"


def _scores(of: Evaluation, images: np.ndarray) -> dict[str, float]:
    """The scores on these images of val, (N,) bool, under the names that evaluations give them."""
    said = of.predictions("val")
    judged = report(said.probabilities[images], said.labels[images], said.class_names, split="val")
    return {f"val/{metric_name(name)}": value for name, value in judged.scores().items()}


def _nobody(decision: Decision) -> str:
    return "it was not" if decision.reference.version is None else "neither was"


def _corrected(decision: Decision) -> str:
    several = decision.looked_at > 1 and decision.reference.version is not None
    return f"; corrected for {decision.looked_at} candidates" if several else ""
