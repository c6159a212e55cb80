"""Evaluate: how good the model is on the whole test split, before anything is explained."""

import math
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger

from tasks.config import ExplanationConfig
from tasks.contract import Contract
from tasks.contract.output_order import doubt_chance, doubt_class_order
from tasks.datasets import Dataset, read_rows
from tasks.models.registry import ModelError, ModelRecord, load_model
from tasks.night.evaluation import ClassScore, Evaluation, RandomImage, measure
from tasks.night.result import NightWarning
from tasks.numerics.batching import memory_bytes, ruled
from tasks.numerics.network.compiled import Report, in_batches
from tasks.numerics.network.outputs import KINDS, breaks
from tasks.numerics.network.scores import CompiledScores, score_model
from tasks.pages.figures.page_figures import class_figure, confusion_figure, grid_figure, reliability_figure
from tasks.pages.page import Page, escape

__all__ = ["ClassScore", "Evaluation", "RandomImage", "evaluate", "measure"]

READ_ROWS, READ_BYTES = 2048, 64 * 2**20
FLOAT32_BYTES = 4
COMMONEST = 12


@task(name="evaluate")
def evaluate(
    model: ModelRecord, contract: Contract, dataset: Dataset, explanation: ExplanationConfig, seed: int
) -> Evaluation:
    """The model's figures on the test split, with the artifacts `evaluation` and `confusion`.

    Raises ModelError naming the rows if outputs are not finite.
    """
    probabilities, labels = predict_all(model, contract, dataset, explanation, get_run_logger().warning)
    evaluation = measure(probabilities, labels, dataset.class_names, seed)
    evaluation = evaluation.model_copy(update={"warnings": _doubts(evaluation, dataset.class_names)})
    get_run_logger().info(
        "accuracy %.4f, loss %.4f on %d rows", evaluation.accuracy, evaluation.loss, evaluation.n_rows
    )
    for warning in evaluation.warnings:
        get_run_logger().warning("model %s: %s", model.name, warning.message)
    _publish(evaluation, probabilities, labels, dataset)
    return evaluation


def _doubts(evaluation: Evaluation, class_names: tuple[str, ...]) -> tuple[NightWarning, ...]:
    """What the whole test split says against the contract: accuracy at chance, classes in another order."""
    found = (doubt_chance(evaluation.confusion), doubt_class_order(evaluation.confusion, class_names))
    return tuple(doubt for doubt in found if doubt is not None)


def predict_all(
    model: ModelRecord,
    contract: Contract,
    dataset: Dataset,
    explanation: ExplanationConfig,
    on_halving: Report | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities (row, class) and labels (row,) of the whole test split. on_halving: as of `Compiled`."""
    scores = score_model(load_model(model.path, model.code), "probability", contract.reading)
    batch_size = explanation.batch_size or ruled(scores, memory_bytes(explanation.memory_gb)).images
    predict = CompiledScores(scores, batch_size, on_halving)
    probabilities, labels = [], []
    read_rows_at_once = max(1, min(READ_ROWS, READ_BYTES // (FLOAT32_BYTES * math.prod(dataset.shape))))
    for rows in in_batches(dataset.n_test, read_rows_at_once):
        pixels, truth = read_rows(dataset, "test", rows.start, rows.stop)
        outputs = predict(pixels.astype(np.float32) / 255)
        if not np.isfinite(outputs).all():
            bad = rows.start + np.flatnonzero(~np.isfinite(outputs).all(axis=1))
            raise ModelError(
                f"model {model.name} gives outputs that are not finite for {len(bad)} rows, first {bad[:8].tolist()}; "
                "train it again or choose another"
            )
        own = outputs[:, 1:] if contract.output == "sigmoid" else outputs
        if broken := breaks(contract.output, own):
            raise ModelError(
                f"model {model.name}: its outputs were taken for {KINDS[contract.output]}, and of rows {rows.start} to "
                f"{rows.stop - 1} {broken}; end the model with a softmax or a sigmoid"
            )
        probabilities.append(outputs)
        labels.append(truth)
    return np.concatenate(probabilities), np.concatenate(labels)


def _publish(evaluation: Evaluation, probabilities: NDArray, labels: NDArray, dataset: Dataset) -> None:
    names, chosen = dataset.class_names, evaluation.random_image
    page = Page("evaluation", "Look for a class far below the others: how good the model is on the test split.")
    page.heading(f"Accuracy {evaluation.accuracy:.4f} on {evaluation.n_rows:,} test images")
    for warning in evaluation.warnings:
        page.text(f"**Warning:** {escape(warning.message)}")
    page.table(
        [
            {"figure": "accuracy", "value": evaluation.accuracy},
            {"figure": "loss (cross-entropy)", "value": evaluation.loss},
            {"figure": "expected calibration error", "value": evaluation.expected_calibration_error},
        ]
    )
    counted = [score for score in evaluation.classes if score.images]
    recalls = [score.recall for score in counted]
    page.figure(
        partial(class_figure, [score.name for score in counted], recalls, evaluation.accuracy),
        "Share of each class that is recognised, worst first",
        thumbnail=True,
    )
    page.table([score.model_dump() for score in evaluation.classes])
    confidences, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    page.figure(partial(reliability_figure, confidences, correct), "Accuracy against confidence")
    label, prediction = names[chosen.label], names[chosen.prediction]
    page.heading("One random test image", level=3)
    page.text(f"Row {chosen.row}: original label {escape(label)}, predicted label {escape(prediction)}.")
    page.figure(partial(_one_image, dataset, chosen.row, f"{label} → {prediction}"), "The image")
    page.publish()
    page = Page("confusion", "Look for dark squares off the diagonal: which classes the model mixes up.")
    matrix = np.array(evaluation.confusion)
    mistakes = matrix - np.diag(np.diag(matrix))
    page.heading(f"{mistakes.sum():,} of {evaluation.n_rows:,} test images are taken for another class")
    page.figure(partial(confusion_figure, matrix, names), "Confusion matrix", thumbnail=True)
    page.table(
        [
            {"true class": names[y], "taken for": names[x], "images": count, "of the class": f"{count / row_sum:.1%}"}
            for y, x, count, row_sum in _commonest(mistakes, matrix.sum(axis=1))
        ]
    )
    page.publish()


def _one_image(dataset: Dataset, row: int, title: str) -> Figure:
    pixels, _ = read_rows(dataset, "test", row, row + 1)
    return grid_figure(pixels, [title], title=f"Row {row}", columns=1)


def _commonest(mistakes: NDArray, images: NDArray) -> list[tuple[int, int, int, int]]:
    """True class, predicted class, how many, and of how many: the commonest mistakes first."""
    order = np.argsort(-mistakes, axis=None, kind="stable")[:COMMONEST]
    pairs = [(int(y), int(x)) for y, x in zip(*np.unravel_index(order, mistakes.shape), strict=True)]
    return [(y, x, int(mistakes[y, x]), int(images[y])) for y, x in pairs if mistakes[y, x]]
