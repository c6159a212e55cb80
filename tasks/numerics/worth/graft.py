"""A graft: to one class's logit is added beta times the mean of a mask's pixels, and so its exact attribution is known.

Integrated Gradients of a sum are the sum of both, and of a linear function w . x they are w * (x - x'), whatever the nodes. So
the engine that explains the night, on the night's own model, must add beta / n * (x - x') at the mask's n values, and nothing
elsewhere.
"""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.numerics.engine import Engine
from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.network.scores import CompiledScores
from tasks.numerics.quadrature import Fixed, Tolerances

__all__ = ["graft_error", "grafted"]

N_NODES = 32


class _Graft(keras.layers.Layer):
    """From images and scores to scores, with the graft on one of them."""

    def __init__(self, weights: NDArray[np.float32], target: int):
        super().__init__()
        self._weights, self._target = tf.constant(weights), target

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, scores = inputs
        added = tf.reduce_sum(images * self._weights, axis=(1, 2, 3))
        return scores + added[:, None] * tf.one_hot([self._target], scores.shape[1])


def grafted(model: keras.Model, weights: NDArray[np.float32], target: int) -> keras.Model:
    """The score model plus sum(weights * image) on one class's score. weights: (y, x, channel)."""
    return keras.Model(model.inputs[0], _Graft(weights, target)([model.inputs[0], model.outputs[0]]))


def graft_error(
    model: keras.Model,
    images: NDArray[np.float32],
    baselines: NDArray[np.float32],
    target: int,
    mask: NDArray[np.bool_],
    beta: float,
    *,
    batch_size: int,
    memory_bytes: float,
) -> float:
    """How far the engine is from the exact answer, at most, over the largest attribution that it gives with the graft.

    model: a score model. images, baselines: (row, y, x, channel). mask: (y, x).
    """
    weights = np.zeros(images.shape[1:], np.float32)
    weights[mask] = beta / (mask.sum() * images.shape[-1])
    one, other = (
        _attributions(network, images, baselines, target, batch_size, memory_bytes)
        for network in (model, grafted(model, weights, target))
    )
    exact = weights * (images.astype(np.float64) - baselines)
    return float(np.abs(other.astype(np.float64) - one - exact).max() / np.abs(other).max())


def _attributions(
    model: keras.Model,
    images: NDArray[np.float32],
    baselines: NDArray[np.float32],
    target: int,
    batch_size: int,
    memory_bytes: float,
) -> NDArray[np.float32]:
    engine = Engine(
        target_gradients(model),
        images.shape[1:],
        rule=Fixed(n_steps=N_NODES),
        tolerances=Tolerances(),
        batch_size=batch_size,
        memory_bytes=memory_bytes,
    )
    scores, targets = CompiledScores(model, batch_size), np.full(len(images), target, np.int32)
    at_images, at_baselines = (scores(each)[:, target] for each in (images, baselines))
    # A fixed rule has its nodes within the path, and so needs no gradient at its end.
    return engine.integrate(images, baselines, targets, at_images, at_baselines, np.zeros_like(images)).attribution
