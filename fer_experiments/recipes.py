"""Named presets: each gives every hyper-parameter a value; the command line overrides single ones.

A preset's docstring holds the command that runs it; what it gave stands in
docs/results/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fer_experiments.config import Config
from fer_experiments.errors import ConfigError, quote

DEFAULT_RECIPE = "quick"


def notebook(backbone: str) -> Config:
    """The notebook's recipe, its four faults mended, its 1/255 input scaling kept.

    Head on the frozen backbone (Flatten, Dense 256, Dropout 0.5), Adam 1e-4 for 10 epochs; then
    the last 4 layers at 1e-5 for 5 epochs; of ResNet50 one of them is BatchNorm, which trains too.
    Labels stay with their predictions, every epoch sees every image, val is not augmented. The last
    epoch's weights are kept, as the notebook does, and nothing is cached: every epoch draws its
    augmentation anew.

        fer main --recipe notebook
    """
    return baseline(backbone).replace(input_scaling="unit", keep_epoch="last", cache=False)


def baseline(backbone: str) -> Config:
    """What all fields are by themselves: the notebook's recipe on cached features.

    Each backbone has its own `preprocess_input`.

    It differs in nothing else but the epoch that is kept, the best one: of ResNet50 the last
    BatchNorm trains here, too.

    What the frozen layers give is computed once, from the images as they are (no
    augmented copies); `--augmented-copies 3` adds three, `--cache off` augments anew every epoch.

        fer main --recipe baseline

    With `--cache off`, head training of ResNet50 up to `conv4_block6_out` gave 48.7 % (47.0 to
    50.3) on PublicTest, split=holdout, seed 0; docs/results/accuracy.md says with which weights.
    """
    return Config()


def demo(backbone: str) -> Config:
    """Small and quick, for the embedded synthetic faces and randomly initialised backbones.

    A frozen random VGG16 shrinks activations layer by layer until a head sees nothing;
    truncation low in it, He initialisation and batch normalisation before the hidden layer keep the
    signal.

        fer main --recipe demo

    Gave 77.0 % (95 % interval 71.9 to 81.4) with VGG16 and 65.0 % (59.4 to 70.2) with ResNet50 on
    the 300 drawn test faces, of which the most frequent class has 25 %; seed 0, 2 cores with
    AVX-512. Processors and their kernels round differently; docs/tutorial.md has what others gave.
    """
    return Config().replace(
        dataset="synthetic",
        split="auto",
        weights="none",
        initializer="he_normal",
        truncate_at="vgg16:block2_pool,resnet50:conv2_block3_out,tiny:none",
        head_batchnorm=True,
        learning_rate=1e-3,
        epochs=6,
        rotation=0.0,
        shift=0.0,
        augmented_copies=1,  # mirrored images: without them ResNet50 names no face disgusted
        train_batchnorm=False,
        finetune_learning_rate=1e-4,
        finetune_epochs=2,
    )


def quick(backbone: str) -> Config:
    """The default: a good network in minutes on two cores.

    A head on cached features (2 epochs), then the topmost layers with it: block3's last two
    convolutions of VGG16 (3 epochs), conv4 of ResNet50 (4). What lies below stays as ImageNet left
    it and is computed once (2.5 GB in the feature cache), so there is no augmentation.

        fer main --recipe quick --dataset archive.zip --weights weights/
        fer ensemble --run-ids VGG16_RUN,RESNET50_RUN --tta flip
    """
    return _fitted().replace(
        unfreeze_layers={"vgg16": 3, "resnet50": 62}.get(backbone, 4),
        # VGG16 from what block3_conv1 gives, 12 × 12 × 256: half the bits keep it at 2.4 GB.
        cache_dtype={"vgg16": "float16"}.get(backbone, "float32"),
        finetune_epochs={"vgg16": 3}.get(backbone, 4),
    )


def tuned(backbone: str) -> Config:
    """quick with a block more, mirrored images and more epochs: an hour or two on two slow cores.

    What lies below the two topmost blocks is computed once for every training image and once more
    for its augmented copy, which is mirrored half of the time (4.6 GB in the feature cache).

        fer main --recipe tuned --dataset archive.zip --weights weights/
        fer ensemble --run-ids VGG16_RUN,RESNET50_RUN --tta flip
    """
    return quick(backbone).replace(
        unfreeze_layers={"vgg16": 7, "resnet50": 104}.get(backbone, 7),
        augmented_copies=1,
        rotation=0.0,
        shift=0.0,
        zoom=0.0,
        contrast=0.0,
        erasing=0.0,
        cache_dtype="float16",
        finetune_epochs={"resnet50": 6}.get(backbone, 11),
    )


def best(backbone: str) -> Config:
    """The best that was found: the whole network at 96 pixels, augmented, with MixUp; for a GPU.

    VGG16 is used up to its end. Where the weights file ends below its last layers, those are drawn
    anew.

        KERAS_BACKEND=jax fer main --recipe best --dataset archive.zip --weights weights/
        fer ensemble --run-ids VGG16_RUN,RESNET50_RUN --tta flip
    """
    config = _fitted().replace(
        precision="mixed_bfloat16",
        input_size=96,
        mixup=0.2,
        batch_size=256,
        warmup_epochs=2,
        epochs=3,
        unfreeze_layers=0,
        finetune_learning_rate=7e-4,
        finetune_epochs={"vgg16": 50}.get(backbone, 40),
    )
    if backbone == "vgg16":
        return config.replace(truncate_at="none", missing_weights="draw", initializer="he_normal")
    return config


def _fitted() -> Config:
    """What quick, tuned and best share; docs/results/accuracy.md says what each part is worth."""
    return Config().replace(
        split="auto",
        truncate_at="vgg16:block3_pool,resnet50:conv4_block6_out",
        head="global_average_pooling",
        head_batchnorm=True,
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=1,
        ema=0.999,
        batch_size=128,
        label_smoothing=0.1,
        learning_rate=1e-3,
        epochs=2,
        rotation=10.0,
        shift=0.1,
        zoom=0.1,
        contrast=0.2,
        erasing=0.25,
        finetune_learning_rate=5e-4,
    )


# By name: what gives a backbone its configuration.
RECIPES: dict[str, Callable[[str], Config]] = {
    preset.__name__: preset for preset in (notebook, baseline, quick, tuned, best, demo)
}


def resolve(recipe: str | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The recipe's configuration with the given fields replaced.

    Raises:
        ConfigError: unknown recipe or field, or a value out of range.
    """
    name = recipe or DEFAULT_RECIPE
    if name not in RECIPES:
        raise ConfigError(
            f"Expected recipe to be one of {', '.join(RECIPES)}. Received: recipe={quote(name)}"
        )
    given = dict(overrides or {})
    backbone = given.get("backbone", Config().model.backbone)
    return replace(RECIPES[name](backbone), recipe=name).replace(**given)
