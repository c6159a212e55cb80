"""What a network says at the images themselves, where the path of Integrated Gradients ends, in one pass.

Probabilities, the target's score, its gradient (the node a = 1 of the path) and the Grad-CAM map share the network's way
forward, and gradient and map the way back: together they cost what the gradient alone does.
"""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.numerics.compiled import SMALL_BATCHES, Compiled, Tell
from tasks.numerics.grad_cam import grad_cam, layer_output
from tasks.numerics.scores import score_model

__all__ = ["CompiledEndpoint", "Endpoint"]


@dataclass(frozen=True)
class Endpoint:
    """Of each image and its target, all float32.

    probabilities: (row, class). score: (row,), F_t. gradients: (row, y, x, channel), dF_t/dx. maps: (row, cam_y, cam_x).
    """

    probabilities: NDArray[np.float32]
    score: NDArray[np.float32]
    gradients: NDArray[np.float32]
    maps: NDArray[np.float32]

    def followed_by(self, other: "Endpoint") -> "Endpoint":
        """The rows of both."""
        return Endpoint(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))


class CompiledEndpoint:
    """The endpoints of a classifier, compiled for two fixed shapes: a batch and an eighth of one.

    Calling with images, float32 (row, y, x, channel), and targets, (row,), returns their Endpoint.
    score: as of `score_model`. layer: a name from `convolution_layers`. batch_size, tell: as of `Compiled`.
    """

    def __init__(self, model: keras.Model, score: str, layer: str, batch_size: int, tell: Tell | None = None):
        explained = score_model(model, score)
        probabilities = score_model(model, "probability").outputs[0]
        activations = layer_output(explained, layer)
        network = keras.Model(explained.inputs[0], [activations, explained.outputs[0], probabilities])

        def endpoint(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                activations, scores, probabilities = network(images, training=False)
                score = tf.gather(scores, targets, batch_dims=1)
            gradients, slopes = tape.gradient(score, [images, activations])
            return probabilities, score, gradients, grad_cam(activations, slopes)

        small = max(1, batch_size // SMALL_BATCHES)
        self._compiled = Compiled("gradients and maps", endpoint, batch_size, small=small, tell=tell)
        image, map_, n_classes = explained.inputs[0].shape[1:], activations.shape[1:3], probabilities.shape[1]
        shapes = ((0, n_classes), (0,), (0, *image), (0, *map_))
        self._empty = Endpoint(*(np.empty(shape, np.float32) for shape in shapes))

    @property
    def n_traces(self) -> int:
        """How often the function was traced."""
        return self._compiled.n_traces

    def __call__(self, images: NDArray, targets: NDArray) -> Endpoint:
        if not len(images):
            return self._empty
        return Endpoint(*self._compiled(images.astype(np.float32, copy=False), targets.astype(np.int32)))
