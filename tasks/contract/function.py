"""Whether a model is a function of one image: the same images twice, compiled and not, and among others, give the same outputs.

Where they do not, no attribution means anything, and the layer that draws or looks at its batch is found by computing call after
call and naming the first whose results differ.
"""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.contract.contract import Check
from tasks.contract.evidence import Outputs
from tasks.numerics.network.feed import Feed
from tasks.numerics.network.graph import Trace
from tasks.numerics.network.scores import Network, Reading

__all__ = ["check_function", "check_gradients"]

N_IMAGES, N_GRADIENTS = 8, 4
TOLERANCE = 1e-4  # relative to the largest output: rounding, also of other kernels for another batch


def check_function(
    outputs: Outputs, model: keras.Model, feed: Feed, images: NDArray[np.float32]
) -> tuple[list[Check], str]:
    """The checks that passed, and what is wrong in words, empty for a function. images: (row, y, x, channel) in 0..1."""
    n = min(N_IMAGES, max(len(images) // 2, 1))
    before = [variable.numpy() for variable in model.non_trainable_variables]
    once, again = outputs(images[:n], feed), outputs(images[:n], feed)
    twice = _apart(once, again)
    if twice > TOLERANCE:
        layer = _first_apart(_results(model, feed, images[:n]), _results(model, feed, images[:n]), n)
        return [], (
            f"its outputs for the same images differ from call to call, by {twice:.2g} of the largest: {layer} draws at "
            "random at inference; save the model with that layer called without training=True, or explain it without"
        )
    eager = _results(model, feed, images[:n])
    compiled = _apart(once, np.asarray(eager.outputs[0], np.float32).reshape(once.shape))
    if compiled > TOLERANCE:
        first = [
            label
            for label, call in eager.calls.items()
            if getattr(call.operation, "data_format", "") == "channels_first"
        ]
        where = (
            f", as it does on processors with data_format='channels_first' (layers {', '.join(first[:5])})"
            if first
            else ""
        )
        return [], (
            f"TensorFlow computes it otherwise when it compiles it, by {compiled:.2g} of the largest output{where}; "
            "save the model with data_format='channels_last', or explain it on a GPU"
        )
    checks = [Check(name="the same images twice", text=f"outputs differ by {twice:.1g} of the largest")]
    checks.append(Check(name="compiled and not", text=f"outputs differ by {compiled:.1g} of the largest"))
    others = images[n : 2 * n]
    if not len(others):
        return checks, _changed(model, before)
    mixed = np.concatenate([others[::-1] * 0.5, images[:n]])
    among = _apart(once, outputs(mixed, feed)[len(others) :])
    if among > TOLERANCE:
        pair = np.concatenate([images[:n], images[:n]])
        layer = _first_apart(_results(model, feed, pair), _results(model, feed, mixed), n)
        return checks, (
            f"its outputs for an image depend on the other images of the batch, by {among:.2g} of the largest: {layer} "
            "looks at the batch at inference; save the model with that layer called without training=True"
        )
    checks.append(Check(name="the same images among others", text=f"outputs differ by {among:.1g} of the largest"))
    return checks, _changed(model, before)


def _changed(model: keras.Model, before: list[NDArray]) -> str:
    """What the calls have changed in the model, in words: then each call is one of another model."""
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        if not np.array_equal(variable.numpy(), value):
            return f"it changes its variable {variable.path!r} when it is called; save it with that layer as it is at inference"
    return ""


def check_gradients(network: Network, images: NDArray[np.float32], labels: NDArray[np.int64], *, baseline: str) -> str:
    """What keeps the score from having a gradient along the path, in words; empty where it has one.

    images: (row, y, x, channel). baseline: `integrated_gradients.baseline`.
    """
    some, targets = images[:N_GRADIENTS], labels[:N_GRADIENTS]
    places = {"at images": some, "half way to black": some / 2} | (
        {"at black": some * 0} if baseline == "black" else {}
    )
    for where, points in places.items():
        tensor = tf.constant(points)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensor)
            score = tf.gather(network(tensor).scores, targets, batch_dims=1)
        gradient = tape.gradient(score, tensor)
        if gradient is None:
            return (
                "no gradient passes from its outputs to the image: a layer of it rounds, casts to integers or leaves TensorFlow; "
                "explain a model without that layer"
            )
        if not (np.isfinite(score).all() and np.isfinite(gradient).all()):
            remedy = "; set integrated_gradients.baseline to white, mean or blur" if where == "at black" else ""
            return f"its score or the gradient of it is not finite {where}, so there is no integral to compute{remedy}"
    return ""


def _apart(one: NDArray, other: NDArray) -> float:
    return float(np.abs(one - other).max() / max(1.0, float(np.abs(one).max())))


def _results(model: keras.Model, feed: Feed, images: NDArray[np.float32]) -> Trace:
    network = Network(model, reading=Reading(feed, shape=(images.shape[1], images.shape[2], images.shape[3])))
    return network.trace(tf.constant(images))


def _first_apart(one: Trace, other: Trace, n: int) -> str:
    """The first call whose last n rows differ between two computations, in words."""
    for label, call in one.calls.items():
        for left, right in zip(call.outputs, other.calls[label].outputs, strict=True):
            a, b = (np.asarray(values, np.float64) for values in (left, right))
            if a.ndim and len(a) >= n and _apart(a[-n:], b[-n:]) > TOLERANCE / 10:
                return f"layer {label!r} ({type(call.operation).__name__})"
    return "a layer that could not be found"
