"""The same code under TensorFlow, which is shipped, and JAX, which trains on other accelerators."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import process_environment

pytestmark = pytest.mark.slow

# Two steps of 32 images from the weights in the file, which the first process makes.
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.models import classifier
from fer_experiments.recipes import resolve
from fer_experiments.training.batches import Batches, Mixture
from fer_experiments.training.loop import fit
from fer_experiments.training.optimizers import Plan

backbone, path = sys.argv[1], Path(sys.argv[2])
config = resolve("demo", {"backbone": backbone, "dropout": 0.0, "head": "average"})
model = classifier.build(config.model, image_size=48, classes=7, seed=0)
classifier.unfreeze(model, 4, train_batchnorm=True)
if path.exists():
    with np.load(path) as kept:
        model.set_weights([kept[str(i)] for i in range(len(kept.files))])
else:
    np.savez(path, **{str(i): w for i, w in enumerate(model.get_weights())})
images, labels, _ = draw_faces(count=64, seed=0)
batches = [
    Batches([[images[..., None]]], labels, classes=7, batch_size=32, seed=seed, mixture=mixture)
    for seed, mixture in ((0, Mixture(label_smoothing=0.1, cutmix=1.0)), (None, None))
]
plan = Plan(
    optimizer="sgd", learning_rate=1e-2, schedule="cosine", weight_decay=1e-3, ema=0.5, epochs=2
)
records = []
fit(model, *batches, plan, first_epoch=1, log=records.append)
print(json.dumps(records))
"""


def test_two_epochs_of_two_steps_give_the_same_losses(tmp_path: Path) -> None:
    found = {}
    for backend in ("tensorflow", "jax"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "resnet50", str(tmp_path / "weights.npz")],
            capture_output=True,
            text=True,
            check=False,
            env=process_environment(KERAS_BACKEND=backend),
        )
        assert done.returncode == 0, done.stderr
        found[backend] = json.loads(done.stdout.splitlines()[-1])
    for ours, theirs in zip(found["tensorflow"], found["jax"], strict=True):
        # Not val/loss: after two steps BatchNorm's averages are far off, and of the probabilities
        # near 0 that come of it Keras's JAX cuts those below 1e-7, its TensorFlow none.
        for name in ("train/loss", "train/accuracy", "learning_rate"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name
