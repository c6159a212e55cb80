"""What is explained: a classifier's score for a target class, as a probability or as a logit, from images in image space.

A `Network` is the model with what its owner does around it: the feed in front (numerics/feed.py), what its outputs are behind
(numerics/outputs.py). It computes as at inference whoever calls it: layers that act in training only are off, for foreign
engines too, which call a model without saying so. `score_model` gives it to them as a Keras model of two operations, the image
and the network, so that no name of ours can meet a name of its owner's.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tasks.numerics.network.compiled import Compiled, Report
from tasks.numerics.network.feed import UNIT, Feed
from tasks.numerics.network.graph import Trace, as_graph, trace
from tasks.numerics.network.outputs import OutputKind, as_logits, as_probabilities, flat_outputs, logits_of

__all__ = ["Answer", "CompiledScores", "Network", "Reading", "fixed_shape", "image_shape", "network_of", "score_model"]

SCORES = ("probability", "logit")
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Reading:
    """How a model is fed and what its outputs are. shape: of the images, (y, x, channel); None: the model's own."""

    feed: Feed = UNIT
    kind: OutputKind = "probability"
    shape: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """What a network says of images. outputs: the model's own, (row, output). probabilities, scores: (row, class).

    activations: (row, cam_y, cam_x, filter) of the layer that was asked for, None where there is none.
    """

    outputs: Any
    probabilities: Any
    scores: Any
    activations: Any


class Network:
    """A classifier from images, float32 (row, y, x, channel) in 0..1, to scores (row, class), at inference.

    layer: label of a call of the model (see numerics/graph.py) whose 4-D output is wanted too; empty: none.
    Raises ValueError for a model that is no classifier of images of one size.
    """

    def __init__(self, model: keras.Model, score: str = "probability", reading: Reading = Reading(), layer: str = ""):
        if score not in SCORES:
            raise ValueError(f"score must be 'probability' or 'logit', got {score!r}")
        self.shape = reading.shape or fixed_shape(model)
        check_output(model)
        self.model, self.score, self.reading, self.layer = as_graph(model), score, reading, layer
        self._fit = _fitting(model, self.shape)

    @property
    def n_classes(self) -> int:
        return max(2, _n_outputs(self.model))

    def trace(self, images: tf.Tensor) -> Trace:
        """The model's computation of these images, call by call."""
        return trace(self.model, self._fit(self.reading.feed(images)), expose=self.layer)

    def __call__(self, images: tf.Tensor) -> Answer:
        """Raises ValueError if the score is a logit that cannot be reached."""
        traced, kind = self.trace(images), self.reading.kind
        outputs = tf.cast(flat_outputs(traced.outputs[0]), tf.float32)
        before = logits_of(traced, kind) if self.score == "logit" and kind not in ("logits", "logit") else outputs
        if before is None:
            raise ValueError(
                f"the logits of this model cannot be reached: they are not what goes into its last softmax or sigmoid "
                f"({traced.last!r}); explain the probability instead, or end the model with a Dense or Softmax layer"
            )
        probabilities = as_probabilities(outputs, kind)
        scores = probabilities if self.score == "probability" else as_logits(tf.cast(before, tf.float32), kind)
        return Answer(outputs, probabilities, scores, traced.exposed)


class _Frozen(keras.layers.Layer):
    """A network as one Keras layer, for engines that want a Keras model. shapes: of what it gives."""

    def __init__(self, network: Network, shapes: Any):
        super().__init__(name="network")
        self.network, self._shapes = network, shapes

    def build(self, input_shape: Any) -> None:
        """Nothing: the network has its weights."""

    def call(self, images: tf.Tensor) -> Any:
        return _shown(self.network(images))

    def compute_output_spec(self, images: keras.KerasTensor) -> Any:
        return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, "float32"), self._shapes)


def _shown(answer: Answer) -> Any:
    return answer.scores if answer.activations is None else (answer.activations, answer.scores)


def _shapes(network: Network) -> Any:
    """Of what the network gives for images. Raises ValueError as it does: from within a layer Keras would bury it in words."""
    found: list[Any] = []

    def record(images: tf.Tensor) -> tf.Tensor:
        found.append(_shown(network(images)))
        return images

    tf.function(record, autograph=False).get_concrete_function(tf.TensorSpec((None, *network.shape), tf.float32))
    return keras.tree.map_structure(lambda tensor: tuple(tensor.shape), found[-1])


