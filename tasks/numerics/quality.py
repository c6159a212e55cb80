"""How good a classifier's probabilities are, beyond accuracy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CalibrationBins", "calibration_bins", "expected_calibration_error"]

N_BINS = 15


class CalibrationBins(NamedTuple):
    """The bins that have rows, by confidence: their rows, mean confidence and accuracy, each (bin,)."""

    n_rows: NDArray[np.int64]
    confidences: NDArray[np.float64]
    accuracies: NDArray[np.float64]


def calibration_bins(confidences: NDArray, correct: NDArray, n_bins: int = N_BINS) -> CalibrationBins:
    """Rows in bins of equal width of their confidence, empty bins left out. confidences, correct: (row,)."""
    bins = np.minimum((confidences * n_bins).astype(int), n_bins - 1)
    n_rows = np.bincount(bins, minlength=n_bins)
    some = n_rows > 0
    sums = (np.bincount(bins, values, n_bins)[some] for values in (confidences, correct))
    return CalibrationBins(n_rows[some], *(total / n_rows[some] for total in sums))


def expected_calibration_error(probabilities: NDArray, labels: NDArray, n_bins: int = N_BINS) -> float:
    """The mean distance between confidence and accuracy, over bins weighted by their rows.

    probabilities: (row, class). labels: (row,). Returns a number in 0..1; 0 is calibrated.
    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    bins = calibration_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, n_bins)
    return float(np.average(np.abs(bins.accuracies - bins.confidences), weights=bins.n_rows))
