"""The arithmetic of a gradient, and how fast this machine multiplies matrices: what a gradient could cost at best.

A multiplication and an addition are two floating-point operations (FLOPs). The gradient of a score with respect to the image
takes every convolution and dense layer forwards, and the same number of operations backwards to the layer's input; weights
get no gradient. What works element by element (biases, activations, BatchNorm, pooling) is left out.
"""

import math
import time

import keras
import numpy as np
import tensorflow as tf

__all__ = ["MatmulPeak", "gradient_flops"]


def gradient_flops(model: keras.Model) -> int:
    """FLOPs of dF_t/dx for one image.

    Raises ValueError for a layer with a kernel whose arithmetic is not known here, and for a model that shows no such layer.
    """
    multiplications = _multiplications(model)
    if not multiplications:
        raise ValueError(f"expected a model that shows its layers, {model.name!r} has none with a kernel")
    return 2 * 2 * multiplications


def _multiplications(model: keras.Model) -> int:
    return sum(_of_layer(layer) for layer in model.layers if isinstance(layer, keras.layers.Layer))


def _of_layer(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.Model):
        return _multiplications(layer)
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.output.shape[1:]) * layer.kernel.shape[0]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)
    if type(layer) is keras.layers.Conv2D:  # every output value is a sum over the kernel and the channels of its group
        return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:3])
    if any(len(weight.shape) > 1 for weight in layer.weights):
        raise ValueError(
            f"the FLOPs of layer {layer.name!r} ({type(layer).__name__}) are not known; add them to {__file__}"
        )
    return 0


class MatmulPeak:
    """The product of two square float32 matrices, compiled; calling it gives FLOPs a second, the best of a burst."""

    BURST = 10

    def __init__(self, side: int = 2048):
        random = np.random.default_rng(0)
        self.side = side
        self._matrices = [tf.constant(random.standard_normal((side, side), dtype=np.float32)) for _ in range(2)]
        self._multiply = tf.function(tf.linalg.matmul)
        self._once()

    def __call__(self) -> float:
        return 2 * self.side**3 / min(self._once() for _ in range(self.BURST))

    def _once(self) -> float:
        began = time.perf_counter()
        self._multiply(*self._matrices).numpy()
        return time.perf_counter() - began
