"""How many gradients an adaptive rule needs, and how exact it is then: `python tests/benchmarks/rules.py --help`.

The product's rule, with settings of its own and as it was, beside the trials that lost (trials.py). Three networks are trained
for the comparison: the notebook's (BatchNorm), a plain one without, and one of another school (residual, swish, GroupNorm). Rows
are random by --seed; the defaults of the product were chosen on other rows, those of seed 11.
"""

import tasks.process.start_tensorflow  # noqa: F401  isort: skip  # before what imports TensorFlow

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from exact import Integrals, relative_errors
from subject import default_dataset
from tasks.config import DatasetConfig
from tasks.datasets import prepare, read_rows
from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.network.compiled import Compiled
from tasks.numerics.network.scores import score_model
from tasks.numerics.quadrature import Adaptive, Tolerances
from trials import ClenshawCurtis, Trial

sys.path.append(str(Path(__file__).resolve().parents[1] / "setup"))

from slow_integrals import integrate

RULES = {
    "the product's": Adaptive(),
    "the same from 16 nodes, fraction 0.7": Adaptive(n_start=8, refine_fraction=0.7),
    "the same from 4 nodes": Adaptive(n_start=2),
    "exponent 2": Adaptive(exponent=2),
    "exponent 4": Adaptive(exponent=4),
    "every claim halved (fraction 1)": Adaptive(refine_fraction=1),
    "Simpson": Trial(result="simpson"),
    "completed panel by panel": Trial(result="complete"),
    "trapezoid in a": Trial(variable="a"),
    "claims of what fails": Trial(claims="failing"),
    "Clenshaw-Curtis in u": ClenshawCurtis(),
    "Clenshaw-Curtis in a": ClenshawCurtis(exponent=1),
}
MOST_TRAINED = 20_000


def plain(shape: tuple[int, int, int], n_classes: int) -> keras.Model:
    """Two convolutions with pooling, without normalisation."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(n_classes, activation="softmax"),
        ]
    )


def residual(shape: tuple[int, int, int], n_classes: int) -> keras.Model:
    """Three residual blocks with swish, GroupNorm and average pooling: smooth everywhere."""
    layers = keras.layers
    images = keras.Input(shape)
    x = layers.Conv2D(32, 3, padding="same")(images)
    for filters in (32, 64, 128):
        y = x
        for _ in range(2):
            y = layers.Activation("swish")(layers.GroupNormalization(8)(y))
            y = layers.Conv2D(filters, 3, padding="same")(y)
        x = layers.AveragePooling2D(2)(layers.Add()([layers.Conv2D(filters, 1)(x), y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(n_classes, activation="softmax")(x))


NETWORKS: dict[str, Callable[[tuple[int, int, int], int], keras.Model]] = {
    "notebook": build_cnn,
    "plain": plain,
    "residual": residual,
}


def main(
    dataset: Annotated[
        str | None, typer.Option(help="Dataset, as in `nightlens run`; Fashion-MNIST if it is there, else digits.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Where the dataset is prepared.")] = Path("nightlens-data"),
    rows: Annotated[int, typer.Option(help="Random test rows, each compared with 1,500 midpoint nodes.")] = 48,
    epochs: int = 2,
    seed: int = 12,
) -> None:
    """Prints for each network what each rule costs and how exact it is, at the product's tolerances."""
    record = prepare(DatasetConfig(source=dataset or default_dataset()), root.absolute())
    train, train_labels = read_rows(record, "train", 0, min(record.n_train, MOST_TRAINED))
    pixels, labels = read_rows(record, "test", 0, record.n_test)
    chosen = np.sort(np.random.default_rng(seed).choice(record.n_test, min(rows, record.n_test), replace=False))
    images, targets = pixels[chosen].astype(np.float32) / 255, labels[chosen]
    console = Console(width=150)
    for name, build in NETWORKS.items():
        keras.utils.set_random_seed(1)
        network = build(record.shape, record.n_classes)
        network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        network.fit(train.astype(np.float32) / 255, train_labels, batch_size=64, epochs=epochs, verbose=0)
        accuracy = network.evaluate(pixels[:2000].astype(np.float32) / 255, labels[:2000], verbose=0)[1]
        title = f"{record.name}, {len(images)} rows (seed {seed}), {name} network, accuracy {accuracy:.2f}"
        console.print(compare(score_model(network, "probability"), images, targets, title))


def compare(model: keras.Model, images: NDArray[np.float32], targets: NDArray, title: str) -> Table:
    """A line a rule: cost, what it promises and what is true."""
    integrals = Integrals(model, images, targets)
    reference = integrals.midpoint(np.arange(len(images)))
    black = np.zeros_like(images)
    gradients = Compiled("gradients", target_gradients(model), 128)
    scores, black_scores = gradients(images, targets)[1], gradients(black, targets)[1]
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(
        (
            "rule",
            "gradients/image",
            "most",
            "converged",
            "|gap| p95",
            "max",
            "L2 median",
            "p95",
            "max",
            "> 1.5 reported",
        )
    ):
        table.add_column(column, justify="right" if number else "left")
    for name, rule in RULES.items():
        found = integrate(
            gradients, images, black, targets, scores, black_scores,
            rule=rule, tolerances=Tolerances(), batch_size=128,
        )  # fmt: skip
        error, gap = relative_errors(found.attribution, reference), abs(found.gap)
        figures = (np.quantile(gap, 0.95), gap.max(), np.median(error), np.quantile(error, 0.95), error.max())
        table.add_row(
            name,
            f"{found.n_gradients.mean():.1f}",
            f"{found.n_gradients.max()}",
            f"{found.converged.mean():.0%}",
            *(f"{figure:.3f}" for figure in figures),
            f"{(error > 1.5 * found.quadrature_error).mean():.1%}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
