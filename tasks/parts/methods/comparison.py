"""Differences between two computations of the same rows, and how large those of right answers may be."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore

__all__ = [
    "BEYOND_SAMPLE",
    "Comparison",
    "precision_error",
    "probability_rounding",
    "relative_change",
    "relative_difference",
]

# What a precision costs is known of a few rows; others are off by more than the worst of those.
BEYOND_SAMPLE = 4.0

TINY = float(np.finfo(np.float32).tiny)
FLOAT32_EPS = float(np.finfo(np.float32).eps)
LEAST_EPSILONS = 8


@dataclass(frozen=True)
class Comparison:
    """Of some rows, by how much two computations differ, (row,), and what is allowed, (row,) or the same for all.

    name: of what is compared. about: what the number is, or what was compared with what.
    zero_reference: a reference that gave zeros for every row, and so compared nothing; empty if it did not.
    """

    name: str
    about: str
    off: NDArray[np.float64]
    allowed: NDArray[np.float64] | float
    zero_reference: str = field(default="")


def relative_difference(ours: NDArray, theirs: NDArray) -> NDArray[np.float64]:
    """||ours - theirs|| / ||theirs|| of each row, (row,): 0 where both are zero, infinite where only theirs is."""
    difference, norm = _norm(ours.astype(np.float64) - theirs), _norm(theirs)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / norm)


def relative_change(stored: NDArray, anew: NDArray) -> NDArray[np.float64]:
    """||stored - anew|| over the larger of their norms, (row,), of arrays (row, ...): 0 where both are zero."""
    norms = np.maximum(_norm(stored), _norm(anew))
    return _norm(stored.astype(np.float64) - anew) / np.maximum(norms, TINY)


def probability_rounding(probabilities: NDArray, targets: NDArray) -> NDArray[np.float64]:
    """How far two right answers for the gradient of the target's probability p may differ, relative to either.

    That gradient has the factor 1 - p, which each knows to float32's epsilon: 2 epsilon / (1 - p), and infinite where
    1 - p is so few epsilons that not even its order of magnitude is known.
    probabilities: (row, class) float32. targets: (row,). Returns (row,).
    """
    others = probabilities.astype(np.float64)
    others[np.arange(len(others)), targets] = 0
    rest = others.sum(axis=1)
    known = rest > LEAST_EPSILONS * FLOAT32_EPS
    return np.where(known, 2 * FLOAT32_EPS / np.where(known, rest, 1), np.inf)


def precision_error(store: AttributionStore, of: str = "attribution") -> float:
    """The largest difference from float32 over the sample that the night measured, 0 for a night in float32.

    of: "attribution", "score" or "probability", or the group of a method for its map; see tasks.parts.precision_sample.
    """
    measured: Any = store.attributes["precision_error"]
    if not measured:
        return 0.0
    known = {"attribution": measured, **{name: measured.get(name) for name in ("score", "probability")}}
    spread = (known | measured.get("maps", {})).get(of)
    return float(spread["max"]) if spread else 0.0  # before schema 6 only attributions were of another precision


def _norm(values: NDArray) -> NDArray[np.float64]:
    return np.sqrt(np.square(values.astype(np.float64)).sum(axis=tuple(range(1, values.ndim))))
