"""Which files are changed, and which tests judge that: those of the area, likely killers first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Area:
    """Files that the same tests judge."""

    name: str
    files: tuple[str, ...]  # below fer_experiments/
    tests: tuple[str, ...]  # below tests/, files or single tests
    heavy: bool = False  # whether the tests import Keras or MLflow


AREAS = (
    Area(
        name="statistics",
        files=("evaluation/statistics.py", "evaluation/comparison.py"),
        tests=("evaluation/test_statistics.py", "evaluation/test_comparison.py"),
    ),
    Area(
        name="metrics",
        files=("scores.py", "evaluation/metrics.py", "evaluation/calibration.py"),
        tests=(
            "evaluation/test_metrics.py",
            "evaluation/test_calibration.py",
            "evaluation/test_statistics.py",
        ),
    ),
    Area(
        name="splits",
        files=("data/splits.py",),
        tests=("data/test_splits.py", "data/test_prepared.py", "data/test_sources.py"),
    ),
    Area(
        name="audit",
        files=("data/audit.py",),
        tests=("data/test_audit.py", "data/test_prepared.py"),
    ),
    Area(
        name="layout",
        files=("data/layout.py", "data/listing.py"),
        tests=("data/test_layout.py", "data/test_sources.py"),
    ),
    Area(
        name="prepared",
        files=("data/prepared.py", "data/dataset.py"),
        tests=("data/test_prepared.py", "data/test_prepared_keys.py", "data/test_kaggle.py"),
    ),
    Area(
        name="training",
        files=(
            "training/batches.py",
            "training/optimizers.py",
            "training/ema.py",
            "training/loop.py",
        ),
        tests=(
            "training/test_batches.py",
            "training/test_optimizers.py",
            "training/test_ema.py",
            "training/test_loop.py",
            "training/test_checkpoints.py",
        ),
        heavy=True,
    ),
    Area(
        name="journal",
        files=(
            "tracking/events.py",
            "tracking/journal.py",
            "tracking/writer.py",
            "tracking/delivery.py",
        ),
        tests=(
            "tracking/test_events.py",
            "tracking/test_writer.py",
            "tracking/test_journal.py",
            "tracking/test_delivery.py",
            "tracking/test_lifecycle.py",
            "stages/test_job.py",
        ),
        heavy=True,
    ),
    Area(
        name="registry",
        files=("tracking/registry.py", "stages/promote.py"),
        tests=(
            "tracking/test_registry.py",
            "stages/test_register_faults.py",
            "stages/test_register.py",
        ),
        heavy=True,
    ),
    Area(
        name="wiring",
        files=(
            "training/phases.py",
            "stages/train.py",
            "stages/finetune.py",
            "stages/fitting.py",
            "stages/inputs.py",
        ),
        tests=(
            "stages/test_every_field.py",
            "stages/test_fitting.py",
            "stages/test_stages.py",
            "stages/test_job.py",
            "stages/test_cache.py",
            "tracking/test_journal.py",
        ),
        heavy=True,
    ),
    Area(
        name="verdicts",
        files=(
            "stages/evaluate.py",
            "tracking/evaluations.py",
            "stages/compare.py",
            "stages/register.py",
        ),
        tests=(
            "stages/test_numbers.py",
            "stages/test_compare.py",
            "stages/test_register.py",
            "stages/test_job.py",
        ),
        heavy=True,
    ),
    Area(
        name="promotion",
        files=("stages/promotion.py", "stages/overlap.py", "stages/contestants.py", "data/seen.py"),
        tests=(
            "stages/test_promotion.py",
            "stages/test_contestants.py",
            "stages/test_overlap.py",
            "stages/test_register.py",
        ),
        heavy=True,
    ),
)
