"""What is explained in a benchmark: random rows of a dataset's test split, and a network that knows the dataset."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from prefect.logging import disable_run_logger

from tasks.config import DatasetConfig, ModelConfig
from tasks.datasets import Dataset, prepare, read_rows
from tasks.models.registry import load_model
from tasks.night.progress import Progress, listening
from tasks.train import obtain_model

__all__ = ["Subject", "default_dataset", "given_or_trained", "load_subject"]

FASHION_MNIST = Path("../shared/data/fashion_mnist.npz")


@dataclass(frozen=True)
class Subject:
    """images: float32 (row, y, x, channel) in 0..1; labels: (row,); in random order, so the first few are a sample, too."""

    record: Dataset
    model: Path
    network: keras.Model
    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def default_dataset() -> str:
    """Fashion-MNIST where it lies beside the repository, else the embedded digits."""
    return str(FASHION_MNIST) if FASHION_MNIST.is_file() else "digits"


def given_or_trained(model: Path | None, record: Dataset, root: Path, epochs: int) -> Path:
    """The model's file: the one given, or the notebook's network, trained once and found again in <root>/models."""
    if model is not None:
        return model

    def tell(progress: Progress) -> None:
        if progress.total and progress.done % (progress.total // epochs) == 0:
            print(
                f"training: {progress.done // (progress.total // epochs)} of {epochs} epochs {progress.note}",
                flush=True,
            )

    with disable_run_logger(), listening(tell):
        found, was_there = obtain_model(ModelConfig(epochs=epochs), record, root / "models")
    print(
        f"model {found.path.name}, {'there already' if was_there else f'trained in {found.seconds:.0f} s'}", flush=True
    )
    return found.path


def load_subject(dataset: str, model: Path | None, root: Path, *, epochs: int, rows: int, seed: int) -> Subject:
    """rows: at most so many of the test split, drawn without replacement."""
    record = prepare(DatasetConfig(source=dataset), root.absolute())
    path = given_or_trained(model, record, root, epochs)
    chosen = np.random.default_rng(seed).permutation(record.n_test)[:rows]
    order = np.argsort(chosen)
    pixels = np.empty((len(chosen), *record.shape), np.uint8)
    labels = np.empty(len(chosen), np.int64)
    for start in range(0, record.n_test, 2048):
        here = order[(chosen[order] >= start) & (chosen[order] < start + 2048)]
        if len(here):
            some, known = read_rows(record, "test", start, min(start + 2048, record.n_test))
            pixels[here], labels[here] = some[chosen[here] - start], known[chosen[here] - start]
    return Subject(record, path, load_model(path), pixels.astype(np.float32) / 255, labels)
