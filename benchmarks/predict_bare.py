"""The compiled forward pass of the champion over pixels in memory, images a second.

python -m benchmarks.predict_bare '{"crops": 10000}'
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import tensorflow as tf

from fer_experiments.tracking.models import describe, load

_BATCH = 64


def main() -> None:
    """Prints a number."""
    crops = int(json.loads(sys.argv[1])["crops"])
    model = load(describe("models:/emotion-synthetic@champion"))
    forward = tf.function(lambda pixels: model(pixels, training=False), jit_compile=False)
    rng = np.random.default_rng(0)
    batch = tf.constant(rng.integers(0, 256, (_BATCH, 48, 48, 1)).astype(np.float32))
    forward(batch)
    started = time.perf_counter()
    for _ in range(-(-crops // _BATCH)):
        forward(batch).numpy()
    print(json.dumps(crops / (time.perf_counter() - started)))


if __name__ == "__main__":
    main()
