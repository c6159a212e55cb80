"""Models and images as people bring them, with what their owner gets: for tests that explain them and compare.

A trial is made when it is first asked for, and once a run of the tests; networks are tiny and trained for a second or two. See
trial_networks.RECIPES for what there is, and the fixture `trial_of` in conftest.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from storage.file.disk.lock import locked
from trial_images import Feed, Images, feeds, images
from trial_networks import RECIPES, Recipe

__all__ = ["FUNCTIONS", "NO_FUNCTIONS", "RECIPES", "Trial", "Trials"]

FUNCTIONS = tuple(name for name, recipe in RECIPES.items() if recipe.is_function)
NO_FUNCTIONS = tuple(name for name, recipe in RECIPES.items() if not recipe.is_function)
LEARNING_RATE, BATCH = 3e-3, 50
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Trial:
    """A model's file, images to try it on, and what its owner sees.

    model: a .keras file. dataset: an .npz in Keras's layout. outputs: (row, unit), the model's own of the test images, fed as
    it was trained. accuracy: of these. feed: how that is.
    """

    name: str
    recipe: Recipe
    model: Path
    dataset: Path
    feed: Feed
    outputs: NDArray[np.float32]
    accuracy: float

    @property
    def images(self) -> Images:
        return images(self.recipe.data)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(row, class): what the model says of each class; of independent outputs they need not sum to 1."""
        return probabilities(self.recipe, self.outputs)

    def accuracy_fed(self, feed: Feed) -> float:
        """What becomes of the accuracy if the model is fed otherwise."""
        return accuracy(
            self.recipe, answers(keras.models.load_model(self.model), self.recipe, feed), self.images.y_test
        )


class Trials:
    """Trials by name, each made once, in a folder that processes may share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Trial] = {}

    def __call__(self, name: str) -> Trial:
        if name not in self._read:
            recipe = RECIPES[name]
            dataset = self._once(f"{recipe.data}.npz", lambda path: np.savez(path, **vars(images(recipe.data))))
            found = self._once(f"{name}.npy", lambda path: self._make(recipe, path))
            outputs = np.load(found)
            right = accuracy(recipe, outputs, images(recipe.data).y_test)
            self._read[name] = Trial(
                name, recipe, found.with_suffix(".keras"), dataset, feeds()[recipe.feed], outputs, right
            )
        return self._read[name]

    def _once(self, name: str, make: Callable[[Path], object]) -> Path:
        """The file of that name, made by whichever process is the first to need it."""
        path = self._folder / name
        with locked(path.with_suffix(f"{path.suffix}.lock"), f"making {name}", patience_s=PATIENCE_S):
            if not path.exists():
                make(path)
        return path

    def _make(self, recipe: Recipe, path: Path) -> None:
        """Trains a network and saves it, and then its outputs, whose file says that it is whole."""
        shown, feed = images(recipe.data), feeds()[recipe.feed]
        keras.utils.set_random_seed(0)
        model = recipe.build()
        train(model, recipe, shown, feed)
        model.save(path.with_suffix(".keras"))
        np.save(path, answers(model, recipe, feed))


def train(model: keras.Model, recipe: Recipe, shown: Images, feed: Feed) -> None:
    is_logit = recipe.outputs in ("logits", "logit")
    x, y = fed(recipe, feed, shown.x_train), shown.y_train
    if recipe.outputs in ("sigmoid", "logit", "independent"):
        loss: Any = keras.losses.BinaryCrossentropy(from_logits=is_logit)
        y = np.eye(10, dtype=np.float32)[y] if recipe.outputs == "independent" else y
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=is_logit)
    if recipe.names:
        loss, y = {recipe.names[1]: loss}, {recipe.names[1]: y}
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, jit_compile=False)
    model.fit(x, y, epochs=recipe.epochs, batch_size=BATCH, verbose=0)


def fed(recipe: Recipe, feed: Feed, x: NDArray[np.uint8]) -> Any:
    given = feed(x).round().astype(np.uint8) if recipe.dtype == "uint8" else feed(x)
    return {recipe.names[0]: given} if recipe.names else given


def answers(model: keras.Model, recipe: Recipe, feed: Feed) -> NDArray[np.float32]:
    """The model's own outputs for the test images, (row, unit)."""
    outputs = model.predict(fed(recipe, feed, images(recipe.data).x_test), batch_size=BATCH, verbose=0)
    return outputs[recipe.names[1]] if recipe.names else outputs


def probabilities(recipe: Recipe, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    values = outputs.astype(np.float64)
    if recipe.outputs == "logits":
        values = np.exp(values - values.max(1, keepdims=True))
        return values / values.sum(1, keepdims=True)
    if recipe.outputs == "logit":
        values = np.exp(-np.logaddexp(0, -values))
    return np.concatenate([1 - values, values], 1) if recipe.outputs in ("sigmoid", "logit") else values


def accuracy(recipe: Recipe, outputs: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    return float((probabilities(recipe, outputs).argmax(1) == y).mean())
