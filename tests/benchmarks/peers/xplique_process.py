"""xplique's Integrated Gradients, by the trapezoid, its only rule, on a network built in Keras from the layers that it is given.

Of N nodes the first is black and the last the image. A batch is one of gradients, and takes as many whole rows as fit.
"""

from importlib.metadata import version
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from answering import answer
from xplique.attributions import IntegratedGradients

BATCH_SIZES = (64, 128, 256, 512, 1024)


class XpliqueEngine:
    rule = "trapezoid"

    def __init__(self, layers: list[dict[str, Any]]):
        cards = tf.config.list_physical_devices("GPU")
        for card in cards:
            tf.config.experimental.set_memory_growth(card, True)  # others compute on it, too
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.versions = f"xplique {version('xplique')}, tensorflow {tf.__version__} on {'cuda' if cards else 'cpu'}"
        self.ways = tuple(map(str, BATCH_SIZES))
        self.model = keras.Sequential([keras.Input(layers[0]["shape"]), *(layer_of(**layer) for layer in layers)])
        for built, layer in zip(self.model.layers, layers, strict=True):
            for variable in built.weights:
                variable.assign(layer["weights"][variable.name])
        self._explainers: dict[tuple[int, str], IntegratedGradients] = {}

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        return self.model(images, training=False).numpy()

    def explain(self, images: np.ndarray, targets: np.ndarray, n_nodes: int, way: str) -> np.ndarray:
        if (n_nodes, way) not in self._explainers:
            self._explainers[n_nodes, way] = IntegratedGradients(
                self.model, steps=n_nodes, batch_size=int(way), baseline_value=0.0, reducer=None
            )
        chosen = np.eye(self.model.output_shape[-1], dtype=np.float32)[targets]
        return self._explainers[n_nodes, way].explain(images, chosen).numpy()


def layer_of(kind: str, shape: list[int], settings: dict[str, Any], weights: dict[str, np.ndarray]) -> keras.Layer:
    """The layer of Keras that was described, without its weights."""
    if kind == "Conv2D":
        size, filters = weights["kernel"].shape[:2], weights["kernel"].shape[3]
        return keras.layers.Conv2D(filters, size, use_bias="bias" in weights, **settings)
    if kind == "Dense":
        return keras.layers.Dense(weights["kernel"].shape[1], use_bias="bias" in weights, **settings)
    if kind == "BatchNormalization":
        return keras.layers.BatchNormalization(center="beta" in weights, scale="gamma" in weights, **settings)
    if kind == "Affine":
        return keras.layers.Rescaling(weights["scale"].tolist(), weights["offset"].tolist())
    if kind in ("MaxPooling2D", "Flatten", "Activation"):
        return getattr(keras.layers, kind)(**settings)
    raise ValueError(f"expected a layer that is known here, got {kind}")


if __name__ == "__main__":
    answer(XpliqueEngine)
