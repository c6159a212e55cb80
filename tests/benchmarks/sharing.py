"""What is saved where passes of the network are shared: `python tests/benchmarks/sharing.py --help`.

Prediction, Grad-CAM and the gradient at the images, apart and in the one pass that a night makes of them; and the gradients
of two targets at the same points behind one way forward, which a night does not do.
"""

import tasks.process.start_tensorflow  # noqa: F401  isort: skip  # before what imports TensorFlow

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer
from rich.console import Console
from rich.table import Table

from contest import Spread
from subject import Subject, default_dataset, load_subject
from tasks.numerics.endpoint import CompiledEndpoint
from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.map_layers import find_layer, grad_cam
from tasks.numerics.network.scores import Network, score_model

Step = Callable[[], object]


def passes(subject: Subject) -> dict[str, Step]:
    """What is timed, each over all images at once, compiled."""
    model = score_model(subject.network, "probability")
    layer = find_layer(Network(subject.network), "auto").label
    n_classes = model.outputs[0].shape[1]
    images, targets = tf.constant(subject.images), tf.constant(subject.labels, tf.int32)
    other = tf.constant((subject.labels + 1) % n_classes, tf.int32)
    network = score_model(subject.network, "probability", layer=layer)
    scores, gradients = tf.function(model), tf.function(target_gradients(model))
    endpoint = CompiledEndpoint(subject.network, "probability", layer, len(subject.images))

    @tf.function
    def maps(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            activations, scores = network(images, training=False)
            score = tf.gather(scores, targets, batch_dims=1)
        return grad_cam(activations, tape.gradient(score, activations))

    @tf.function
    def both(images: tf.Tensor, targets: tf.Tensor, other: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(images)
            scores = model(images, training=False)
            one, two = (tf.gather(scores, each, batch_dims=1) for each in (targets, other))
        return tape.gradient(one, images), tape.gradient(two, images)

    return {
        "probabilities": lambda: scores(images).numpy(),
        "Grad-CAM": lambda: maps(images, targets).numpy(),
        "gradient": lambda: gradients(images, targets)[0].numpy(),
        "the three in one pass": lambda: endpoint(subject.images, subject.labels),
        "two targets behind one way forward": lambda: both(images, targets, other)[1].numpy(),
    }


def main(
    dataset: Annotated[
        str | None, typer.Option(help="As in `nightlens run`; Fashion-MNIST if it is there, else digits.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A .keras file. [default: the notebook's network, trained once under --root]")
    ] = None,
    root: Annotated[Path, typer.Option(help="Where dataset and model are kept.")] = Path("nightlens-data"),
    epochs: Annotated[int, typer.Option(help="Of the training, where there is no --model.")] = 2,
    rows: Annotated[int, typer.Option(help="Random test rows, in one call.")] = 256,
    repeats: int = 9,
    seed: int = 0,
) -> None:
    """Prints ms an image, each pass in its turn, and over a gradient."""
    subject = load_subject(dataset or default_dataset(), model, root, epochs=epochs, rows=rows, seed=seed)
    steps = passes(subject)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if repeat:  # the first call sets things up
                seconds[name].append(time.perf_counter() - began)
    table = Table(title=f"{subject.record.name}, {len(subject.images)} rows in a call", title_justify="left")
    for column in ("pass", "ms/image (least-most)", "gradients"):
        table.add_column(column, justify="left" if column == "pass" else "right")
    gradient = float(np.median(seconds["gradient"]))
    for name, each in seconds.items():
        spread = Spread.of(each, 1e3 / len(subject.images))
        table.add_row(name, str(spread), f"{np.median(each) / gradient:.2f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    typer.run(main)
