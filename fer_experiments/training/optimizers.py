"""What moves the weights: an optimizer with its schedule, decay and average, as Keras has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from fer_experiments.models.keras_private import with_layer_multipliers

# Learns scale and shift; decay would pull them to 0 for no gain.
_NOT_DECAYED = ("bias", "gamma", "beta")
# The moving average reaches back over so much of a phase at most.
_EMA_SHARE = 0.1
# schedule=plateau: so many epochs without a better score halve the rate.
_PLATEAU_PATIENCE, _PLATEAU_FACTOR = 3, 0.5


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """A phase as the training loop needs it: its learning rate and epochs, and `FitConfig`."""

    optimizer: str = "adam"  # adam, adamw, sgd (Nesterov momentum 0.9)
    learning_rate: float = 1e-4  # the highest that the schedule reaches
    schedule: str = "constant"  # constant, cosine (to 0), plateau
    warmup_epochs: float = 0.0  # of schedule=cosine: linear from 0
    weight_decay: float = 0.0  # decoupled from the gradient; biases and BatchNorm are spared
    ema: float = 0.0  # momentum of the weights' moving average, which is judged and kept; 0: none
    epochs: int = 10
    patience: int = 0  # stop after so many epochs without a better score; 0: never
    keep_epoch: str = "best"
    # Layer-wise learning-rate decay: factors of the rate by name of layer, 1 where none is given.
    layer_multipliers: Mapping[str, float] = field(default_factory=dict)

    def build(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """The optimizer for a phase whose epochs have so many steps."""
        settings: dict[str, Any] = {
            "learning_rate": self._schedule(steps_per_epoch),
            # AdamW takes a number only.
            "weight_decay": self.weight_decay or (0.0 if self.optimizer == "adamw" else None),
        }
        if self.ema:
            # Keras begins with the weights as they are drawn: a short phase would keep them.
            longest = 1 - 1 / max(1.0, _EMA_SHARE * self.epochs * steps_per_epoch)
            settings |= {"use_ema": True, "ema_momentum": min(self.ema, longest)}
        if self.optimizer == "sgd":
            settings |= {"momentum": 0.9, "nesterov": True}
        kinds = {
            "adam": keras.optimizers.Adam,
            "adamw": keras.optimizers.AdamW,
            "sgd": keras.optimizers.SGD,
        }
        kind = kinds[self.optimizer]
        if self.layer_multipliers:
            kind = with_layer_multipliers(kind, self.layer_multipliers)
        optimizer = kind(**settings)
        if self.weight_decay:
            optimizer.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))
        return optimizer

    def plateau_learning_rate(self, scores: Sequence[float]) -> float | None:
        """As ReduceLROnPlateau: the rate after epochs with these scores; else None."""
        if self.schedule != "plateau":
            return None
        drops = waited = 0
        best = float("-inf")
        for score in scores:
            waited = 0 if score > best else waited + 1
            best = max(best, score)
            if waited == _PLATEAU_PATIENCE:
                drops, waited = drops + 1, 0
        return self.learning_rate * _PLATEAU_FACTOR**drops

    def is_finished(self, scores: Sequence[float]) -> bool:
        """As EarlyStopping, from all scores so far: whether training ends after these epochs."""
        if len(scores) >= self.epochs:
            return True
        if not self.patience or not scores:
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= self.patience

    def _schedule(self, steps_per_epoch: int) -> Any:
        if self.schedule != "cosine":
            return self.learning_rate
        warmup = round(self.warmup_epochs * steps_per_epoch)
        decay = max(1, self.epochs * steps_per_epoch - warmup)
        if not warmup:
            return keras.optimizers.schedules.CosineDecay(self.learning_rate, decay)
        return keras.optimizers.schedules.CosineDecay(
            0.0, decay, warmup_target=self.learning_rate, warmup_steps=warmup
        )
