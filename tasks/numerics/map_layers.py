"""The layers that can have maps, and the one that is explained. What maps are made of is in tasks/numerics/cams.py.

Any call with a 4-D output on the way from the image to the output can be explained, also inside nested models
(`backbone/c1`). `auto` is the notebook's layer where the model has it, else the last map larger than 1x1 that every path from the
image to the output goes through: what comes before the network pools over space or flattens. Then no branch is left out. The
output of a local pooling is not taken, since what it was pooled from is the same map, finer.
"""

from dataclasses import dataclass

import keras
import tensorflow as tf

from tasks.numerics.network.graph import Call, Trace, decisive_calls, leading_to
from tasks.numerics.network.scores import Network

__all__ = ["NOTEBOOK_LAYER", "FoundLayer", "find_layer", "map_layers", "symbolic_trace"]

NOTEBOOK_LAYER = "Conv2D_Block3_Layer1"
NONE = "none"
LISTED = 12

POOLINGS = (
    keras.layers.MaxPooling2D
    | keras.layers.AveragePooling2D
    | keras.layers.GlobalAveragePooling2D
    | keras.layers.GlobalMaxPooling2D
)
# What gives the values that it took, or those of another size or place: never a map of its own.
UNCHANGING = (
    keras.layers.Dropout
    | keras.layers.SpatialDropout2D
    | keras.layers.GaussianNoise
    | keras.layers.GaussianDropout
    | keras.layers.ActivityRegularization
    | keras.layers.Identity
    | keras.layers.ZeroPadding2D
    | keras.layers.Cropping2D
    | keras.layers.UpSampling2D
    | keras.layers.Permute
    | keras.layers.Reshape
)


@dataclass(frozen=True)
class FoundLayer:
    """label: of the call whose output is explained, empty for none. text: how it was chosen. shape: (y, x) of its maps."""

    label: str
    text: str
    shape: tuple[int, int] | None = None


def symbolic_trace(network: Network) -> Trace:
    """The network's calls with the shapes of what they give, nothing computed."""
    found: list[Trace] = []

    def record(images: tf.Tensor) -> tf.Tensor:
        found.append(network.trace(images))
        return images

    tf.function(record, autograph=False).get_concrete_function(tf.TensorSpec((None, *network.shape), tf.float32))
    return found[-1]


def map_layers(traced: Trace) -> dict[str, Call]:
    """The calls with a map, (row, y, x, filter) of known size, on the way from image to output, by label, input first."""
    return {label: call for label, call in traced.on_the_way().items() if call.map_shape is not None}


def find_layer(network: Network, name: str, traced: Trace | None = None) -> FoundLayer:
    """The layer that Grad-CAM explains. name: of a layer or a path into nested models, "auto" or "none".

    traced: the network's calls, where they are known already.

    A name may leave out the nested models that the layer is in where only one layer is called so. Of a layer that is called
    several times the last call on the way is meant, unless the name says which: `shared#1`. Raises ValueError listing the
    layers that have maps if the named one has none.
    """
    if name == NONE:
        return FoundLayer("", "Grad-CAM is switched off (grad_cam.layer: none)")
    traced = traced or symbolic_trace(network)
    layers = map_layers(traced)
    if name == "auto":
        return _automatic(traced, layers)
    matching = _matching(name, layers, traced)
    if len({label.partition("#")[0] for label in matching}) > 1:
        raise ValueError(f"Grad-CAM layer {name!r} is in several places; choose one of {', '.join(matching)}")
    if not matching:
        raise ValueError(_refusal(name, layers, traced))
    matching = sorted(matching, key=lambda label: int(label.partition("#")[2] or 0))
    label = matching[-1]
    calls = f", the last of its {len(matching)} calls ({', '.join(matching)})" if len(matching) > 1 else ""
    return _found(layers[label], f"set to {name}{calls}")


def _automatic(traced: Trace, layers: dict[str, Call]) -> FoundLayer:
    own = [label for label in layers if label.rpartition("/")[2] == NOTEBOOK_LAYER]
    if len(own) == 1:
        return _found(layers[own[0]], "the layer that the notebook explained")
    chosen = None
    for call in decisive_calls(traced):
        if call.label in layers and max(layers[call.label].map_shape or (1,)) > 1:
            if _n_kernels_until(traced, call) and not isinstance(call.operation, POOLINGS | UNCHANGING):
                chosen = call
        elif chosen is not None:
            break  # the network has pooled over space, or flattened
    if chosen is None:
        return _nothing(layers, traced)
    if _n_kernels_until(traced, chosen) == 1 and _goes_on_as_sequence(traced, chosen):
        return FoundLayer(
            "",
            f"the model has no map behind its first layer {chosen.label}: it goes on with a sequence of tokens, so there "
            "are Integrated Gradients alone",
        )
    return _found(
        chosen, "auto: the last map larger than 1x1 that every path from the image to the output goes through"
    )


def _n_kernels_until(traced: Trace, call: Call) -> int:
    """How many calls with a kernel lead to this one, itself counted."""
    return sum(traced.calls[label].has_kernel for label in leading_to(traced.calls, call.label))


def _goes_on_as_sequence(traced: Trace, call: Call) -> bool:
    """Whether behind this call weights work on (row, token, feature): what a transformer makes of an image's patches."""
    behind, found = {call.label}, False
    for label, later in traced.on_the_way().items():
        if behind.intersection(later.sources):
            behind.add(label)
            found |= later.has_kernel and len(later.shape) == 3 and later.shape[1] != 1
    return found


def _nothing(layers: dict[str, Call], traced: Trace) -> FoundLayer:
    maps = [
        label for label, call in layers.items() if _n_kernels_until(traced, call) and max(call.map_shape or (1,)) > 1
    ]
    if maps:
        return FoundLayer(
            "",
            "no map is on every path from the image to the output, so there are Integrated Gradients alone; "
            f"grad_cam.layer can name one of {_listed(maps)}",
        )
    return FoundLayer(
        "", "the model has no layer with a map, which Grad-CAM needs, so there are Integrated Gradients alone"
    )


def _found(call: Call, text: str) -> FoundLayer:
    return FoundLayer(call.label, text, call.map_shape)


def _matching(name: str, layers: dict[str, Call], traced: Trace) -> list[str]:
    """Labels that the name means: itself, else calls of the operation called so, else those within nested models."""
    name = traced.whole.get(name, name)
    if name in layers:
        return [name]
    exact = [label for label in layers if label.partition("#")[0] == name and "/" not in label[len(name) :]]
    return exact or [
        label for label in layers if label.endswith(f"/{name}") or label.rpartition("#")[0].endswith(f"/{name}")
    ]


def _refusal(name: str, layers: dict[str, Call], traced: Trace) -> str:
    if not layers:
        return f"Grad-CAM layer {name!r}: the model has no layer with a map, which Grad-CAM needs; set grad_cam.layer to none"
    known = any(label.rpartition("/")[2].partition("#")[0] == name for label in (*traced.calls, *traced.whole))
    came = "has no map, (row, y, x, filter), on the way to the output" if known else "is not in the model"
    return f"Grad-CAM layer {name!r} {came}; choose one of {_listed(list(layers))}, or auto, or none"


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - LISTED} before them" if len(labels) > LISTED else ""
    return f"{', '.join(labels[-LISTED:])}{more}"
