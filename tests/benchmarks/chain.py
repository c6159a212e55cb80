"""A network as a chain of layers with their weights, from which another library builds the same network again.

It knows what the notebook's network is made of and what may stand before that, and refuses anything else. InputLayer and Dropout
do nothing at inference and are left out. Rescaling and Normalization become a layer "Affine": scale * x + offset of each channel.
"""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

__all__ = ["ChainLayer", "UnknownChain", "chain_of"]

ACTIVATIONS = ("linear", "relu", "softmax")
# The settings that another library would have to follow, and whose only known value is this one.
ONLY: dict[type, dict[str, Any]] = {
    keras.layers.Conv2D: {"dilation_rate": (1, 1), "groups": 1, "data_format": "channels_last"},
    keras.layers.MaxPooling2D: {"padding": "valid", "data_format": "channels_last"},
    keras.layers.Flatten: {"data_format": "channels_last"},
    keras.layers.Normalization: {"invert": False},
}
NAMED: dict[type, tuple[str, ...]] = {
    keras.layers.Conv2D: ("strides", "padding"),
    keras.layers.MaxPooling2D: ("pool_size", "strides"),
    keras.layers.BatchNormalization: ("epsilon",),
    keras.layers.Flatten: (),
    keras.layers.Dense: (),
    keras.layers.Activation: (),
}
SKIPPED = (keras.layers.InputLayer, keras.layers.Dropout)
SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
ACTIVE = (keras.layers.Conv2D, keras.layers.Dense, keras.layers.Activation)


class UnknownChain(ValueError):
    """The network is no chain, or has a layer or a setting that is not known here."""


@dataclass(frozen=True)
class ChainLayer:
    """kind: the Keras class, or "Affine". shape: of one input, (y, x, channel) or (feature,).

    settings: as Keras names them, ready for JSON. weights: by Keras's names, in Keras's shapes, float32.
    """

    kind: str
    shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def chain_of(model: keras.Model) -> list[ChainLayer]:
    """The layers that act at inference, in their order. Raises UnknownChain, which names the layer."""
    layers = list(model.layers)
    starts = model.inputs if not isinstance(layers[0], keras.layers.InputLayer) else layers.pop(0).output
    tensor = starts[0] if isinstance(starts, list) else starts
    for layer in layers:
        if layer.input is not tensor:
            raise UnknownChain(f"expected a chain of layers, but {layer.name} does not take what is before it alone")
        tensor = layer.output
    if len(model.outputs) != 1 or model.outputs[0] is not tensor:
        raise UnknownChain("expected a chain of layers, but its output is not its last layer's")
    return [_described(layer) for layer in layers if type(layer) not in SKIPPED]


def _described(layer: keras.Layer) -> ChainLayer:
    kind = type(layer)
    if kind not in NAMED and kind not in SCALING:
        known = ", ".join(sorted(one.__name__ for one in (*NAMED, *SCALING, *SKIPPED)))
        raise UnknownChain(f"the layer {layer.name} is a {kind.__name__}, which is none of {known}")
    for name, expected in ONLY.get(kind, {}).items():
        if getattr(layer, name) != expected:
            raise UnknownChain(f"the layer {layer.name} has {name}={getattr(layer, name)!r}, expected {expected!r}")
    shape = tuple(layer.input.shape[1:])
    if kind in SCALING and len(shape) != 3:
        raise UnknownChain(f"the layer {layer.name} scales {shape}, expected images (y, x, channel)")
    if kind in SCALING:
        return ChainLayer("Affine", shape, weights=_affine(layer, shape[-1]))
    if kind is keras.layers.BatchNormalization and layer.axis not in (-1, len(shape)):
        raise UnknownChain(f"the layer {layer.name} has axis={layer.axis!r}, expected the last one")
    settings = {name: getattr(layer, name) for name in NAMED[kind]}
    if kind in ACTIVE:
        settings["activation"] = _activation(layer)
    return ChainLayer(kind.__name__, shape, settings, {one.name: _values(one) for one in layer.weights})


def _activation(layer: keras.Layer) -> str:
    name = keras.activations.serialize(layer.activation)
    if name not in ACTIVATIONS:
        raise UnknownChain(f"the layer {layer.name} has activation={name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return name


def _affine(layer: keras.Layer, n_channels: int) -> dict[str, NDArray[np.float32]]:
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    else:
        spread = np.maximum(np.sqrt(_values(layer.variance), dtype=np.float64), keras.config.epsilon())
        scale, offset = 1 / spread, -_values(layer.mean) / spread
    wanted = (1, 1, 1, n_channels)
    if any(np.broadcast_shapes(one.shape, wanted) != wanted for one in (scale, offset)):
        raise UnknownChain(f"the layer {layer.name} scales pixels, expected the same scale for all of them")
    return {
        name: np.broadcast_to(one, wanted).reshape(n_channels).astype(np.float32)
        for name, one in {"scale": scale, "offset": offset}.items()
    }


def _values(tensor: Any) -> NDArray:
    return keras.ops.convert_to_numpy(tensor)
