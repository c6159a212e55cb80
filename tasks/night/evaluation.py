"""The figures of a model on a test split, from its probabilities and the labels. Needs neither TensorFlow nor Prefect."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from tasks.night.result import NightWarning
from tasks.numerics.quality import expected_calibration_error

__all__ = ["ClassScore", "Evaluation", "RandomImage", "measure"]


class ClassScore(BaseModel):
    """Precision, recall and F1 of one class, and its number of images; 0 where a ratio has no denominator."""

    model_config = ConfigDict(frozen=True)

    name: str
    precision: float
    recall: float
    f1: float
    images: int


class RandomImage(BaseModel):
    """The notebook's one random test image: its row, its label and what the model says."""

    model_config = ConfigDict(frozen=True)

    row: int
    label: int
    prediction: int


class Evaluation(BaseModel):
    """The model on the whole test split. confusion: rows of true, columns of predicted classes, in images.

    warnings: what this says against the model's contract.
    """

    model_config = ConfigDict(frozen=True)

    n_rows: int
    loss: float
    accuracy: float
    expected_calibration_error: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    random_image: RandomImage
    warnings: tuple[NightWarning, ...] = ()


def measure(probabilities: NDArray, labels: NDArray, class_names: tuple[str, ...], seed: int) -> Evaluation:
    """Every figure of an evaluation. probabilities: (row, class). labels: (row,). seed: of the random image.

    The loss is of the probabilities divided by their sum, those of independent classes too; where that is 0, no class is
    likelier than another. Confidences are taken as they are.
    """
    classes, predictions = np.arange(len(class_names)), probabilities.argmax(axis=1)
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=0
    )
    row = int(np.random.default_rng(seed).integers(len(labels)))
    total = probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    normalised = np.where(total > 0, probabilities / np.where(total > 0, total, 1), 1 / len(class_names))
    return Evaluation(
        n_rows=len(labels),
        loss=float(log_loss(labels, normalised, labels=classes)),
        accuracy=float(accuracy_score(labels, predictions)),
        expected_calibration_error=expected_calibration_error(probabilities, labels),
        classes=tuple(
            ClassScore(name=name, precision=precision[k], recall=recall[k], f1=f1[k], images=int(images[k]))
            for k, name in enumerate(class_names)
        ),
        confusion=tuple(map(tuple, confusion_matrix(labels, predictions, labels=classes).tolist())),
        random_image=RandomImage(row=row, label=int(labels[row]), prediction=int(predictions[row])),
    )
