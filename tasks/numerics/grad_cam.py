"""Grad-CAM maps, and the layers that can have them.

    weights_k = mean over space of dF_t/dA_k,    map = ReLU(sum_k weights_k A_k)

for the activations A_k of one convolution layer and the score F_t of each image's own target (Selvaraju et al. 2017,
equations 1 and 2). Maps stay at the layer's resolution, raw and non-negative. A map that is zero everywhere is a fact
(nothing at this layer speaks for the target) and stays zero: nothing here divides by a maximum.
"""

import keras
import tensorflow as tf

__all__ = ["SEED_LAYER", "convolution_layers", "find_layer", "grad_cam", "layer_output"]

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


def grad_cam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """The maps, (row, cam_y, cam_x), of activations A and gradients dF_t/dA, both (row, cam_y, cam_x, filter)."""
    return tf.nn.relu(tf.einsum("nyxk,nk->nyx", activations, tf.reduce_mean(gradients, axis=(1, 2))))
