"""`main`: prepare, then train, fine-tune and evaluate every backbone, compare, register."""

from __future__ import annotations

from collections.abc import Sequence

from fer_experiments.config import Config
from fer_experiments.stages import common, compare, evaluate, finetune, prepare, register, train
from fer_experiments.tracking.runs import open_run


def run(configs: Sequence[Config], *, experiment: str | None = None) -> common.StageResult:
    """The whole job as one parent run with a nested run per stage.

    Args:
        configs: one per backbone and seed, alike in everything else.
        experiment: where to write.
    """
    for config in configs:
        common.for_backbone(config)
    first = configs[0]
    names = list(dict.fromkeys(config.model.backbone for config in configs))
    seeds = list(dict.fromkeys(str(config.train.seed) for config in configs))
    name = f"main {' '.join(names)} {first.recipe} s{','.join(seeds)}"
    with open_run("main", name, experiment=experiment) as writer:
        together = {"backbone": ",".join(names), "seed": ",".join(seeds)}
        writer.params({**first.flat(), **together})
        writer.tags({"recipe": first.recipe, "backbone": ",".join(names)})
        prepared = prepare.run(first)
        writer.params({"dataset_fingerprint": prepared.fingerprint})
        scores: dict[str, float] = {}
        for config in configs:
            trained = train.run(config)
            tuned = finetune.run({}, run_id=trained.run_id)
            judged = evaluate.run(run_id=tuned.run_id)
            whose = config.model.backbone + (f"_s{config.train.seed}" if len(seeds) > 1 else "")
            scores |= {
                f"{whose}/{key.replace('/', '_')}": judged.scores[key]
                for key in ("val/accuracy", "val/macro_f1", "test/accuracy", "test/macro_f1")
                if key in judged.scores
            }
            writer.metrics(scores)
            _free_memory()
        compare.run(fingerprint=prepared.fingerprint)
        register.run(fingerprint=prepared.fingerprint)
        writer.note(
            "\n".join(
                [
                    f"{first.recipe} on {prepared.name}: {', '.join(names)}",
                    "",
                    *(f"- {score}: {value:.3f}" for score, value in scores.items()),
                ]
            )
        )
        common.close(writer, [], following="make ui, then open the link above")
    return common.StageResult(run_id=writer.run_id, scores=scores)


def _free_memory() -> None:
    """Lets go of the backbone's graph before the next one is built."""
    import keras

    keras.utils.clear_session(free_memory=True)
