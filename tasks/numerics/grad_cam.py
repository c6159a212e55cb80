"""Grad-CAM maps, a whole batch in one compiled call.

    weights_k = mean over space of dF_t/dA_k,    map = ReLU(sum_k weights_k A_k)

for the activations A_k of one convolution layer and the score F_t of each image's own target (Selvaraju et al. 2017,
equations 1 and 2). Maps stay at the layer's resolution, raw and non-negative. A map that is zero everywhere is a fact
(nothing at this layer speaks for the target) and stays zero: nothing here divides by a maximum.
"""

import keras
import numpy as np
import tensorflow as tf

from tasks.numerics.compiled import Compiled, Tell

__all__ = ["SEED_LAYER", "CompiledGradCam", "convolution_layers", "find_layer", "layer_output"]

SEED_LAYER = "Conv2D_Block3_Layer1"


def convolution_layers(model: keras.Model) -> list[str]:
    """Names of the layers that Grad-CAM can explain: convolutions, or nested models, with a 4-D output, input first."""
    return [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Layer)
        and (_is_convolution(layer) or (isinstance(layer, keras.Model) and convolution_layers(layer)))
        and len(layer.output.shape) == 4
    ]


def _is_convolution(layer: keras.layers.Layer) -> bool:
    return isinstance(
        layer,
        keras.layers.Conv2D
        | keras.layers.SeparableConv2D
        | keras.layers.DepthwiseConv2D
        | keras.layers.Conv2DTranspose,
    )


def find_layer(model: keras.Model, name: str) -> str:
    """The layer to explain: `name` itself, or for "auto" the seed's layer where there is one, else the last convolution.

    Raises ValueError if the model has no such layer or it is no convolution with a 4-D output; lists those that are.
    """
    layers = convolution_layers(model)
    if not layers:
        raise ValueError("the model has no convolution layer with a 4-D output, which Grad-CAM needs")
    if name == "auto":
        return SEED_LAYER if SEED_LAYER in layers else layers[-1]
    if name not in layers:
        known = any(layer.name == name for layer in model.layers)
        came = "is not a convolution with a 4-D output" if known else "is not in the model"
        raise ValueError(f"Grad-CAM layer {name!r} {came}; choose one of {', '.join(layers)}")
    return name


def layer_output(model: keras.Model, name: str) -> keras.KerasTensor:
    """What the layer gives within this model, searched from the model's end.

    `layer.output` is what the layer's first call gave, maybe in another model; a nested model's is inside of it.
    Raises ValueError if the layer is not on the way to the output.
    """
    waiting, seen = list(model.outputs), set()
    while waiting:
        tensor = waiting.pop(0)
        operation, node, _ = tensor._keras_history
        if operation.name == name:
            return tensor
        if id(tensor) not in seen:
            seen.add(id(tensor))
            waiting += operation._inbound_nodes[node].input_tensors
    raise ValueError(f"layer {name!r} is not on the way to the model's output")


class CompiledGradCam:
    """Grad-CAM maps of a score model at one layer, in one compiled function.

    Calling with images, float32 (row, y, x, channel), and targets, (row,), returns float32 maps (row, cam_y, cam_x).
    layer: a name from `convolution_layers`. batch_size, tell: as of `Compiled`.
    """

    def __init__(self, model: keras.Model, layer: str, batch_size: int, tell: Tell | None = None):
        activations = layer_output(model, layer)
        self.shape: tuple[int, int] = tuple(activations.shape[1:3])
        both = keras.Model(model.inputs[0], [activations, model.outputs[0]])

        def maps(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)  # so that the tape records the network even where its weights are frozen
                activations, scores = both(images, training=False)
                target_scores = tf.gather(scores, targets, batch_dims=1)
            weights = tf.reduce_mean(tape.gradient(target_scores, activations), axis=(1, 2))
            return (tf.nn.relu(tf.einsum("nyxk,nk->nyx", activations, weights)),)

        self._compiled = Compiled("Grad-CAM maps", maps, batch_size, tell=tell)

    @property
    def n_traces(self) -> int:
        """How often the function was traced."""
        return self._compiled.n_traces

    def __call__(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        if not len(images):
            return np.empty((0, *self.shape), np.float32)
        return self._compiled(images.astype(np.float32, copy=False), targets.astype(np.int32))[0]
