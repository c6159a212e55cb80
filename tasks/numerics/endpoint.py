"""What a network says at the images themselves, where the path of Integrated Gradients ends, in one pass.

Probabilities, the target's score, its gradient (the node a = 1 of the path) and the maps of a layer share the network's way
forward, and gradient and maps the way back: together they cost what the gradient alone does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.numerics.cams import CAMS
from tasks.numerics.map_layers import find_layer
from tasks.numerics.network.compiled import SMALL_BATCHES, Compiled, Report
from tasks.numerics.network.scores import Network, Reading

__all__ = ["CompiledEndpoint", "Endpoint"]


@dataclass(frozen=True)
class Endpoint:
    """Of each image and its target, all float32.

    probabilities: (row, class). score: (row,), F_t. gradients: (row, y, x, channel), dF_t/dx.
    maps: (row, cam_y, cam_x) by name, as in CAMS.
    """

    probabilities: NDArray[np.float32]
    score: NDArray[np.float32]
    gradients: NDArray[np.float32]
    maps: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, probabilities: NDArray, score: NDArray, gradients: NDArray, *maps: NDArray) -> Self:
        """maps: in the order of CAMS."""
        return cls(probabilities, score, gradients, dict(zip(CAMS, maps, strict=True)))

    @property
    def arrays(self) -> tuple[NDArray[np.float32], ...]:
        """All of them, as `of` takes them."""
        return (self.probabilities, self.score, self.gradients, *self.maps.values())

    def followed_by(self, other: Self) -> Self:
        """The rows of both."""
        return type(self).of(*(np.concatenate(pair) for pair in zip(self.arrays, other.arrays, strict=True)))


class CompiledEndpoint:
    """The endpoints of a classifier, compiled for two fixed shapes: a batch and an eighth of one.

    Calling with images, float32 (row, y, x, channel), and targets, (row,), returns their Endpoint.
    score, reading: as of `Network`. layer: a label from `find_layer`; without one the maps have no cells, (row, 0, 0).
    batch_size, on_halving: as of `Compiled`.
    """

    def __init__(
        self,
        model: keras.Model,
        score: str,
        layer: str,
        batch_size: int,
        on_halving: Report | None = None,
        reading: Reading = Reading(),  # noqa: B008 (frozen)
    ):
        network = Network(model, score, reading, layer)

        def endpoint(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                answer = network(images)
                score = tf.gather(answer.scores, targets, batch_dims=1)
            if answer.activations is None:
                gradients = tape.gradient(score, images)
                maps = [tf.zeros((tf.shape(images)[0], 0, 0))] * len(CAMS)
            else:
                gradients, slopes = tape.gradient(score, [images, answer.activations])
                maps = [cam(answer.activations, slopes) for cam in CAMS.values()]
            return answer.probabilities, score, gradients, *maps

        small = max(1, batch_size // SMALL_BATCHES)
        self._compiled = Compiled("gradients and maps", endpoint, batch_size, small=small, on_halving=on_halving)
        self._network = network
        self.shape = network.shape

    @property
    def n_traces(self) -> int:
        """How often the function was traced."""
        return self._compiled.n_traces

    def __call__(self, images: NDArray, targets: NDArray) -> Endpoint:
        if not len(images):
            return self._empty()
        return Endpoint.of(*self._compiled(images.astype(np.float32, copy=False), targets.astype(np.int32)))

    def _empty(self) -> Endpoint:
        network = self._network
        map_ = (find_layer(network, network.layer).shape or (0, 0)) if network.layer else (0, 0)
        shapes = ((0, network.n_classes), (0,), (0, *network.shape), *[(0, *map_)] * len(CAMS))
        return Endpoint.of(*(np.empty(shape, np.float32) for shape in shapes))
