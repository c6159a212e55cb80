"""Train: a model that fits the dataset, reused from the registry or trained by the notebook's recipe."""

import math
import re
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import keras
from matplotlib.figure import Figure
from prefect import task
from prefect.logging import get_run_logger

from storage.file.disk.durable import make_folder
from storage.file.disk.lock import Owner, locked
from tasks.config import ModelConfig
from tasks.contract.establish import check_fit
from tasks.datasets import Dataset, stream
from tasks.models.registry import (
    ModelError,
    ModelRecord,
    find_model,
    list_models,
    load_model,
    read_record,
    save_model,
)
from tasks.night.progress import Progress, report
from tasks.numerics.network.cnn import build_cnn, training_batches, validation_batches
from tasks.numerics.network.training_network import TrainingNetwork
from tasks.pages.figures.page_figures import curves_figure, parameters_figure
from tasks.pages.page import Page
from tasks.parts.part_digest import settings_digest

__all__ = ["obtain_model", "train", "training_settings"]

EPOCHS = 15
DIGITS = ("digits", "mnist", "svhn_cropped", "binary_alpha_digits", "mnist_corrupted", "emnist", "kmnist")
VALIDATION_BATCH = 256


def training_settings(config: ModelConfig, dataset: Dataset) -> dict[str, float | int | bool]:
    """The settings that decide the weights, with the dataset's own defaults filled in."""
    flip = dataset.name.split("/")[0] not in DIGITS if config.flip is None else config.flip
    epochs = config.epochs or EPOCHS
    return {
        "epochs": epochs,
        "batch_size": config.batch_size,
        "shift": config.shift,
        "flip": flip,
        "seed": config.seed,
    }


def obtain_model(config: ModelConfig, dataset: Dataset, folder: Path) -> tuple[ModelRecord, bool]:
    """The model to explain, and whether it was there already.

    Raises ModelError if a given model does not fit the dataset.
    """
    if config.source not in ("auto", "train"):
        record = read_record(Path(config.source).expanduser(), config.code)
        check_fit(load_model(record.path, record.code), record, dataset)
        return record, True
    settings = training_settings(config, dataset)
    if config.source == "train":
        return train_model(settings, dataset, folder), False
    wanted = settings_digest([dataset.sha256, settings])[:16]
    # Another night that trains the same model is waited for.
    with locked(make_folder(folder) / f".{wanted}.lock", "training", patience_s=math.inf, on_wait=_waiting):
        known = find_model(folder, dataset_sha256=dataset.sha256, training=settings)
        return (known, True) if known else (train_model(settings, dataset, folder), False)


def _waiting(owner: Owner) -> None:
    get_run_logger().info("waiting for %s", owner)


class _Reporter(keras.callbacks.Callback):
    """Reports every epoch, and the steps within it about once a second."""

    def __init__(self, n_epochs: int, n_images: int, batch_size: int):
        super().__init__()
        self.n_epochs, self.n_images, self.batch_size = n_epochs, n_images, batch_size
        self.epoch, self.note, self.last_report = 0, "", 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if time.monotonic() - self.last_report > 1:
            self._tell(self.epoch, min((batch + 1) * self.batch_size, self.n_images))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        self.note = f"accuracy {logs['accuracy']:.3f}, validation {logs['val_accuracy']:.3f}"
        get_run_logger().info("epoch %d of %d: %s", epoch + 1, self.n_epochs, self.note)
        self._tell(epoch + 1, 0)

    def _tell(self, epochs_done: int, images: int) -> None:
        self.last_report = time.monotonic()
        n_total, n_done = self.n_epochs * self.n_images, epochs_done * self.n_images + images
        report(Progress(stage="train", done=n_done, total=n_total, images=n_done, unit="images", note=self.note))


