"""The data that a model was trained on, found again by its fingerprint."""

from __future__ import annotations

from fer_experiments.config import DataConfig
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import SQUASH, PixelRule
from fer_experiments.data.prepared import by_fingerprint
from fer_experiments.errors import DataError
from fer_experiments.faces.preparing import prepare


def dataset_of(config: DataConfig, fingerprint: str) -> PreparedDataset:
    """The dataset with this fingerprint: as prepared earlier, else prepared again from its source.

    Raises:
        DataError: the source no longer gives the same data.
    """
    prepared = by_fingerprint(fingerprint, config) or prepare(config)
    if prepared.fingerprint != fingerprint and not prepared.suits(PixelRule(crop=SQUASH)):
        prepared = prepare(config, PixelRule(crop=SQUASH))  # as older versions did
    if prepared.fingerprint != fingerprint:
        raise DataError(
            f"Expected dataset={config.dataset} to give the data that the model was trained on "
            f"(fingerprint {fingerprint[:16]}). Received: {prepared.fingerprint[:16]}; the source "
            "has changed since"
        )
    return prepared
