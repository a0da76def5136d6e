"""The configuration of an experiment: one frozen dataclass per phase, every field checked.

Field names are unique across the phases, so one flat namespace serves the command line, MLflow's
params and the recipes: `Config.flat()` and `Config.replace(learning_rate=3e-4)`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Any

from fer_experiments.errors import ConfigError, quote
from fer_experiments.migrations import CONFIG_VERSION, VERSION_KEY, migrated


def _option(default: Any, text: str, **rule: Any) -> Any:
    """A dataclass field with its help text and its rule (`choices`, or `minimum` and `maximum`)."""
    return field(default=default, metadata={"help": text, **rule})


class _Checked:
    """Checks every field against its type and rule when an instance is made."""

    def __post_init__(self) -> None:
        for spec in fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, spec.name, check_value(spec, getattr(self, spec.name)))


@dataclass(frozen=True, kw_only=True)
class DataConfig(_Checked):
    """Which images, how they are split, and what is kept of them."""

    dataset: str = _option(
        "kaggle", "kaggle, synthetic, a folder of class folders, Kaggle's archive.zip, fer2013.csv"
    )
    split: str = _option(
        "auto",
        "official: PublicTest is val and PrivateTest is test; given: the val and test folders that "
        "are there; holdout: part of train becomes val where none is given; auto: the first that "
        "fits",
        choices=("auto", "official", "given", "holdout"),
    )
    val_fraction: float = _option(
        0.2, "share of train that becomes val where none is given", minimum=0.01, maximum=0.9
    )
    image_size: int = _option(48, "height and width of the images, pixels", minimum=16, maximum=512)
    limit: int | None = _option(
        None, "keep a stratified N images of each split, for a quick look", minimum=1
    )
    data_seed: int = _option(
        0,
        "governs synthetic drawing, limit, holdout and augmented copies",
        minimum=0,
        maximum=2**32 - 1,
    )
    leaks: str = _option(
        "keep",
        "drop: leave out training images that also stand, pixel by pixel, in val or test",
        choices=("keep", "drop"),
    )
    on_bad_image: str = _option(
        "refuse", "what to do with files that are no readable image", choices=("refuse", "skip")
    )
    detector: str = _option(
        "none",
        "cuts the faces out of photos, as predict does: none, mtcnn, or yunet:FILE",
    )
    on_no_face: str = _option(
        "drop",
        "with a detector, what to do with photos in which no face is found; keep: their central "
        "square is taken",
        choices=("drop", "keep"),
    )
    on_empty_class: str = _option(
        "refuse", "what to do with class folders without images", choices=("refuse", "drop")
    )
    class_level: int | None = _option(
        None,
        "which level of folders below the parts are the classes, from 1, where it cannot be told",
        minimum=1,
        maximum=100,
    )
    synthetic_count: int = _option(
        3000, "how many faces dataset=synthetic draws", minimum=21, maximum=1_000_000
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Checked):
    """The network: backbone, where it is cut, how pixels go in, and the head on top."""

    backbone: str = _option("vgg16", "vgg16 or resnet50 (tiny: for tests)")
    weights: str = _option(
        "imagenet", "imagenet, none, a Keras weights file, or a folder with one file per backbone"
    )
    truncate_at: str = _option(
        "none",
        "use the backbone only up to this layer; one per backbone: "
        "vgg16:block3_pool,resnet50:conv4_block6_out",
    )
    input_scaling: str = _option(
        "backbone",
        "backbone: its own preprocess_input; unit: 1/255",
        choices=("backbone", "unit"),
    )
    crop: int | None = _option(
        None,
        "look at a square of this side alone, pixels: the middle of the image to predict, any in "
        "training",
        minimum=1,
        maximum=10_000,
    )
    input_size: int | None = _option(
        None, "up-sample inside the model to this size, pixels", minimum=32, maximum=512
    )
    head: str = _option(
        "flatten",
        "what the head reads: flatten (every position by itself), global_average_pooling (the mean "
        "over all positions)",
        choices=("flatten", "global_average_pooling"),
    )
    head_units: int = _option(
        256, "units of the head's hidden layer (0: none)", minimum=0, maximum=65536
    )
    head_batchnorm: bool = _option(False, "batch normalisation before the hidden layer")
    dropout: float = _option(0.5, "share of hidden units dropped", minimum=0.0, maximum=0.95)
    missing_weights: str = _option(
        "refuse",
        "of the backbone's last layers, if the weights file ends below them; draw: as with "
        "weights=none",
        choices=("refuse", "draw"),
    )
    initializer: str = _option(
        "glorot_uniform",
        "how weights=none fills the backbone (Keras's own default: glorot_uniform)",
        choices=("glorot_uniform", "he_normal"),
    )
    precision: str = _option(
        "float32",
        "mixed_bfloat16 computes in half the bits, for accelerators",
        choices=("float32", "mixed_bfloat16"),
    )


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(_Checked):
    """What is kept of the frozen part's work, so that it is done once."""

    cache: bool = _option(
        True,
        "compute what the frozen layers give once and keep it; off: every epoch anew, "
        "with fresh augmentation",
    )
    augmented_copies: int = _option(
        0,
        "augmented copies of each training image that the feature cache keeps beside the image "
        "itself; an epoch sees one of them all",
        minimum=0,
        maximum=999,
    )
    cache_dtype: str = _option(
        "float32",
        "how features lie on disk; float16 takes half",
        choices=("float32", "float16"),
    )


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig(_Checked):
    """Random changes to training images: cache=off draws them anew every epoch,
    augmented_copies=K keeps K of them.

    Val and test are never changed.
    """

    rotation: float = _option(20.0, "at most this, degrees either way", minimum=0.0, maximum=180.0)
    shift: float = _option(0.2, "at most this, share of height and width", minimum=0.0, maximum=0.9)
    zoom: float = _option(0.0, "at most this, share of the size", minimum=0.0, maximum=0.9)
    flip: bool = _option(True, "mirror left and right, half of the time")
    contrast: float = _option(
        0.0, "stretch grey levels about their mean by at most this share", minimum=0.0, maximum=0.9
    )
    brightness: float = _option(
        0.0, "add at most this share of the full range of grey", minimum=0.0, maximum=0.9
    )
    erasing: float = _option(
        0.0, "share of images of which a random rectangle is erased", minimum=0.0, maximum=1.0
    )
    num_ops: int = _option(
        0,
        "how many of these changes an image gets, drawn for each as in RandAugment (0: all)",
        minimum=0,
        maximum=7,
    )

    @property
    def changes(self) -> bool:
        """Whether it changes images at all."""
        return any(getattr(self, f.name) for f in fields(self) if f.name != "num_ops")


