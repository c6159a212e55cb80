"""How good a classifier's probabilities are, beyond accuracy."""

import numpy as np

__all__ = ["expected_calibration_error"]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> float:
    """The mean distance between confidence and accuracy, over bins of equal width weighted by their rows.

    probabilities: (row, class). labels: (row,). Returns a number in 0..1; 0 is calibrated.
    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    confidences = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidences * n_bins).astype(int), n_bins - 1)
    rows = np.bincount(bins, minlength=n_bins)
    surplus = np.bincount(bins, correct, n_bins) - np.bincount(bins, confidences, n_bins)
    return float(np.abs(surplus).sum() / rows.sum())
