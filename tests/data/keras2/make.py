"""Makes the files beside it with tf_keras, Keras 2's own code, and what that code says about them: `python make.py`.

It needs `pip install tf_keras`, which nightlens does not. outputs.npz holds the images of each input shape and, for each
file, what Keras 2 gives for them.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
import h5py
import numpy as np
import tensorflow as tf
import tf_keras as keras

L = keras.layers
SHAPE = (8, 8, 3)
HERE = Path(__file__).parent
MAKERS: dict[str, Callable[[], keras.Model]] = {}


def file(name: str) -> Callable:
    """Names the file that a function's model is written to."""

    def add(make: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        MAKERS[name] = make
        return make

    return add


def head(x: tf.Tensor, n: int = 4, activation: str | None = "softmax") -> tf.Tensor:
    return L.Dense(n, activation=activation)(L.GlobalAveragePooling2D()(x))


@file("teachable.h5")
def teachable() -> keras.Model:
    """Sequentials in a Sequential, with DepthwiseConv2D and ReLU(6), as Teachable Machine exports its MobileNet."""
    features = keras.Sequential(
        [
            L.Input(SHAPE),
            L.ZeroPadding2D(((0, 1), (0, 1))),
            L.Conv2D(4, 3, strides=2, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(6.0),
            L.DepthwiseConv2D(3, use_bias=False, padding="same"),
            L.BatchNormalization(),
            L.Conv2D(4, 1),
        ]
    )
    classify = keras.Sequential([L.Dense(5, activation="relu"), L.Dense(4, activation="softmax", use_bias=False)])
    return keras.Sequential([keras.Sequential([L.Input(SHAPE), features, L.GlobalAveragePooling2D()]), classify])


def nested(preprocess: Callable | None = None) -> keras.Model:
    """A backbone half of which is frozen, so that its weights are written in another order than its layers."""
    x = b = L.Input((None, None, 3))
    for k in range(3):
        x = L.BatchNormalization(name=f"bn{k}")(L.Conv2D(3, 3, padding="same", name=f"conv{k}")(x))
    backbone = keras.Model(b, x, name="backbone")
    for layer in backbone.layers[:4]:
        layer.trainable = False
    i = L.Input(SHAPE)
    x = backbone(preprocess(i) if preprocess else i, training=False)
    return keras.Model(i, head(L.Dropout(0.2)(x)))


file("nested.h5")(nested)
file("nested.keras")(nested)


@file("frozen.h5")
def frozen() -> keras.Model:
    model = nested()
    model.get_layer("backbone").trainable = False
    return model


def preprocessed(preprocess: Callable) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        i = L.Input(SHAPE)
        return keras.Model(i, head(L.Conv2D(3, 3, activation="relu")(preprocess(i))))

    return make


file("tf_mode.h5")(preprocessed(keras.applications.mobilenet_v2.preprocess_input))
file("caffe_mode.h5")(preprocessed(keras.applications.resnet.preprocess_input))
file("torch_mode.h5")(preprocessed(keras.applications.densenet.preprocess_input))
file("tf_mode.keras")(lambda: nested(keras.applications.mobilenet_v2.preprocess_input))


@file("operations.h5")
def operations() -> keras.Model:
    """Calls of TensorFlow's functions and of Python's operators, as tutorials leave them in a model."""
    i = L.Input(SHAPE)
    x = tf.cast(i, tf.float32) / 255.0
    x = (1.0 - x) * 2.0 + 0.5 - x**2
    x = tf.image.resize(x, (10, 10))
    a, b = L.Conv2D(4, 3, padding="same")(x), L.Conv2D(4, 3, padding="same")(x)
    x = tf.concat([tf.nn.relu(a), tf.nn.relu6(b), tf.nn.leaky_relu(a, alpha=0.1), a * tf.sigmoid(b)], axis=-1)
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])[:, 1:-1, 1:, :8]
    x = tf.nn.bias_add(x, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    x = tf.transpose(tf.clip_by_value(x, 0.0, 3.0), [0, 2, 1, 3])
    x = tf.maximum(x, tf.reduce_mean(x, axis=[1, 2], keepdims=True)) + tf.abs(-x) + tf.sqrt(tf.square(x) + 1.0)
    y = tf.reduce_max(tf.reshape(x, (-1, 110, 8)), axis=1)
    z = tf.squeeze(tf.expand_dims(tf.reduce_sum(tf.stack([y, 2.0 * y], axis=1), axis=1), -1), axis=-1)
    return keras.Model(i, tf.nn.softmax(L.Dense(4)(z / tf.reduce_max(z, axis=-1, keepdims=True))))


@file("operations.keras")
def operations_v3() -> keras.Model:
    return operations()


@file("layers.h5")
def layers() -> keras.Model:
    """Layers and activations that are called or that mean something else in Keras 3."""
    i = L.Input(SHAPE)
    x = L.SeparableConv2D(4, 3, padding="same", activation="hard_sigmoid", name="block/separable")(i)
    x = L.LeakyReLU(alpha=0.2)(L.BatchNormalization(name="block/bn")(x))
    x = L.PReLU(shared_axes=[1, 2])(L.Conv2D(4, 3, activation=tf.nn.swish)(x))
    x = L.experimental.SyncBatchNormalization()(x)
    x = L.ThresholdedReLU(theta=0.01)(L.Conv2DTranspose(3, 2, strides=2, activation=L.LeakyReLU(0.1))(x))
    x = L.Activation(tf.nn.relu6)(L.UpSampling2D(2, interpolation="bilinear")(x))
    return keras.Model(i, head(x, activation=tf.nn.softmax))


@file("layers.keras")
def layers_v3() -> keras.Model:
    return layers()


@file("preprocessing.h5")
def preprocessing() -> keras.Model:
    normalization = L.Normalization(axis=-1)
    normalization.adapt(np.random.default_rng(1).uniform(0, 255, (40, *SHAPE)).astype("f4"))
    return keras.Sequential(
        [
            L.Input(SHAPE),
            L.RandomFlip("horizontal"),
            L.RandomRotation(0.1),
            L.RandomZoom(0.1),
            L.experimental.preprocessing.Resizing(12, 12),
            L.experimental.preprocessing.Rescaling(1 / 127.5, offset=-1),
            normalization,
            L.CenterCrop(10, 10),
            L.Conv2D(3, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(4),
        ]
    )


@file("preprocessing.keras")
def preprocessing_v3() -> keras.Model:
    return preprocessing()


@file("sequences.h5")
def sequences() -> keras.Model:
    """Rows of pixels as a sequence: recurrent layers, attention, wrappers."""
    i = L.Input(SHAPE)
    x = L.TimeDistributed(L.Dense(4, activation="relu"))(L.Reshape((8, 24))(i))
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    x = L.LayerNormalization()(L.MultiHeadAttention(2, 3)(x, x) + x)
    return keras.Model(i, L.Dense(4, activation="softmax")(L.GRU(4, recurrent_activation="hard_sigmoid")(x)))


@file("sequences.keras")
def sequences_v3() -> keras.Model:
    return sequences()


@file("twins.h5")
def twins() -> keras.Model:
    """Branches of the same shapes, a layer called twice, and two backbones, met in another order than they were made."""
    i = L.Input(SHAPE)
    shared = L.Conv2D(3, 3, padding="same", name="shared")
    backbones = []
    for k in range(2):
        b = L.Input(SHAPE)
        backbones.append(keras.Model(b, L.Conv2D(3, 3, padding="same", name=f"conv{k}")(b), name=f"backbone{k}"))
    b = L.Input(SHAPE)
    pair = keras.Model(b, L.Subtract()([backbones[1](b), backbones[0](b)]), name="pair")
    late, early = L.Conv2D(3, 3, padding="same", name="a"), L.Conv2D(3, 3, padding="same", name="b")
    x = L.Concatenate()([early(i), shared(late(i)), shared(pair(i))])
    return keras.Model(i, head(x))


@file("twins.keras")
def twins_v3() -> keras.Model:
    return twins()


@file("wrapper.h5")
def wrapper() -> keras.Model:
    """A whole classifier behind something, called twice; a Sequential gives the output."""
    b = L.Input((10, 10, 3))
    classifier = keras.Model(b, head(L.Conv2D(3, 3)(b)), name="classifier")
    i = L.Input(SHAPE)
    x = L.Concatenate()([classifier(L.ZeroPadding2D(1)(i)), classifier(L.Resizing(10, 10)(i))])
    return keras.Model(i, keras.Sequential([L.Input((8,)), L.Dense(4, activation="softmax")], name="last")(x))


@file("wrapper.keras")
def wrapper_v3() -> keras.Model:
    """A classifier that is called twice gives the output, by its first call; the other call has the same weights."""
    b = L.Input((10, 10, 3))
    classifier = keras.Model(b, head(L.Conv2D(3, 3)(b)), name="classifier")
    i = L.Input(SHAPE)
    first, second = classifier(L.ZeroPadding2D(1)(i)), classifier(L.Resizing(10, 10)(i))
    return keras.Model(i, [first, second])


@file("mixed.h5")
def mixed() -> keras.Model:
    """mixed_float16: dtypes are policies."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    i = L.Input(SHAPE)
    x = L.Conv2D(4, 3, activation="relu")(i / 255.0)
    model = keras.Model(i, L.Activation("softmax", dtype="float32")(head(x, activation=None)))
    keras.mixed_precision.set_global_policy("float32")
    return model


@file("named.h5")
def named() -> keras.Model:
    """Inputs and outputs as dicts."""
    i = L.Input(SHAPE, name="image")
    return keras.Model({"image": i}, {"probs": head(L.Conv2D(3, 3)(i))})


@file("lambda.h5")
def with_lambda() -> keras.Model:
    i = L.Input(SHAPE)
    return keras.Model(i, head(L.Conv2D(3, 3)(L.Lambda(lambda x: x * 2, name="double")(i))))


@keras.utils.register_keras_serializable("mine")
class Squeeze(L.Layer):
    def call(self, inputs):
        return inputs * 2 - 1


@keras.utils.register_keras_serializable("mine")
def bent(x):
    return tf.where(x > 0, x, 0.3 * x)


@file("custom.h5")
def custom() -> keras.Model:
    i = L.Input(SHAPE)
    return keras.Model(i, head(L.Conv2D(3, 3, activation=bent)(Squeeze(name="squeeze")(i))))


@file("custom.keras")
def custom_v3() -> keras.Model:
    return custom()


@file("saved_model")
def saved() -> keras.Model:
    i = L.Input(SHAPE)
    return keras.Model(i, head(L.Conv2D(3, 3, activation="relu")(i / 255.0)))


@file("unknown.h5")
def unknown() -> keras.Model:
    """A function that Keras 3 is not helped with."""
    i = L.Input(SHAPE)
    return keras.Model(i, head(L.Conv2D(3, 3)(tf.math.bessel_i0(i / 255.0))))


@file("weights.h5")
def weights() -> keras.Model:
    return teachable()


def old_keras(path: Path) -> None:
    """Writes the configuration of sequential.h5 as Keras 2.1 did: a list, an older name, and no groups."""
    with h5py.File(path, "r+") as f:
        config = json.loads(f.attrs["model_config"])
        stack = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
        stack[0]["config"]["batch_input_shape"] = [None, *SHAPE]
        for layer in stack:
            for key in ("module", "registered_name", "build_config"):
                layer.pop(key, None)
            layer["config"].pop("groups", None)
        f.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": stack}).encode()
        f.attrs["keras_version"] = f["model_weights"].attrs["keras_version"] = b"2.1.6"


@file("old.h5")
def old() -> keras.Model:
    return keras.Sequential(
        [
            L.Conv2D(4, 3, activation="relu", input_shape=SHAPE),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dense(4, activation="hard_sigmoid"),
        ]
    )


def shake(model: keras.Model, rng: np.random.Generator) -> None:
    """Gives every weight a value of its own, biases and moving means too."""
    model.set_weights(
        [
            rng.uniform(0.5, 1.5, w.shape)
            if "variance" in v.name or "gamma" in v.name
            else rng.normal(0, 0.3, w.shape)
            if w.dtype.kind == "f"
            else w
            for v, w in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    for layer in model.layers:
        if isinstance(layer, L.Normalization):
            layer.finalize_state()


def soften(model: keras.Model, images: np.ndarray) -> None:
    """Makes the kernels smaller until no output is nearly 0 or 1, where every network looks like every other."""
    while np.max(answer(model, images)) > 0.9 and np.max(answer(model, images)) <= 1:
        for weight in model.weights:
            if "kernel" in weight.name:
                weight.assign(weight * 0.7)


def answer(model: keras.Model, images: np.ndarray) -> np.ndarray:
    given = model(images, training=False)
    if isinstance(given, list):
        return np.concatenate(given, axis=1)
    return np.asarray(given["probs"] if isinstance(given, dict) else given).astype("f4")


def write(model: keras.Model, path: Path) -> None:
    if path.name == "weights.h5":
        model.save_weights(path)
    elif path.name == "saved_model":
        shutil.rmtree(path, ignore_errors=True)
        model.save(path, save_format="tf", include_optimizer=False)
        (path / "keras_metadata.pb").unlink()
    else:
        model.save(path)
    if path.name == "old.h5":
        old_keras(path)
    if path.suffix == ".keras" and path.is_file():  # written without compression
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)


def main() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (5, *SHAPE)).astype("f4")
    outputs = {"images": images}
    for name, make in MAKERS.items():
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        model = make()
        model(images)  # builds what has no input of its own
        shake(model, rng)
        soften(model, images)
        write(model, HERE / name)
        outputs[name] = answer(model, images)
    np.savez_compressed(HERE / "outputs.npz", **outputs)


if __name__ == "__main__":
    main()
