"""The engine with any gradients: compiled ones of a model, or a function of arrays."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.numerics.engine import Engine
from tasks.numerics.integrated_gradients import Attributions, target_gradients
from tasks.numerics.network.compiled import SMALL_BATCHES, Compiled, Report
from tasks.numerics.quadrature import Rule, Tolerances

__all__ = [
    "ArrayGradients",
    "assert_all_slots_are_free",
    "assert_same",
    "compiled_gradients",
    "engine_of",
    "integrate_by_engine",
    "watch_traces",
]

ArrayGradients = Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]
MEMORY_BYTES = 1e8


class _CompiledGradients(Compiled):
    def __call__(self, points: NDArray, targets: NDArray) -> tuple[NDArray, ...]:
        return super().__call__(points.astype(np.float32, copy=False), targets.astype(np.int32))


def compiled_gradients(model: keras.Model, batch_size: int, on_halving: Report | None = None) -> Compiled:
    """dF_t/dx and F_t of a score model for points (n, y, x, channel) and targets (n,) of any type, compiled, as arrays."""
    small = max(1, batch_size // SMALL_BATCHES)
    return _CompiledGradients("gradients", target_gradients(model), batch_size, small=small, on_halving=on_halving)


def watch_traces(engine: Engine) -> list[tuple[int | None, ...]]:
    """Of an engine that has not begun: a list that is given the shape of the points whenever its gradients are traced."""
    shapes, gradients = [], engine._gradients

    def watched(points: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shapes.append(tuple(points.shape))
        return gradients(points, *others)

    engine._gradients = watched
    return shapes


def engine_of(
    gradients: ArrayGradients, shape: tuple[int, ...], rule: Rule, tolerances: Tolerances, batch_size: int,
    memory_bytes: float = MEMORY_BYTES, on_halving: Report | None = None, *, shared: bool = True,
) -> Engine:  # fmt: skip
    """An engine whose gradients a function of arrays gives, which is also called with points that pad a batch."""

    def weighted(points: NDArray, targets: NDArray, weights: NDArray) -> tuple[NDArray, NDArray]:
        slopes, scores = gradients(points, targets)
        slopes = slopes * weights.reshape(-1, *[1] * (slopes.ndim - 1))
        return slopes.astype(np.float32), scores.astype(np.float32)

    def tensors(points: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slopes, scores = tf.numpy_function(weighted, [points, targets, weights], (tf.float32, tf.float32))
        return tf.reshape(slopes, tf.shape(points)), tf.reshape(scores, tf.shape(targets))

    return Engine(
        tensors, shape, rule=rule, tolerances=tolerances,
        batch_size=batch_size, memory_bytes=memory_bytes, shared=shared, on_halving=on_halving,
    )  # fmt: skip


def integrate_by_engine(
    gradients: ArrayGradients,
    images: NDArray,
    baselines: NDArray,
    targets: NDArray,
    score: NDArray,
    score_baseline: NDArray,
    *,
    rule: Rule,
    tolerances: Tolerances,
    batch_size: int,
    end_gradients: NDArray | None = None,
    memory_bytes: float = MEMORY_BYTES,
) -> Attributions:
    """Integrated Gradients of rows by an engine of their own. end_gradients: of the images, computed where none are given."""
    if end_gradients is None:
        pieces = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
        ends = [gradients(images[piece], targets[piece].astype(np.int32))[0] for piece in pieces]
        end_gradients = np.concatenate([np.zeros((0, *images.shape[1:]), np.float32), *ends])
    engine = engine_of(gradients, images.shape[1:], rule, tolerances, batch_size, memory_bytes)
    return engine.integrate(images, baselines, targets, score, score_baseline, end_gradients)


def assert_same(result: Attributions, expected: Attributions, rows: slice | np.ndarray = slice(None)) -> None:
    """As in the expected rows: counts exactly, attributions to 1e-6 of the largest, certificates to their rounding."""
    np.testing.assert_array_equal(result.n_gradients, expected.n_gradients[rows])
    np.testing.assert_array_equal(result.converged, expected.converged[rows])
    wanted = expected.attribution[rows]
    atol = 1e-6 * max(1, np.abs(expected.attribution).max())
    np.testing.assert_allclose(result.attribution, wanted, rtol=0, atol=atol)
    np.testing.assert_allclose(result.gap, expected.gap[rows], rtol=0, atol=4 * atol)
    np.testing.assert_allclose(result.quadrature_error, expected.quadrature_error[rows], rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(result.score, expected.score[rows])
    np.testing.assert_array_equal(result.score_baseline, expected.score_baseline[rows])


def assert_all_slots_are_free(engine: Engine) -> None:
    slots = engine._rows._slots
    assert slots.n_free == slots.n
    assert len(np.unique(slots.take(slots.n))) == slots.n, "a slot was given back twice"
