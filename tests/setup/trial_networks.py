"""Networks as people build them, each small: what is in front, inside and at the end differs, and so does what they are.

A function here gives a network that is not trained, for images of `SHAPE` unless its Recipe says otherwise. RECIPES says how
each is fed and what its outputs are, which is what a reader of its file has to find out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers as L

from trial_images import SIDE, images

__all__ = ["RECIPES", "Recipe"]

SHAPE = (SIDE, SIDE, 3)
Outputs = Literal["probabilities", "logits", "independent", "sigmoid", "logit"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is made and used.

    feed: of trial_images.feeds, what it is trained on and its owner gives it. outputs: probabilities that sum to 1, logits of
    whatever activation, independent probabilities, or of one unit a probability or a logit. is_function: whether a call
    always gives an image the same answer (Keras's predict does in any case: it passes training=False on, past what layers
    were called with). dtype: of its input. names: of its input and output where these are dicts. data: of trial_images.images.
    """

    build: Callable[[], keras.Model]
    feed: str = "unit"
    outputs: Outputs = "probabilities"
    data: str = "coloured"
    epochs: int = 8
    is_function: bool = True
    dtype: str = "float32"
    names: tuple[str, str] | None = None


RECIPES: dict[str, Recipe] = {}


def recipe(name: str = "", **options: Any) -> Callable[[Callable[[], keras.Model]], Callable[[], keras.Model]]:
    """Enters a function in RECIPES by its own name or another; may be repeated."""

    def enter(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        RECIPES[name or build.__name__] = Recipe(build=build, **options)
        return build

    return enter


def trunk(x: Any, filters: tuple[int, ...] = (8, 16)) -> Any:
    for number, n_filters in enumerate(filters):
        x = L.Conv2D(n_filters, 3, padding="same", activation="relu", name=f"c{number}")(x)
        x = L.MaxPooling2D(name=f"p{number}")(x)
    return x


def dense(x: Any, n: int = 10, activation: Any = "softmax", **options: Any) -> Any:
    return L.Dense(n, activation=activation, **options)(L.Flatten()(x))


def simple(n: int = 10, activation: Any = "softmax", shape: tuple[int, ...] = SHAPE, **options: Any) -> keras.Model:
    image = L.Input(shape)
    return keras.Model(image, dense(trunk(image), n, activation, **options))


def backbone(**options: Any) -> keras.Model:
    image = L.Input(SHAPE)
    return keras.Model(image, trunk(image), name="backbone", **options)


# What the image becomes before the first layer that learns.


@recipe("signed_outside", feed="signed")
@recipe("standardised_outside", feed="standardised")
@recipe("torch_outside", feed="torch")
@recipe("bgr_outside", feed="unit-bgr")
@recipe()
def plain() -> keras.Model:
    return simple()


@recipe("raw_outside", feed="raw")
@recipe(feed="caffe")
def caffe_outside() -> keras.Model:
    """Values of hundreds want a BatchNormalization, which networks that are fed them have."""
    image = L.Input(SHAPE)
    first = L.BatchNormalization()(L.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image))
    return keras.Model(image, dense(trunk(first)))


@recipe(feed="raw", outputs="logits", epochs=12)
def rescaling_inside() -> keras.Model:
    """TensorFlow's tutorial of image classification."""
    front = [L.RandomTranslation(0.05, 0.05), L.RandomRotation(0.02), L.Rescaling(1 / 255)]
    image = keras.Input(SHAPE)
    return keras.Sequential([image, *front, *trunk_layers(), L.Dropout(0.1), L.Flatten(), L.Dense(10)])


def trunk_layers() -> list[L.Layer]:
    convolutions = [L.Conv2D(n, 3, padding="same", activation="relu", name=f"c{k}") for k, n in enumerate((8, 16))]
    return [layer for convolution in convolutions for layer in (convolution, L.MaxPooling2D())]


@recipe(feed="raw")
def rescaling_signed_inside() -> keras.Model:
    """Keras's guide to transfer learning: the backbone is nested and called with training=False."""
    image = L.Input(SHAPE)
    x = backbone()(L.Rescaling(1 / 127.5, offset=-1)(image), training=False)
    return keras.Model(image, L.Dense(10, activation="softmax")(L.Dropout(0.1)(L.Flatten()(x))))


@recipe(feed="raw")
def normalization_inside() -> keras.Model:
    layer = L.Normalization(axis=-1)
    layer.adapt(images("coloured").x_train.astype(np.float32))
    image = L.Input(SHAPE)
    return keras.Model(image, dense(trunk(layer(image))))


