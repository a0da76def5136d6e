"""Named presets: each gives every hyper-parameter a value; the command line overrides single ones.

A preset's docstring holds the command that runs it and what it gave. Those runs took the images of
each epoch in the order that is now the next one's: another draw, of the same kind
(docs/results/accuracy.md, "What is older").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fer_experiments.config import Config
from fer_experiments.errors import ConfigError, shown

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

    A frozen random VGG16 shrinks activations layer by layer until a head sees nothing; a low cut,
    He initialisation and batch normalisation before the hidden layer keep the signal.

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

    On 28,709 training images, ImageNet weights of the lower layers, seed 0, 2 cores with AVX-512,
    TensorFlow, float32; val is PublicTest, and there was no PrivateTest to test on:

    VGG16     5 min  60.9 % (95 % interval 59.2 to 62.4), macro-F1 0.525 (0.503 to 0.548)
              MLflow runs fc6b0317e9e54ecfa6ab846c81f1027d and 34d8cd1605d64eb8b51a22c5e5a77a71
    ResNet50  5 min  62.0 % (60.4 to 63.6), macro-F1 0.605 (0.581 to 0.626)
              MLflow runs a4f6704d40584925aca5ac26a9859590 and fe05f508c8ae49818601652a0d1f5f9a
    both, each also on mirror images
              64.2 % (62.6 to 65.8), macro-F1 0.601 (0.576 to 0.625)
              MLflow runs 98d8c1f9550e45e08604b12b7cee064e and e261ce3ed6374565a6c91e939de829d3

    The epoch is picked on val. On one core, AVX2 alone, another training on the core beside it:
    VGG16 17 min, 60.3 %, ResNet50 9 min, 62.7 %; MLflow runs a980352b6210472a80d997e4aeadfe84 and
    ec4c2e463c1643c2b77d99f6da0ee2c7. More epochs give more (docs/results/accuracy.md).
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
    for its second view, which is mirrored half of the time (4.6 GB in the feature cache).

        fer main --recipe tuned --dataset archive.zip --weights weights/
        fer ensemble --run-ids VGG16_RUN,RESNET50_RUN --tta flip

    Data as for quick. Seed 0, 2 cores without AVX-512 and bfloat16, TensorFlow, both trainings at
    once for part of the time:

    VGG16     2 h 2 min  66.6 % (65.1 to 68.1), macro-F1 0.631 (0.606 to 0.655); mirror images
              too: 66.5 %
              MLflow runs c8a445e1b8a6422f8635cf4d062ffee7 and 1aac407e00a742428d7cc1be91070bce
    ResNet50  1 h 5 min  65.9 % (64.4 to 67.5), macro-F1 0.642 (0.619 to 0.663); mirror images
              too: 66.0 %
              MLflow runs 1531a53bcc104a5e98f3fe8f5d15637f and 9d604b68279040d0b993e6f9db5d66c7
    both, each also on mirror images
              68.5 % (66.9 to 70.0), macro-F1 0.651 (0.626 to 0.673)
              MLflow runs e0f940e1fe6c46e5b3cbb5378056fefe and fdfedc08ae1642059c80c09b03403024
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
    anew. In the runs below the last epoch of each phase did not mix images, and logits were
    bfloat16: both are mended, and the recipe has not been run since.

        KERAS_BACKEND=jax fer main --recipe best --dataset archive.zip --weights weights/
        fer ensemble --run-ids VGG16_RUN,RESNET50_RUN --tta flip

    Data as for quick. On one H100 (JAX 0.11.2), seed 0, 8 minutes each while other trainings ran
    on the card:

    VGG16     70.1 % (68.6 to 71.6), macro-F1 0.688 (0.668 to 0.707); mirror images too: 71.1 %
              MLflow runs 17085719dce142fb9806a2ccbb126a65 and 730d2e96ef1a4f399ccc0cab335e8bfc
    ResNet50  69.7 % (68.2 to 71.2), macro-F1 0.674 (0.652 to 0.693); mirror images too: 70.2 %
              MLflow runs f3632ea556d34a43a1862fac339054c1 and 7508dcd95dfe498195b028fa2b6f30e7
    both, each also on mirror images
              72.1 % (70.6 to 73.5), macro-F1 0.707 (0.688 to 0.727)
              MLflow runs 9ba298c653c24557b23e923a3eedc117 and a4a15c6b71764136a651db94db209819
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
            f"Expected recipe to be one of {', '.join(RECIPES)}. Received: recipe={shown(name)}"
        )
    given = dict(overrides or {})
    backbone = given.get("backbone", Config().model.backbone)
    return replace(RECIPES[name](backbone), recipe=name).replace(**given)
