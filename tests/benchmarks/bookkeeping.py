"""What the engine costs beside the gradients: whole calls less full compiled calls alone, on a network of one layer."""

import tasks.process.start_tensorflow  # noqa: F401  isort: skip  # before what imports TensorFlow

import time
from dataclasses import dataclass
from typing import Annotated

import keras
import numpy as np
import typer

from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.network.compiled import Compiled
from tasks.numerics.quadrature import Adaptive, Tolerances

SHAPES = ((8, 8, 1), (32, 32, 3))
SHARPNESS = 10.0
CALLS = 20


@dataclass(frozen=True)
class Bookkeeping:
    """Microseconds a gradient: of whole calls, of full compiled calls alone, and what the first take beyond the second."""

    gradients_per_row: float
    whole_us: float
    alone_us: float

    @property
    def beside_us(self) -> float:
        return self.whole_us - self.alone_us


def measure_bookkeeping(
    shape: tuple[int, int, int],
    rows: int = 2000,
    batch_size: int = 256,
    repeats: int = 7,
    sharpness: float = SHARPNESS,
) -> Bookkeeping:
    """The best of the repeats, taken in turns, on images (y, x, channel) of that shape."""
    keras.utils.set_random_seed(0)
    kernel = keras.initializers.RandomNormal(stddev=sharpness / np.sqrt(np.prod(shape)))
    dense = keras.layers.Dense(10, activation="softmax", kernel_initializer=kernel)
    network = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), dense])
    settings = Settings(score="probability", rule=Adaptive(), tolerances=Tolerances(), layer="", batch_size=batch_size)
    explainer = Explainer(network, settings)
    compiled = Compiled("gradients", target_gradients(explainer.model), batch_size)
    images = np.random.default_rng(1).random((rows, *shape), np.float32)
    black, targets = np.zeros_like(images), (np.arange(rows) % 10).astype(np.int32)
    endpoint = explainer.endpoint(images, targets)
    points, some = np.resize(images, (batch_size, *shape)) / 2, np.resize(targets, batch_size)
    explainer.integrated_gradients(images[:300], black[:300], targets[:300])
    compiled(points, some)
    whole, alone, n = [], [], 0
    for _ in range(repeats):
        began = time.perf_counter()
        result = explainer.integrated_gradients(images, black, targets, endpoint=endpoint)
        n = int(result.n_gradients.sum())
        whole.append((time.perf_counter() - began) / n)
        began = time.perf_counter()
        for _ in range(CALLS):
            compiled(points, some)
        alone.append((time.perf_counter() - began) / CALLS / batch_size)
    return Bookkeeping(n / rows, 1e6 * min(whole), 1e6 * min(alone))


def main(
    rows: int = 2000,
    batch_size: int = 256,
    repeats: int = 7,
    sharpness: Annotated[
        float, typer.Option(help="Of the network: the sharper, the more gradients a row.")
    ] = SHARPNESS,
) -> None:
    """Prints a line a shape."""
    for shape in SHAPES:
        found = measure_bookkeeping(shape, rows, batch_size, repeats, sharpness)
        print(
            f"{'x'.join(map(str, shape))}, {found.gradients_per_row:.1f} gradients a row: a gradient {found.whole_us:.1f} us, ",
            end="",
        )
        print(f"compiled alone {found.alone_us:.1f}, bookkeeping {found.beside_us:.1f}")


if __name__ == "__main__":
    typer.run(main)
