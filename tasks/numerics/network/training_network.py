"""A network of `build_cnn` in training: the numbers that Keras computes, to rounding, by operations that take less time.

Keras's batch normalisation in training is a dozen passes over whole maps; TensorFlow's fused one is two. The gradient at the
input of a Dense layer multiplies by the weights transposed, which takes a processor longer than the same product the other way
round. What that saves tests/benchmarks/training.py prints. Layers, weights, loss and optimizer are the model's own, and the
model is what is kept.
"""

import keras
import numpy as np
import tensorflow as tf

__all__ = ["TrainingNetwork", "steps_a_call"]

PIXELS_A_CALL = 2**18  # half a second on two cores, and then progress can be reported


class TrainingNetwork(keras.Model):
    """A compiled model of `build_cnn` to call `fit` on in its place. batch_size: images in a step."""

    def __init__(self, model: keras.Model, batch_size: int):
        super().__init__()
        self.network = model
        shape = model.input_shape[1:]
        steps = steps_a_call(batch_size, shape)
        self.compile(model.optimizer, model.loss, metrics=["accuracy"], steps_per_execution=steps)
        # Keras traces a step a second time if the first time has made variables of the optimizer or of the metrics.
        model.optimizer.build(model.trainable_variables)
        self.test_on_batch(np.zeros((1, *shape), np.float32), np.zeros(1, np.int64))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Probabilities, (row, class). images: float32 (row, y, x, channel)."""
        if not training:
            return self.network(images, training=False)
        values = images
        for layer in self.network.layers[1:]:
            match layer:
                case keras.layers.BatchNormalization():
                    values = _normalised(layer, values)
                case keras.layers.Dense():
                    values = layer.activation(_product(values, layer.kernel.value) + layer.bias)
                case _:
                    values = layer(values, training=True)
        return values


def steps_a_call(batch_size: int, shape: tuple[int, int, int]) -> int:
    """How many steps make one compiled call: as many as have PIXELS_A_CALL pixels, at least one. shape: (y, x, channel)."""
    y, x, _ = shape
    return max(1, PIXELS_A_CALL // (batch_size * y * x))


def _normalised(layer: keras.layers.BatchNormalization, maps: tf.Tensor) -> tf.Tensor:
    """The maps, (row, y, x, filter), by their own mean and variance, which also move those of the layer."""
    normalised, mean, unbiased = tf.compat.v1.nn.fused_batch_norm(
        maps, layer.gamma.value, layer.beta.value, epsilon=layer.epsilon
    )
    n = tf.cast(tf.reduce_prod(tf.shape(maps)[:-1]), tf.float32)
    variance = unbiased * (n - 1) / n  # Keras moves by the variance of the batch, not by its estimate of all images'
    for moving, of_batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + of_batch * (1 - layer.momentum))
    return normalised


@tf.custom_gradient
def _product(rows: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, object]:
    """rows, (row, unit before), times kernel, (unit before, unit)."""

    def gradient(slopes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.transpose(tf.matmul(kernel, slopes, transpose_b=True)), tf.matmul(rows, slopes, transpose_a=True)

    return tf.matmul(rows, kernel), gradient