@dataclass(frozen=True, kw_only=True)
class HeadTrainingConfig(_Checked):
    """Training of the head on a frozen backbone."""

    learning_rate: float = _option(1e-4, "of head training", minimum=0.0, maximum=10.0, above=True)
    epochs: int = _option(10, "of head training", minimum=1, maximum=10_000)


@dataclass(frozen=True, kw_only=True)
class FitConfig(_Checked):
    """How head training and fine-tuning train, both in the same way unless told otherwise."""

    optimizer: str = _option("adam", "Keras optimizer", choices=("adam", "adamw", "sgd"))
    schedule: str = _option(
        "constant",
        "learning rate over a phase: constant, cosine (to 0), plateau (halved if val stands still)",
        choices=("constant", "cosine", "plateau"),
    )
    warmup_epochs: float = _option(
        0.0, "of schedule=cosine: epochs in which the rate rises from 0", minimum=0.0, maximum=100.0
    )
    weight_decay: float = _option(
        0.0, "decoupled from the gradient; spares biases and BatchNorm", minimum=0.0, maximum=1.0
    )
    ema: float = _option(
        0.0,
        "momentum of the weights' moving average, which is judged and kept (0: none); it reaches "
        "back over a tenth of a phase at most",
        minimum=0.0,
        maximum=0.99999,
    )
    batch_size: int = _option(32, "images a step", minimum=1, maximum=65536)
    label_smoothing: float = _option(
        0.0, "share of a label that is spread over all classes", minimum=0.0, maximum=0.9
    )
    mixup: float = _option(
        0.0, "blend pairs of images: alpha of the Beta distribution", minimum=0.0, maximum=10.0
    )
    cutmix: float = _option(
        0.0, "paste a rectangle of another image: alpha likewise", minimum=0.0, maximum=10.0
    )
    balance: str = _option(
        "none",
        "rare classes: weights (count more), sampling (come as often), none",
        choices=("none", "weights", "sampling"),
    )
    plain_epochs: int = _option(
        0,
        "last epochs of a phase without augmentation (cache=off), mixup and cutmix",
        minimum=0,
        maximum=10_000,
    )
    patience: int = _option(
        0,
        "stop after so many epochs without a better val score (0: never)",
        minimum=0,
        maximum=10_000,
    )
    keep_epoch: str = _option(
        "best",
        "which epoch's weights are logged: best by val/macro_f1, or last",
        choices=("best", "last"),
    )
    seed: int = _option(
        0, "governs initialisation, order, dropout, augmentation", minimum=0, maximum=2**32 - 1
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(_Checked):
    """Training on, with the last layers of the backbone unfrozen."""

    layer_decay: float = _option(
        1.0,
        "share of the learning rate from one block of the backbone to the one below",
        minimum=0.0,
        maximum=1.0,
        above=True,
    )
    unfreeze_layers: int = _option(
        4, "how many of the backbone's last layers train (0: all)", minimum=0, maximum=10_000
    )
    finetune_learning_rate: float = _option(
        1e-5, "of fine-tuning", minimum=0.0, maximum=10.0, above=True
    )
    finetune_epochs: int = _option(5, "of fine-tuning", minimum=1, maximum=10_000)
    train_batchnorm: bool = _option(
        True, "unfrozen BatchNorm layers train too (else they stay in inference mode)"
    )


@dataclass(frozen=True, kw_only=True)
class Thresholds(_Checked):
    """What a candidate must reach on val to replace a champion; no part of an experiment."""

    min_improvement: float = _option(
        0.005, "by how much the champion must be beaten, at least", minimum=0.0, maximum=1.0
    )
    min_recall: float = _option(
        0.1, "share of each class's val images that must be found", minimum=0.0, maximum=1.0
    )
    max_ece: float = _option(
        0.15, "expected calibration error on val that is still borne", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a result, resolved: a recipe with the user's overrides applied."""

    recipe: str = "baseline"
    # The notebook split off its own val, whatever the data are.
    data: DataConfig = field(default_factory=lambda: DataConfig(split="holdout"))
    model: ModelConfig = field(default_factory=ModelConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    head_training: HeadTrainingConfig = field(default_factory=HeadTrainingConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        changed = self.augmentation.changes or self.model.crop is not None
        if self.features.cache and self.features.augmented_copies and not changed:
            raise ConfigError(
                "Expected an augmentation (rotation, shift, zoom, flip or crop) for "
                f"augmented_copies. Received: augmented_copies={self.features.augmented_copies} "
                "with none; pass one, or augmented_copies=0"
            )
        if self.fit.warmup_epochs and self.fit.schedule != "cosine":
            raise ConfigError(
                "Expected schedule=cosine with warmup_epochs. "
                f"Received: schedule={self.fit.schedule}"
            )

    def flat(self) -> dict[str, Any]:
        """All fields under their own names, `recipe` first: what MLflow gets as params."""
        flat: dict[str, Any] = {"recipe": self.recipe}
        for section in SECTIONS:
            flat.update(asdict(getattr(self, section)))
        return flat

    def replace(self, **changes: Any) -> Config:
        """A copy with fields of any phase changed.

        Raises:
            ConfigError: no phase has such a field, or its value is out of range.
        """
        by_section: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            if name not in FIELDS:
                raise ConfigError(
                    f"Expected a configuration field, one of {', '.join(FIELDS)}. "
                    f"Received: {quote(name)}={quote(value)}"
                )
            by_section.setdefault(FIELDS[name][0], {})[name] = value
        return replace(
            self, **{s: replace(getattr(self, s), **values) for s, values in by_section.items()}
        )

    def stored(self) -> dict[str, Any]:
        """`flat` with the version of its fields, as it is kept with runs and models."""
        return {VERSION_KEY: CONFIG_VERSION, **self.flat()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Config:
        """The inverse of `stored`, also of what older versions stored.

        Fields that are missing have the value that they had before there was such a field.

        Raises:
            ConfigError: it holds a field that nobody knows, or is of a newer version.
        """
        fields_of_today = migrated(stored)
        recipe = str(fields_of_today.pop("recipe", _BEFORE.recipe))
        return replace(_BEFORE, recipe=recipe).replace(**fields_of_today)


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "features": FeatureConfig,
    "augmentation": AugmentationConfig,
    "head_training": HeadTrainingConfig,
    "fit": FitConfig,
    "finetune": FinetuneConfig,
}

# Field name -> its section and dataclass field.
FIELDS: dict[str, tuple[str, Field[Any]]] = {
    spec.name: (section, spec) for section, cls in SECTIONS.items() for spec in fields(cls)
}


def check_value(spec: Field[Any], value: Any) -> Any:
    """`value` converted to the field's type and held against its rule.

    Raises:
        ConfigError: it cannot be converted, or breaks the rule.
    """
    rule = spec.metadata
    kind = str(spec.type)
    if value is None or (isinstance(value, str) and value == "none" and kind.endswith("None")):
        if kind.endswith("None"):
            return None
        raise ConfigError(f"Expected {spec.name} to have a value. Received: {spec.name}={value}")
    try:
        value = _convert(kind.removesuffix(" | None"), value)
    except ValueError:
        raise ConfigError(
            f"Expected {spec.name} to be {_KINDS[kind.removesuffix(' | None')]}. "
            f"Received: {spec.name}={quote(value)}"
        ) from None
    if "choices" in rule and value not in rule["choices"]:
        raise ConfigError(
            f"Expected {spec.name} to be one of {', '.join(rule['choices'])}. "
            f"Received: {spec.name}={quote(value)}"
        )
    low, high = rule.get("minimum"), rule.get("maximum")
    too_low = low is not None and (value <= low if rule.get("above") else value < low)
    if too_low or (high is not None and value > high):
        bound = f"above {low}" if rule.get("above") else f"at least {low}"
        upper = "" if high is None else f" and at most {high}"
        raise ConfigError(
            f"Expected {spec.name} to be {bound}{upper}. Received: {spec.name}={quote(value)}"
        )
    return value


def per_backbone(value: str, backbone: str) -> str:
    """Picks a backbone's part of `vgg16:block3_pool,resnet50:conv4_block6_out`.

    A value without colons holds for every backbone; one that names other backbones only means
    `none` for this one.
    """
    if ":" not in value:
        return value
    parts = dict(part.strip().split(":", 1) for part in value.split(",") if ":" in part)
    return parts.get(backbone, "none")


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text without control characters",
}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def _convert(kind: str, value: Any) -> Any:
    if kind == "bool":
        word = str(value).strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError(word)
        return word in _TRUE
    if kind == "int":
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(value)
        return int(value)
    if kind == "float":
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(number)
        return number
    text = str(value).strip()
    if not text or not is_text(text):
        raise ValueError(text)
    return text


def is_text(value: str) -> bool:
    """Whether it can be stored and shown anywhere: no control characters, no broken Unicode."""
    return not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)


# What an experiment was before a field was there: most of them do nothing at their default.
_BEFORE = Config().replace(train_batchnorm=False)
