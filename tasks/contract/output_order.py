"""Whether another assignment of outputs to labels is far more accurate than the one that is used."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom

from tasks.night.result import NightWarning

__all__ = [
    "LEAST_GAIN",
    "doubt_chance",
    "doubt_class_order",
    "is_above_chance",
    "matched_accuracy",
    "matched_by_luck",
    "matched_order",
]

LEAST_GAIN = 0.1  # of accuracy, over the order that is used and over luck
N_SHUFFLES = 3
CHANCE_P = 0.01  # of so many right answers, or more, by luck
LEAST_IMAGES = 8
LISTED = 20


def matched_order(confusion: ArrayLike) -> np.ndarray:
    """For each output the class that it names most consistently, (class,), by the best one-to-one assignment.

    confusion: images, (true class, predicted class).
    """
    truth, said = linear_sum_assignment(np.asarray(confusion), maximize=True)
    return truth[np.argsort(said)]


def matched_accuracy(confusion: ArrayLike) -> float:
    """The accuracy under that assignment."""
    matrix = np.asarray(confusion)
    return float(matrix[matched_order(matrix), np.arange(len(matrix))].sum() / matrix.sum())


def matched_by_luck(confusion: ArrayLike) -> float:
    """The accuracy under the best assignment of as many predictions that know nothing of the labels; the most of N_SHUFFLES.

    Where images are few for so many classes that is far above chance: .55 for 1,000 of each.
    """
    matrix = np.asarray(confusion)
    truth, said = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    rng, by_luck = np.random.default_rng(0), []
    for _ in range(N_SHUFFLES):
        shuffled = np.zeros_like(matrix)
        np.add.at(shuffled, (truth, rng.permutation(said)), 1)
        by_luck.append(matched_accuracy(shuffled))
    return max(by_luck)


def doubt_class_order(confusion: ArrayLike, class_names: Sequence[str]) -> NightWarning | None:
    """A doubt if the best assignment of outputs to classes is far more accurate than the order of class_names."""
    matrix = np.asarray(confusion)
    n, n_classes = int(matrix.sum()), len(matrix)
    order, matched = matched_order(matrix), matched_accuracy(matrix)
    accuracy = float(np.trace(matrix)) / n
    if matched - accuracy <= LEAST_GAIN or matched - matched_by_luck(matrix) <= LEAST_GAIN:
        return None
    names = [class_names[k] for k in order]
    listed = f"[{', '.join(names)}]" if n_classes <= LISTED else f"[{', '.join(names[:LISTED])}, ...]"
    return NightWarning(
        kind="class-order",
        message=f"accuracy is {accuracy:.4f}, and would be {matched:.4f} if the model's outputs were the classes {listed} "
        "in this "
        "order; if they are, set dataset.class_order to that",
        value=accuracy,
        threshold=matched,
    )


def doubt_chance(confusion: ArrayLike) -> NightWarning | None:
    """A doubt if predictions and labels agree no more often than if they knew nothing of each other.

    confusion: as of matched_order.
    """
    matrix = np.asarray(confusion)
    n, n_right = int(matrix.sum()), int(np.trace(matrix))
    by_chance = float(matrix.sum(axis=0) @ matrix.sum(axis=1)) / n**2
    if n < LEAST_IMAGES or is_above_chance(n_right, n, by_chance):
        return None
    return NightWarning(
        kind="chance",
        message=f"accuracy {n_right / n:.4f} on {n} images is no better than chance, {by_chance:.4f}: the model does not know "
        "these classes, or is fed or read otherwise than its owner does (see the page model)",
        value=n_right / n,
        threshold=by_chance,
    )


def is_above_chance(n_right: int, n: int, by_chance: float) -> bool:
    """Whether so many right answers of n are more than luck. by_chance: the share that is right by luck."""
    return n_right > by_chance * n and float(binom.sf(n_right - 1, n, min(by_chance, 1.0))) < CHANCE_P
