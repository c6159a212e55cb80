"""The notebook's convolutional network and its training pipeline.

Three blocks of [Conv 3x3 same ReLU, BatchNorm] x 2 and MaxPool 2 with 32, 64 and 128 filters, then Flatten,
Dropout 0.2, Dense 1024 ReLU, Dropout 0.2, Dense softmax: 2,397,226 parameters at 32x32x3 and 10 classes, 896 of them
not trainable. Inputs are float32 in 0..1 (the uint8 image / 255).
"""

import math

import keras
import tensorflow as tf

__all__ = ["build_cnn", "count_parameters", "to_input", "training_batches", "validation_batches"]

FILTERS = (32, 64, 128)
DROPOUT = 0.2
HIDDEN_UNITS = 1024
CACHED_BYTES = 2 * 2**30  # training images up to this size are kept in memory, larger sets are read every epoch
SHUFFLED_IMAGES = 50_000


def build_cnn(shape: tuple[int, int, int], n_classes: int) -> keras.Model:
    """The notebook's network, compiled with Adam and sparse categorical cross-entropy.

    shape: (y, x, channel) of the input; y and x at least 8, for three poolings.
    Raises ValueError if an image is too small to be pooled three times.
    """
    if min(shape[:2]) < 2 ** len(FILTERS):
        raise ValueError(f"the network pools {len(FILTERS)} times and needs images of at least 8x8 pixels, got {shape}")
    images = x = keras.Input(shape, name="Input_Layer")
    for block, filters in enumerate(FILTERS, start=1):
        for layer in (1, 2):
            name = f"Block{block}_Layer{layer}"
            x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"Conv2D_{name}")(x)
            x = keras.layers.BatchNormalization(name=f"BatchNorm_{name}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"MaxPool_Block{block}")(x)
    x = keras.layers.Flatten(name="Flatten")(x)
    x = keras.layers.Dropout(DROPOUT, name="Dropout_Flatten")(x)
    x = keras.layers.Dense(HIDDEN_UNITS, activation="relu", name="Dense_Hidden")(x)
    x = keras.layers.Dropout(DROPOUT, name="Dropout_Hidden")(x)
    model = keras.Model(images, keras.layers.Dense(n_classes, activation="softmax", name="Output_Layer")(x))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def count_parameters(shape: tuple[int, int, int], n_classes: int) -> int:
    """The parameters of `build_cnn`, without building it. All but a few are between the last map and the hidden layer."""
    y, x, n_channels = shape
    kernels, biases, before = 0, 0, n_channels
    for filters in FILTERS:
        kernels += 9 * filters * (before + filters)
        biases += 2 * filters * (1 + 4)  # a bias, and four numbers of each batch normalisation
        before = filters
    flat = (y // 2 ** len(FILTERS)) * (x // 2 ** len(FILTERS)) * before
    return kernels + biases + HIDDEN_UNITS * (flat + 1) + n_classes * (HIDDEN_UNITS + 1)


def to_input(images: tf.Tensor) -> tf.Tensor:
    """The model's input from stored images: float32 in 0..1. images: uint8 (..., y, x, channel)."""
    return tf.cast(images, tf.float32) / 255.0


def training_batches(
    images: tf.data.Dataset, *, n: int, shape: tuple[int, ...], batch_size: int, shift: float, flip: bool, seed: int
) -> tf.data.Dataset:
    """Shuffled, augmented batches of (float32 image, label) for one epoch; every epoch is shuffled and augmented anew.

    images: elements of (uint8 image, int64 label) in a fixed order; n: how many.
    The augmentation runs in one thread: its random state advances batch by batch, so a seed gives the same images.
    """
    augment = keras.Sequential([keras.Input(shape), keras.layers.RandomTranslation(shift, shift, "nearest", seed=seed)])
    if flip:
        augment.add(keras.layers.RandomFlip("horizontal", seed=seed + 1))
    image_bytes = math.prod(shape)
    if n * image_bytes <= CACHED_BYTES:
        images = images.cache()
    return (
        images.shuffle(min(n, SHUFFLED_IMAGES, CACHED_BYTES // image_bytes), seed=seed)
        .batch(batch_size)
        .map(lambda batch, labels: (augment(to_input(batch), training=True), labels))
        .prefetch(2)
    )


def validation_batches(images: tf.data.Dataset, *, batch_size: int) -> tf.data.Dataset:
    """Batches of (float32 image, label) in the given order, not augmented."""
    return images.batch(batch_size).map(lambda batch, labels: (to_input(batch), labels)).prefetch(2)
