"""Ingest: whatever the source, a prepared dataset and its page in the UI."""

import tempfile
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from prefect import task
from prefect.logging import get_run_logger

from storage.file.disk.durable import make_folder
from storage.file.disk.lock import refuse_without_locks
from tasks.config import DatasetConfig
from tasks.datasets import Dataset, prepare, read_rows
from tasks.night.progress import Progress, report
from tasks.pages.figures.page_figures import grid_figure
from tasks.pages.page import Page, escape

__all__ = ["check_root", "ingest"]

GRID_IMAGES = 25


def check_root(root: Path) -> Path:
    """The folder of everything, made if it is missing, absolute.

    Raises OSError if it cannot be made or written to, or its file system has no locks.
    """
    root = root.expanduser().absolute()
    try:
        tempfile.TemporaryFile(dir=make_folder(root)).close()
    except OSError as error:
        raise OSError(
            error.errno,
            f"the root {root} cannot be written to ({error.strerror}); choose another with --root or run.root",
        ) from None
    refuse_without_locks(root, root)
    return root


@task(name="ingest")
def ingest(config: DatasetConfig, root: Path, input_shape: tuple[int | None, ...] | None = None) -> Dataset:
    """The prepared dataset; what is in it, with the notebook's 5x5 grid of training images, as the artifact `dataset`.

    input_shape: (y, x, channel) that a given model takes, None in it for any size; transform auto follows it.
    Raises DatasetError, before anything is written, if the source is not a dataset that can be used.
    """
    dataset = prepare(config, root, input_shape, _report)
    get_run_logger().info(
        "dataset %s %s: %d training and %d test images of %s, %s",
        dataset.name, dataset.version, dataset.n_train, dataset.n_test, dataset.shape, dataset.transform,
    )  # fmt: skip
    for warning in dataset.warnings:
        get_run_logger().warning("dataset %s: %s", dataset.name, warning)
    _publish(dataset)
    return dataset


def _report(what: str, done: int, total: int, seconds: float) -> None:
    report(Progress(stage="ingest", done=done, total=total, unit="images", images=done, seconds=seconds, note=what))


def _training_images(dataset: Dataset) -> Figure:
    images, labels = read_rows(dataset, "train", 0, min(GRID_IMAGES, dataset.n_train))
    return grid_figure(images, [dataset.class_names[label] for label in labels], title="Training images")


def _publish(dataset: Dataset) -> None:
    page = Page("dataset", "Look for rare classes and images that look wrong: what the night works on.")
    page.heading(f"Dataset {dataset.name}")
    facts = {
        "version": dataset.version,
        "source": dataset.source,
        "training images": f"{dataset.n_train:,} ({dataset.train_split})",
        "test images": f"{dataset.n_test:,} ({dataset.test_split})",
        "shape": f"{dataset.shape} (y, x, channel), uint8",
        "transform": dataset.transform,
        "order of classes": dataset.class_order,
        "fingerprint": f"sha256 {dataset.sha256}",
        "prepared in": dataset.directory,
    }
    page.table([{"what": what, "value": value} for what, value in facts.items()])
    for warning in dataset.warnings:
        page.text(f"**Warning:** {escape(warning)}")
    page.figure(partial(_training_images, dataset), "25 training images with their classes", thumbnail=True)
    page.heading("Images per class", level=3)
    counts = zip(dataset.class_names, dataset.train_counts, dataset.test_counts, strict=True)
    page.table([{"class": name, "training": train, "test": test} for name, train, test in counts])
    page.publish()