def train_model(settings: dict[str, float | int | bool], dataset: Dataset, folder: Path) -> ModelRecord:
    """Trains the notebook's network by the notebook's recipe, validated on the test split, and registers it.

    The same settings on the same machine give the same weights. Raises ModelError if training diverges.
    """
    batch_size, seed, epochs = int(settings["batch_size"]), int(settings["seed"]), int(settings["epochs"])
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    model = build_cnn(dataset.shape, dataset.n_classes)
    batches = training_batches(
        stream(dataset, "train"),
        n=dataset.n_train,
        shape=dataset.shape,
        batch_size=batch_size,
        shift=float(settings["shift"]),
        flip=bool(settings["flip"]),
        seed=seed,
    )
    validation = validation_batches(stream(dataset, "test"), batch_size=VALIDATION_BATCH)
    callbacks = [_Reporter(epochs, dataset.n_train, batch_size), keras.callbacks.TerminateOnNaN()]
    # The batches come shuffled, and anew every epoch.
    fitted = TrainingNetwork(model, batch_size).fit(
        batches, validation_data=validation, epochs=epochs, verbose=0, callbacks=callbacks, shuffle=False
    )
    _refuse_diverged(fitted.history, epochs, dataset)
    now = datetime.now(UTC)
    digest = settings_digest([dataset.sha256, settings, now.isoformat()])[:8]
    record = ModelRecord(
        name=f"{re.sub(r'[^A-Za-z0-9.-]+', '-', dataset.name).strip('.-')}-cnn-{epochs}-epochs-{digest}",
        path=folder,
        sha256="",
        dataset_name=dataset.name,
        dataset_sha256=dataset.sha256,
        training=settings,
        history={name: [float(value) for value in values] for name, values in fitted.history.items()},
        n_parameters=model.count_params(),
        seconds=time.monotonic() - started,
        created_utc=now.isoformat(timespec="seconds"),
    )
    return save_model(model, folder, record)


def _refuse_diverged(history: dict[str, list[float]], n_epochs: int, dataset: Dataset) -> None:
    """Raises ModelError if a training ended early or a figure of it, such as the loss, is not finite: neither is JSON."""
    odd = [(name, epoch, value) for name, values in history.items() for epoch, value in enumerate(values, start=1)]
    odd = [(name, epoch, value) for name, epoch, value in odd if not math.isfinite(value)]
    if odd:
        name, epoch, value = min(odd, key=lambda figure: figure[1])
        reason = f"{name} is {value} in epoch {epoch} of {n_epochs}"
    elif len(history["loss"]) < n_epochs:
        reason = f"it ended after {len(history['loss'])} of {n_epochs} epochs"
    else:
        return
    raise ModelError(f"training on {dataset.name} diverged ({reason}); try another seed or batch size")


@task(name="train")
def train(config: ModelConfig, dataset: Dataset, folder: Path) -> ModelRecord:
    """The model to explain: loaded, reused, or trained; its summary and curves as the artifact `training`."""
    record, was_there = obtain_model(config, dataset, folder)
    get_run_logger().info("model %s: %s", record.name, "reused" if was_there else f"trained in {record.seconds:.0f} s")
    _publish(record, was_there, list_models(folder, get_run_logger().warning))
    return record


def _layers(model: keras.Model) -> Figure:
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.count_params()}
    return parameters_figure(list(counts), list(counts.values()))


def _publish(record: ModelRecord, was_there: bool, others: list[ModelRecord]) -> None:
    page = Page("training", "Look for validation curves that have flattened: the model that is explained.")
    page.heading(f"Model {record.name}")
    page.table(
        [
            {
                "what": "this night",
                "value": "reused or given" if was_there else f"trained in {record.seconds:.0f} s",
            },
            {"what": "file", "value": str(record.path)},
            {"what": "sha256", "value": record.sha256},
            {"what": "parameters", "value": f"{record.n_parameters:,}" if record.n_parameters else "see summary"},
            *({"what": name, "value": str(value)} for name, value in record.training.items()),
        ]
    )
    if record.history:
        page.figure(partial(curves_figure, record.history), "Accuracy and loss by epoch", thumbnail=True)
    page.heading("Layers", level=3)
    model, lines = load_model(record.path, record.code), list[str]()
    if not record.history:
        page.figure(partial(_layers, model), "Parameters of each layer", thumbnail=True)
    model.summary(line_length=96, print_fn=lambda line, **_: lines.append(line))
    page.code("\n".join(lines))
    others = [other for other in others if other.name != record.name]
    if others:
        page.heading("Other models in the registry", level=3)
        page.table(
            [
                {
                    "model": other.name,
                    "dataset": other.dataset_name,
                    "epochs": other.epochs,
                    "validation accuracy": f"{accuracies[-1]:.4f}" if accuracies else "unknown",
                    "trained": other.created_utc,
                }
                for other in others
                for accuracies in [other.history.get("val_accuracy")]
            ]
        )
    page.publish()