@recipe(feed="raw", dtype="uint8")
def uint8_input() -> keras.Model:
    image = L.Input(SHAPE, dtype="uint8")
    return keras.Model(image, dense(trunk(L.Rescaling(1 / 255)(image))))


# What comes out.


@recipe()
def probability_model() -> keras.Model:
    """TensorFlow's quickstart: a softmax on top of a model of logits, which it contains."""
    return keras.Sequential([keras.Input(SHAPE), simple(activation=None), L.Softmax()])


@recipe(outputs="logits")
def linear_logits() -> keras.Model:
    return simple(activation=None)


@recipe(outputs="logits", epochs=12)
def relu_logits() -> keras.Model:
    return simple(activation="relu", bias_initializer=keras.initializers.Constant(2.0))


@recipe(outputs="independent")
def sigmoid_units() -> keras.Model:
    return simple(activation="sigmoid")


@recipe(outputs="sigmoid", data="two_classes")
def binary_sigmoid() -> keras.Model:
    return simple(1, "sigmoid")


@recipe(outputs="logit", data="two_classes")
def binary_logit() -> keras.Model:
    return simple(1, None)


@recipe(names=("picture", "probs"))
def dicts() -> keras.Model:
    image = L.Input(SHAPE, name="picture")
    return keras.Model({"picture": image}, {"probs": dense(trunk(image))})


# What is inside.


@recipe()
def activation_layers() -> keras.Model:
    """Convolution, BatchNormalization, sum, ReLU: what Grad-CAM's tutorials name is no convolution."""
    image = L.Input(SHAPE)
    stem = L.MaxPooling2D()(L.Conv2D(12, 3, padding="same", activation="relu", name="stem")(image))
    x = L.Conv2D(12, 3, padding="same", name="block_conv")(stem)
    x = L.Add(name="block_add")([stem, L.BatchNormalization(name="block_bn")(x)])
    return keras.Model(image, dense(L.Activation("relu", name="block_out")(x)))


@recipe()
def nested_backbone() -> keras.Model:
    image = L.Input(SHAPE)
    return keras.Model(image, dense(backbone()(image)))


@recipe(epochs=30)
def pooled_backbone() -> keras.Model:
    """The backbone ends in a pooling, so its output has no places any more."""
    inner = L.Input(SHAPE)
    pooled = keras.Model(inner, L.GlobalAveragePooling2D()(trunk(inner, (16, 32))), name="backbone")
    image = L.Input(SHAPE)
    return keras.Model(image, L.Dense(10, activation="softmax")(pooled(image)))


@recipe()
def resizing_wrapper() -> keras.Model:
    """A whole classifier of larger images, inside."""
    inner = L.Input((24, 24, 3))
    classifier = keras.Model(inner, dense(trunk(inner)), name="classifier")
    image = L.Input(SHAPE)
    return keras.Model(image, classifier(L.Resizing(24, 24)(image)))


@recipe()
def branches() -> keras.Model:
    """The last convolution in the list of layers sees one of two ways."""
    image = L.Input(SHAPE)
    x = trunk(image, (8,))
    ways = [L.Conv2D(12, 3, padding="same", activation="relu", name="wide")(x)]
    ways.append(L.Conv2D(4, 1, activation="relu", name="narrow")(x))
    return keras.Model(image, dense(L.Concatenate(name="mixed")(ways)))


@recipe(epochs=30)
def one_by_one_logits() -> keras.Model:
    """MobileNetV3's head: pooled, and then convolutions of maps of one pixel."""
    image = L.Input(SHAPE)
    x = L.BatchNormalization()(L.Conv2D(32, 3, padding="same", name="features")(trunk(image, (16,))))
    x = L.GlobalAveragePooling2D(keepdims=True)(L.Activation("relu", name="last_map")(x))
    x = L.Conv2D(32, 1, activation="relu", name="conv_2")(x)
    return keras.Model(image, L.Activation("softmax")(L.Flatten()(L.Conv2D(10, 1, name="logits")(x))))


@recipe()
def shared_conv() -> keras.Model:
    """One convolution called on the image and on the image at half its size."""
    image = L.Input(SHAPE)
    conv = L.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="shared")
    seen = [L.Flatten()(conv(image)), L.Flatten()(conv(L.AveragePooling2D(2)(image)))]
    return keras.Model(image, L.Dense(10, activation="softmax")(L.Concatenate()(seen)))


