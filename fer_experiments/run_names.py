"""What runs and models are called, in MLflow, in charts and in the terminal."""

from __future__ import annotations

from fer_experiments.config import Config


def run_name(config: Config, stage: str) -> str:
    """A name that tells runs apart in a chart: `vgg16 finetune baseline s0`."""
    return model_label(config.model.backbone, stage, config.recipe, config.fit.seed)


def model_label(backbone: str, stage: str, recipe: str, seed: object) -> str:
    """What a model is called: `vgg16 finetune baseline s0`."""
    return " ".join(filter(None, (backbone, stage, recipe, f"s{seed}")))


def data_run_name(stage: str, dataset: str) -> str:
    """`prepare archive.zip`: of a run that works on data alone."""
    return f"{stage} {dataset.rstrip('/').rsplit('/', 1)[-1]}"
