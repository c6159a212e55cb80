"""Keras by our own settings, whatever the environment says: TensorFlow's Keras 3, float32, channels last, no debugging limits.

Keras takes its backend, precision, layout of images and limits on a training from variables and from keras.json in KERAS_HOME
or ~/.keras, when it is imported; a night's numbers must not depend on them. So this is the first that importing anything of
`tasks` does, in the command, in a flow under a worker and in the workers of a cluster; processes that they start inherit it.
"""

import os
import sys
from typing import Any

__all__ = ["use_own_settings"]

BACKEND = "tensorflow"
# Below no folder: there is no keras.json, and none can be written.
NO_HOME = os.path.join(os.devnull, "keras")
OTHERS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED", "TF_USE_LEGACY_KERAS")


def use_own_settings() -> None:
    """Sets the environment for Keras to be imported with; where it was imported before us, sets it right.

    Raises ImportError if Keras was imported with another backend, which cannot be changed.
    """
    os.environ |= {"KERAS_BACKEND": BACKEND, "KERAS_HOME": NO_HOME}
    for name in OTHERS:
        os.environ.pop(name, None)
    if keras := sys.modules.get("keras"):
        _correct(keras)


def _correct(keras: Any) -> None:
    if (backend := keras.config.backend()) != BACKEND:
        raise ImportError(
            f"nightlens: expected Keras on {BACKEND}, but this process has imported it on {backend} before; import nightlens "
            f"first, or set KERAS_BACKEND={BACKEND}"
        )
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