@recipe(epochs=16)
def vit() -> keras.Model:
    """A transformer, whose only convolution cuts the image into patches."""
    image = L.Input(SHAPE)
    x = L.Reshape((16, 24))(L.Conv2D(24, 4, strides=4, name="patches")(image))
    y = L.LayerNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 12)(y, y)])
    x = L.Add()([x, L.Dense(24)(L.Dense(48, activation="gelu")(L.LayerNormalization()(x)))])
    return keras.Model(image, L.Dense(10, activation="softmax")(L.Flatten()(x)))


@recipe(epochs=12)
def mlp() -> keras.Model:
    hidden = [L.Flatten(), L.Dense(64, activation="relu"), L.Dropout(0.1)]
    return keras.Sequential([keras.Input(SHAPE), *hidden, L.Dense(10, activation="softmax")])


@recipe()
def channels_first(biased: bool = False) -> keras.Model:
    image = L.Input(SHAPE)
    x = L.Permute((3, 1, 2), name="to_channels_first")(image)
    for number, n_filters in enumerate((8, 16)):
        options: dict[str, Any] = {"strides": 2, "padding": "same", "use_bias": biased}
        x = L.Conv2D(n_filters, 3, data_format="channels_first", name=f"c{number}", **options)(x)
        x = L.ReLU()(x)
    return keras.Model(image, dense(x))


@recipe(epochs=25)
def any_size() -> keras.Model:
    image = L.Input((None, None, 3))
    x = L.GlobalMaxPooling2D()(trunk(image, (16, 32)))
    return keras.Model(image, L.Dense(10, activation="softmax")(x))


@recipe()
def half_precision() -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return simple(dtype="float32")
    finally:
        keras.config.set_dtype_policy(before)


@recipe(data="grey28")
def grey28() -> keras.Model:
    return simple(shape=(28, 28, 1))


@recipe(data="grey28")
def flat28() -> keras.Model:
    """Keras's first tutorial: no axis of channels."""
    hidden = [L.Flatten(), L.Dense(64, activation="relu")]
    return keras.Sequential([keras.Input((28, 28)), *hidden, L.Dense(10, activation="softmax")])


# Names that others may want to give.


@recipe(outputs="logits")
def softmax_inside() -> keras.Model:
    """Attention to places by a layer called softmax, and logits at the end."""
    image = L.Input(SHAPE)
    x = trunk(image)
    places = L.Softmax(name="softmax")(L.Flatten()(L.Conv2D(1, 1)(x)))
    x = L.Multiply(name="multiply")([x, L.Reshape((4, 4, 1))(places)])
    return keras.Model(image, dense(L.BatchNormalization()(x), activation=None))


def called_like_ours(end: str | None) -> keras.Model:
    image = L.Input(SHAPE, name="input_layer")
    x = L.MaxPooling2D(name="gather")(L.Conv2D(8, 3, padding="same", activation="relu", name="image")(image))
    y = L.Conv2D(8, 3, padding="same", activation="relu", name="score")(x)
    x = L.Add(name="add")([L.Multiply(name="multiply")([x, y]), L.Subtract(name="subtract")([x, y])])
    x = L.Dense(32, activation="relu", name="nightlens")(L.Flatten(name="reshape")(x))
    x = L.Dense(10, name="matmul")(x)
    return keras.Model(image, L.Softmax(name="softmax")(x) if end else x, name="model")


@recipe()
def colliding_names() -> keras.Model:
    return called_like_ours("softmax")


@recipe(outputs="logits")
def colliding_names_logits() -> keras.Model:
    return called_like_ours(None)


# What is no function of an image when it is called: it is drawn each time, or follows from the other images of the batch.


@recipe(is_function=False)
def mc_dropout() -> keras.Model:
    image = L.Input(SHAPE)
    x = L.Dropout(0.3, name="drawn")(trunk(image), training=True)
    return keras.Model(image, dense(x))


@recipe(is_function=False)
def noise_training() -> keras.Model:
    image = L.Input(SHAPE)
    return keras.Model(image, dense(trunk(L.GaussianNoise(0.1, name="noise")(image, training=True))))


@recipe(is_function=False)
def batchnorm_training() -> keras.Model:
    image = L.Input(SHAPE)
    return keras.Model(image, dense(L.BatchNormalization(name="of_the_batch")(trunk(image), training=True)))
