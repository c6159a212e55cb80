"""A Keras model as a graph of calls, nested models unfolded, and its computation call by call.

`trace` computes a Functional or Sequential model and keeps what every call took and gave, so that anything inside can be read:
a layer's map, also one in a nested model, or what went into the last softmax. No operation is added to the model, so no name of
ours can meet a name of its owner's.

A call has a label: the name of its operation, behind the names of the models that it is in, as in `backbone/c1`. Where an
operation is called more than once within its model, the label counts its calls, in the order in which they were made:
`shared#1`, `shared#2`.

Keras lets `training=False` of a model's call win over the `training=True` that its owner gave one layer. Here the owner's wins:
a Dropout that was called with training=True draws, as it does in `model(images)`. Keras's layers for augmentation say
training=True by themselves, which says nothing of what their owner wants; they are off.
"""

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree
from keras.src.models.functional import (
    Functional,
)  # Keras does not export the class that keras.Model(inputs, outputs) makes

__all__ = ["IMAGES", "Call", "Trace", "as_graph", "decisive_calls", "leading_to", "trace"]

IMAGES = "images"  # label of the image itself, which no call gave

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"


@dataclass(frozen=True)
class Call:
    """One call of an operation. inputs, outputs: the tensors it took and gave. sources: labels of the calls that gave the inputs.

    channels_first: whether a 4-D output is (row, channel, y, x).
    """

    label: str
    operation: keras.Operation
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    sources: tuple[str, ...]
    channels_first: bool

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of its first output."""
        return tuple(self.outputs[0].shape) if self.outputs else ()

    @property
    def map_shape(self) -> tuple[int, int] | None:
        """(y, x) of a 4-D output of known size, else None."""
        if len(self.shape) != 4:
            return None
        y, x = self.shape[2:] if self.channels_first else self.shape[1:3]
        return None if y is None or x is None else (y, x)

    @property
    def has_kernel(self) -> bool:
        """Whether it mixes channels or places by weights, as a convolution or a Dense does and a scaling does not."""
        return any(len(weight.shape) >= 2 for weight in getattr(self.operation, "weights", ()))


@dataclass
class Trace:
    """What one computation of a model gave.

    outputs: one tensor for each of the model's outputs. calls: by label, in the order of their computation. whole: labels
    of nested models with the label of the call inside that gives what they give. last: label of the call that gives the
    model's first output. exposed: what the call that was to be exposed gave, (row, y, x, filter) float32, on the way to the
    output.
    """

    outputs: list[Any]
    calls: dict[str, Call] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    last: str = IMAGES
    exposed: Any = None

    def on_the_way(self) -> dict[str, Call]:
        """The calls that the output depends on and that depend on the images, in the order of their computation."""
        to_end = leading_to(self.calls, self.last)
        from_start: set[str] = {IMAGES}
        for label, call in self.calls.items():
            if from_start.intersection(call.sources):
                from_start.add(label)
        return {label: call for label, call in self.calls.items() if label in to_end and label in from_start}


def trace(model: keras.Model, images: Any, *, expose: str = "", training: bool = False) -> Trace:
    """Computes a Functional or Sequential model with one input and keeps every call.

    images: the model's input as a tensor, eager or of a graph that is being traced; it is not cast to the input's dtype.
    expose: label of a call with a 4-D output; the derivative of the output with respect to what is
    exposed is that at this call, also where the call's channels come first or its numbers are of half precision.
    """
    found = Trace(outputs=[])
    outputs = _run(model, [(images, IMAGES)], found, prefix="", training=training, expose=expose)
    found.outputs = [tensor for tensor, _ in outputs]
    found.last = outputs[0][1]
    return found


def decisive_calls(traced: Trace) -> list[Call]:
    """The calls that every path from the images to the output goes through, in order.

    A call is one of them if as many paths lead through it as there are at all.
    """
    calls = traced.on_the_way()
    paths_to: Counter[str] = Counter({IMAGES: 1})
    for label, call in calls.items():
        paths_to[label] = sum(paths_to[source] for source in call.sources)
    paths_from: Counter[str] = Counter({traced.last: 1})
    for label in reversed(calls):
        for source in calls[label].sources:
            paths_from[source] += paths_from[label]
    n_paths = paths_to[traced.last]
    return [call for label, call in calls.items() if paths_to[label] * paths_from[label] == n_paths]


def leading_to(calls: Mapping[str, Call], last: str) -> set[str]:
    """Labels of the calls that the last one depends on, itself counted."""
    waiting, seen = [last], set[str]()
    while waiting:
        label = waiting.pop()
        if label not in seen and label in calls:
            seen.add(label)
            waiting += calls[label].sources
    return seen


_Known = tuple[Any, str]  # a tensor and the label of the call that gave it


def _run(
    model: keras.Model, given: Sequence[_Known], found: Trace, *, prefix: str, training: bool, expose: str
) -> list[_Known]:
    """Computes a model's graph; `given` has one tensor for each of its inputs. Returns one for each of its outputs."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    known = dict(zip(map(id, graph.inputs), given, strict=True))
    labels = _labels(graph, prefix)
    for node, label in labels.items():
        if any(id(tensor) not in known for tensor in node.input_tensors):
            continue  # of another graph that shares this layer
        args, kwargs = node.arguments.fill_in({key: tensor for key, (tensor, _) in known.items()})
        taken = [known[id(tensor)] for tensor in node.input_tensors]
        operation = node.operation
        if "training" in getattr(operation, "_call_context_args", ()):
            kwargs = {**kwargs, "training": _training(operation, kwargs, training)}
        if _is_graph(operation) and len(taken) == len(operation.inputs):
            inner = bool(kwargs.get("training") or False)
            gave = _run(operation, taken, found, prefix=f"{label}/", training=inner, expose=expose)
            found.whole[label] = gave[0][1]
        else:
            tensors = tree.flatten(operation(*args, **kwargs))
            sources = tuple(dict.fromkeys(source for _, source in taken))
            first = _channels_first(operation, tensors, [found.calls[s] for s in sources if s in found.calls])
            inputs = tuple(tensor for tensor, _ in taken)
            if label == expose:
                tensors[0], found.exposed = _exposed(tensors[0], first)
            found.calls[label] = Call(label, operation, inputs, tuple(tensors), sources, first)
            gave = [(tensor, label) for tensor in tensors]
        known |= dict(zip(map(id, node.outputs), gave, strict=True))
    return [known[id(tensor)] for tensor in graph.outputs]


