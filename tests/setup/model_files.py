"""Files of models as others write them, what their networks give, and how one that cannot be loaded is refused.

The files under tests/data/keras2 are of Keras 2's own code, as outputs.npz is, which says what that code gives for them.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

from places import DATA
from tasks.models import ModelError, load_model

KERAS2 = DATA / "keras2"
OUTPUTS = np.load(KERAS2 / "outputs.npz")
IMAGES = OUTPUTS["images"]
REFUSED = ("lambda.h5", "custom.h5", "custom.keras", "unknown.h5", "weights.h5")
LOADED = [name for name in OUTPUTS.files if name not in ("images", *REFUSED)]
TOLERANCE = {"mixed.h5": 1e-3}  # computed by Keras 2 in half precision
MINE = """
import keras

@keras.saving.register_keras_serializable("mine")
class Squeeze(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2 - 1

def bent(x):
    return keras.ops.where(x > 0, x, 0.3 * x)

class Net(keras.Model):
    def __init__(self, width=3, **options):
        super().__init__(**options)
        self.width = width
        self.features = keras.layers.Conv2D(width, 3)
        self.verdict = keras.layers.Dense(4, activation="softmax")

    def call(self, images):
        return self.verdict(keras.ops.mean(self.features(images), axis=(1, 2)))

    def get_config(self):
        return super().get_config() | {"width": self.width}
"""


def outputs_of(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    is_named = not isinstance(model, keras.Sequential) and isinstance(model.input, dict)
    given = model({"image": images} if is_named else images, training=False)
    if isinstance(given, list):
        return np.concatenate(given, axis=1)
    return np.asarray(given["probs"] if isinstance(given, dict) else given)


def refusal(path: Path, code: Path | None = None) -> str:
    """The message for a model that cannot be loaded: one line, without what libraries print of their objects."""
    with pytest.raises(ModelError) as caught:
        load_model(path, code)
    message = str(caught.value)
    assert "\n" not in message and "<class" not in message and "{'" not in message and "..." not in message
    return message


def two_outputs() -> keras.Model:
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(images)
    return keras.Model(images, {"label": keras.layers.Dense(4)(flat), "box": keras.layers.Dense(2)(flat)})


def two_inputs() -> keras.Model:
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    return keras.Model([left, right], keras.layers.Flatten()(left + right))


def of_bytes() -> keras.Model:
    images = keras.Input((8, 8, 3), dtype="uint8")
    return keras.Model(images, keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images)))


# SavedModel folders.


def convolution(shape: tuple[int, ...] = (8, 8, 3)) -> keras.Model:
    keras.utils.set_random_seed(4)
    images = keras.Input(shape)
    x = keras.layers.Conv2D(3, 3, activation="tanh")(images)
    return keras.Model(images, keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x)))
