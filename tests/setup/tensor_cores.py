"""A stand-in for a GPU with TF32, of which no test has one: a list of devices, and a layer that rounds as tensor cores do.

What it shows: where TF32 is allowed and where not, and what becomes of its error. What it does not: how a GPU computes.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf

DROPPED_BITS = 13  # of float32's 23 explicit ones, TF32 has 10
H200 = {"device_name": "NVIDIA H200", "compute_capability": (9, 0)}


def pretend_gpus(patch: pytest.MonkeyPatch, *details: dict[str, Any]) -> None:
    """Has TensorFlow say that it sees these GPUs; it goes on computing on the CPU."""
    gpus = [SimpleNamespace(name=f"/physical_device:GPU:{k}", details=each) for k, each in enumerate(details)]
    patch.setattr(tf.config, "get_visible_devices", lambda _: gpus)
    patch.setattr(tf.config.experimental, "get_device_details", lambda gpu: gpu.details)


@keras.saving.register_keras_serializable("tests")
class TensorCores(keras.layers.Conv2D):
    """A convolution whose factors are rounded to 11 significant bits where TF32 is allowed when it is traced."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if not tf.config.experimental.tensor_float_32_execution_enabled():
            return super().call(inputs)
        product = self.convolution_op(rounded(inputs), rounded(tf.convert_to_tensor(self.kernel)))
        return self.activation(product + self.bias)


def rounded(values: tf.Tensor) -> tf.Tensor:
    """To the nearest of 11 significant bits; its gradient is that of the values."""
    half = 1 << (DROPPED_BITS - 1)
    bits = tf.bitwise.bitwise_and(tf.bitcast(values, tf.int32) + half, -1 << DROPPED_BITS)
    return values + tf.stop_gradient(tf.bitcast(bits, tf.float32) - values)


def save_network(path: Path) -> Path:
    """A classifier of ten classes of 32x32x3 images, of such convolutions, never trained; its maps are rarely empty."""
    keras.utils.set_random_seed(3)
    images = keras.Input((32, 32, 3), name="picture")
    x = TensorCores(8, 3, strides=2, activation="relu", name="edges")(images)
    x = TensorCores(12, 3, strides=2, activation="relu", name="strokes")(x)
    x = keras.layers.Flatten(name="flat")(x)
    keras.Model(images, keras.layers.Dense(10, activation="softmax", name="verdict")(x)).save(path)
    return path