def _exposed(tensor: Any, channels_first: bool) -> tuple[Any, Any]:
    """The tensor with which the computation goes on, and before it on the way the same numbers (row, y, x, filter) float32."""
    ops = keras.ops
    exposed = ops.cast(ops.transpose(tensor, (0, 2, 3, 1)) if channels_first else tensor, "float32")
    onward = ops.cast(ops.transpose(exposed, (0, 3, 1, 2)) if channels_first else exposed, tensor.dtype)
    return onward, exposed


def as_graph(model: keras.Model) -> keras.Model:
    """The model itself, or a Functional one around it where its own `call` does more than a graph of calls says."""
    if _is_graph(model):
        return model
    inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in model.inputs]
    return keras.Model(inputs, model(tree.pack_sequence_as(model.input, inputs)))


def _is_graph(operation: keras.Operation) -> bool:
    if isinstance(operation, keras.Sequential):
        return operation._functional is not None and type(operation).call is keras.Sequential.call
    return isinstance(operation, Functional) and type(operation).call is Functional.call


def _training(operation: keras.Operation, kwargs: Mapping[str, Any], inherited: bool) -> bool:
    """What a call is to take for `training`: what its owner said, else what the model around it is called with.

    Keras records a call's default as if it had been said, so that cannot be told from an owner who says the same.
    """
    said = kwargs.get("training")
    parameter = inspect.signature(operation.call).parameters.get("training")
    return inherited if said is None or (parameter and said == parameter.default) else bool(said)


def _labels(graph: Any, prefix: str) -> dict[Any, str]:
    """The label of each call of a model, in an order of computation."""
    nodes = [node for node in _nodes(graph) if node.operation is not None and not node.is_input]
    calls: dict[str, list[Any]] = {}
    for node in nodes:
        calls.setdefault(node.operation.name, []).append(node)
    numbers: dict[Any, str] = {}
    for same in calls.values():
        made = sorted(same, key=same[0].operation._inbound_nodes.index)
        numbers |= {node: f"#{k}" if len(same) > 1 else "" for k, node in enumerate(made, start=1)}
    return {node: f"{prefix}{node.operation.name}{numbers[node]}" for node in nodes}


def _nodes(graph: Any) -> Iterator[Any]:
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from graph._nodes_by_depth[depth]


def _channels_first(operation: keras.Operation, outputs: Sequence[Any], sources: Sequence[Call]) -> bool:
    """Whether a 4-D output has its channels first: as the layer says, else as its 4-D input has them."""
    if not outputs or len(outputs[0].shape) != 4:
        return False
    of_inputs = [call.channels_first for call in sources if len(call.shape) == 4]
    before = bool(of_inputs) and of_inputs[0]
    if isinstance(operation, keras.layers.Permute):
        # Where the channels were in the input, they are now at another place.
        return operation.dims.index(1 if before else 3) == 0
    said = getattr(operation, "data_format", None)
    return said == CHANNELS_FIRST if said in (CHANNELS_FIRST, CHANNELS_LAST) else before
