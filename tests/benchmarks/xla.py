"""What XLA makes of a gradient: seconds to compile and milliseconds a gradient, with and without."""

import tasks.process.start_tensorflow  # noqa: F401  isort: skip  # before what imports TensorFlow

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import typer

from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.network.scores import score_model

NETWORKS: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "the notebook's CNN": (lambda: build_cnn((32, 32, 3), 10), 256),
    "MobileNetV2": (lambda: keras.applications.MobileNetV2(weights=None), 8),
}
ROUNDS = 5


def main() -> None:
    """Prints a line a network and way."""
    for name, (build, batch_size) in NETWORKS.items():
        model = score_model(build(), "probability")
        points = tf.constant(np.random.default_rng(0).random((batch_size, *model.inputs[0].shape[1:]), np.float32))
        for xla in (False, True):
            gradients = tf.function(target_gradients(model), jit_compile=xla, autograph=False)
            seconds = []
            for _ in range(1 + ROUNDS):
                began = time.perf_counter()
                gradients(points, tf.zeros(batch_size, tf.int32))[0].numpy()
                seconds.append(time.perf_counter() - began)
            ms = 1e3 * min(seconds[1:]) / batch_size
            print(
                f"{name}, {batch_size} images, {'XLA' if xla else 'plain'}: {ms:.3g} ms a gradient, first {seconds[0]:.1f} s"
            )


if __name__ == "__main__":
    typer.run(main)