def score_model(
    model: keras.Model,
    score: str,
    reading: Reading = Reading(),
    layer: str = "",
) -> keras.Model:
    """A Keras model from images (row, y, x, channel) to the score of each class, (row, class), at inference whoever calls it.

    Its outputs are (activations, scores) where a layer is given.
    model: built, Sequential or Functional, with one image input and one output. score: "probability" or "logit".
    Raises ValueError for another model, and where logits cannot be reached.
    """
    network = Network(model, score, reading, layer)
    images = keras.Input(network.shape, name="image")
    return keras.Model(images, _Frozen(network, _shapes(network))(images))


def network_of(model: keras.Model) -> Network | None:
    """The network in a model of `score_model`; None for any other model."""
    return next((layer.network for layer in model.layers if isinstance(layer, _Frozen)), None)


def image_shape(model: keras.Model) -> tuple[int | None, int | None, int | None] | None:
    """(y, x, channel) of the images that a model takes, None in it for any size; None for a model that does not say."""
    shape = tuple(model.inputs[0].shape[1:]) if len(model.inputs) == 1 else ()
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) != 3:
        return None
    first, last = (shape[k] in CHANNELS for k in (0, 2))
    return (shape[1], shape[2], shape[0]) if first and not last else (shape[0], shape[1], shape[2])


def fixed_shape(model: keras.Model) -> tuple[int, int, int]:
    """(y, x, channel) of the images that a model takes.

    Raises ValueError where the model takes more than one input, no image, or images of any size.
    """
    check_input(model)
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape or len(shape) not in (2, 3):
        raise ValueError(
            f"expected an input of fixed shape (row, y, x, channel), got {tuple(model.inputs[0].shape)}; call the model on a "
            "keras.Input((y, x, channel)) of the size that is wanted, and save the model from that to its output"
        )
    return (*shape, 1) if len(shape) == 2 else shape


def check_input(model: keras.Model) -> None:
    """Raises ValueError unless the model has one input."""
    if len(model.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise ValueError(
            f"expected a model with one image input, got {len(model.inputs)} inputs ({names}); save a model of one, as "
            "keras.Model(inputs, outputs) makes it"
        )
    if (batch := model.inputs[0].shape[0]) is not None:
        raise ValueError(
            f"expected a model of batches of any size, got one made for batches of {batch}; build it again from a keras.Input "
            "without batch_size, and set its weights"
        )


def check_output(model: keras.Model) -> None:
    """Raises ValueError unless the model has one output (row, class), up to axes of length 1."""
    if len(model.outputs) != 1:
        names = ", ".join(tensor._keras_history.operation.name for tensor in model.outputs)
        raise ValueError(
            f"expected a model with one output, got {len(model.outputs)} outputs (of {names}); save a model of the one that "
            "classifies, as keras.Model(model.inputs, output) makes it"
        )
    shape = tuple(model.outputs[0].shape[1:])
    if not shape or None in shape or sum(size > 1 for size in shape) > 1:
        raise ValueError(
            f"expected an output of shape (row, class), got {tuple(model.outputs[0].shape)}; nightlens explains classifiers"
        )


def _n_outputs(model: keras.Model) -> int:
    return int(np.prod(model.outputs[0].shape[1:]))


def _fitting(model: keras.Model, shape: tuple[int, int, int]) -> Any:
    """From images (row, y, x, channel) to the layout of the model's input.

    Raises ValueError if that is none that images of this shape can be brought to without changing a number.
    """
    wanted = tuple(model.inputs[0].shape[1:])
    y, x, n_channels = shape
    if len(wanted) == 3 and all(w in (None, n) for w, n in zip(wanted, shape, strict=True)):
        return lambda images: images
    if len(wanted) == 3 and all(w in (None, n) for w, n in zip(wanted, (n_channels, y, x), strict=True)):
        return lambda images: tf.transpose(images, (0, 3, 1, 2))
    if wanted in ((y, x), (None, None)) and n_channels == 1:
        return lambda images: images[..., 0]
    if wanted == (y * x * n_channels,):
        return lambda images: tf.reshape(images, (-1, *wanted))
    raise ValueError(f"the model takes inputs of shape {wanted}, the images have {shape}")


class CompiledScores:
    """The scores of a score model in one compiled function.

    Calling with images, float32 (row, y, x, channel), returns (row, class) float32. batch_size, on_halving: as of `Compiled`.
    """

    def __init__(self, model: keras.Model, batch_size: int, on_halving: Report | None = None):
        self._compiled = Compiled(
            "scores", lambda images: (model(images, training=False),), batch_size, on_halving=on_halving
        )
        self.n_classes = int(model.outputs[0].shape[1])

    @property
    def n_traces(self) -> int:
        """How often the function was traced."""
        return self._compiled.n_traces

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not len(images):
            return np.empty((0, self.n_classes), np.float32)
        return self._compiled(images.astype(np.float32, copy=False))[0]
