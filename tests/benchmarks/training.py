"""What a step of training takes, Keras's own and ours, in turn: `python tests/benchmarks/training.py --help`.

The notebook's network on random images and labels. Processor time is of all threads together; other work on the machine weighs
less on it than on the time that passes.
"""

import tasks.process.start_tensorflow  # noqa: F401  isort: skip  # before what imports TensorFlow

import time
from statistics import median
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
import typer
from rich.console import Console
from rich.table import Table

from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.network.training_network import TrainingNetwork

N_CLASSES = 10


def timed_epoch(network: keras.Model, batches: tf.data.Dataset, n_steps: int) -> tuple[float, float]:
    """Milliseconds a step that passed, and of the processors."""
    passed, processors = time.perf_counter(), time.process_time()
    network.fit(batches, epochs=1, verbose=0, shuffle=False)
    return 1e3 * (time.perf_counter() - passed) / n_steps, 1e3 * (time.process_time() - processors) / n_steps


def main(
    batch: Annotated[int, typer.Option(help="Images in a step.")] = 32,
    size: Annotated[int, typer.Option(help="Pixels of a side, three channels.")] = 32,
    steps: Annotated[int, typer.Option(help="In an epoch.")] = 40,
    repeats: Annotated[int, typer.Option(help="Epochs of each, in turn, after one that compiles.")] = 8,
) -> None:
    """Prints the least and the median milliseconds of a step."""
    shape, rng = (size, size, 3), np.random.default_rng(0)
    images = rng.random((batch * steps, *shape), np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, rng.integers(0, N_CLASSES, len(images)))).batch(batch)
    networks = {"Keras": build_cnn(shape, N_CLASSES), "ours": TrainingNetwork(build_cnn(shape, N_CLASSES), batch)}
    compiling = {name: timed_epoch(network, batches, steps)[0] * steps / 1e3 for name, network in networks.items()}
    found = {name: [] for name in networks}
    for _ in range(repeats):
        for name, network in networks.items():
            found[name].append(timed_epoch(network, batches, steps))
    table = Table(title=f"A step of {batch} images {shape}", title_justify="left")
    for column in ("training", "ms, least", "median", "ms of the processors, least", "median", "first epoch, s"):
        table.add_column(column, justify="left" if column == "training" else "right")
    for name, times in found.items():
        cells = [f"{statistic(column):.1f}" for column in zip(*times, strict=True) for statistic in (min, median)]
        table.add_row(name, *cells, f"{compiling[name]:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
