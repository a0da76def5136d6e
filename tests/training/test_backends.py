"""The same code under TensorFlow, which is shipped, and JAX, which trains on other accelerators."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import mlflow
import pytest

from ..conftest import QUICK, ROOT, process_environment

pytestmark = pytest.mark.slow

# Two steps of 32 images from the weights in the file, which the first process makes.
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.models import classifier
from fer_experiments.recipes import resolve
from fer_experiments.training.batches import Batches, BatchAugmentation
from fer_experiments.training.loop import fit
from fer_experiments.training.optimizers import LoopConfig

backbone, path = sys.argv[1], Path(sys.argv[2])
config = resolve("demo", {"backbone": backbone, "dropout": 0.0, "head": "global_average_pooling"})
model = classifier.build(config.model, image_size=48, classes=7, seed=0)
classifier.unfreeze(model, 4, train_batchnorm=True)
if path.exists():
    with np.load(path) as kept:
        model.set_weights([kept[str(i)] for i in range(len(kept.files))])
else:
    np.savez(path, **{str(i): w for i, w in enumerate(model.get_weights())})
images, labels, _ = draw_faces(count=64, seed=0)
batches = [
    Batches([[images[..., None]]], labels, classes=7, batch_size=32, seed=seed, augmentation=own)
    for seed, own in ((0, BatchAugmentation(label_smoothing=0.1, cutmix=1.0)), (None, None))
]
plan = LoopConfig(
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
        for name in ("train/loss", "val/loss", "val/accuracy", "val/macro_f1", "learning_rate"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name


def test_the_job_runs_on_jax_where_tensorflow_is_not_installed(tmp_path: Path) -> None:
    """As on machines whose GPU is driven by JAX alone."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        if "tensorflow" not in installed.name and installed.suffix != ".pth":
            (packages / installed.name).symlink_to(installed)
    (packages / "fer_experiments").unlink(missing_ok=True)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    environment = process_environment(
        PYTHONPATH=f"{packages}:{ROOT}",
        KERAS_BACKEND="jax",
        FER_DATA_HOME=str(tmp_path / "data"),
        MLFLOW_TRACKING_URI=store,
    )
    python = Path(sys.base_prefix, "bin", "python3")
    for arguments in (
        ["train", "--backbone", "tiny", *QUICK[:-2]],
        ["finetune", "--unfreeze-layers", "0", "--finetune-epochs", "1", "--cache", "off",
         "--rotation", "10", "--erasing", "0.2", "--num-ops", "1"],
        ["evaluate", "--tta", "flip"],
    ):  # fmt: skip
        done = subprocess.run(
            [python, "-m", "fer_experiments", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
    runs = mlflow.MlflowClient(store).search_runs(["1"], filter_string="tags.stage = 'evaluate'")
    assert 0 < runs[0].data.metrics["val/tta/accuracy"] < 1
    needs = [path.read_text() for path in tmp_path.glob("mlruns/1/models/*/*/requirements.txt")]
    assert len(needs) == 2
    assert all("jax==" in text and "tensorflow" not in text for text in needs)
