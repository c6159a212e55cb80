"""Expected calibration error, against sums by hand."""

import numpy as np
import pytest

from tasks.numerics.quality import calibration_bins, expected_calibration_error


def predictions(confidences: list[float], correct: list[bool], n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with these confidences in class 1, and labels that make them right or wrong."""
    rest = (1 - np.array(confidences)) / (n_classes - 1)
    probabilities = np.repeat(rest[:, None], n_classes, axis=1)
    probabilities[:, 1] = confidences
    return probabilities, np.where(correct, 1, 2)


@pytest.mark.parametrize(
    ("confidences", "correct", "n_bins", "expected"),
    [
        ([1.0, 1.0, 1.0], [True, True, True], 15, 0.0),
        ([1.0, 1.0, 1.0, 1.0], [True, False, False, False], 15, 0.75),
        ([0.8] * 5, [True, True, True, True, False], 15, 0.0),
        ([0.6, 0.6, 0.9, 0.9], [True, False, True, True], 10, 0.5 * 0.1 + 0.5 * 0.1),
        ([0.55, 0.95], [False, True], 10, 0.5 * 0.55 + 0.5 * 0.05),
        ([0.55, 0.95], [False, True], 1, 0.25),  # one bin: |0.5 - 0.75|
        ([0.7, 0.9], [False, True], 2, 0.3),  # in one bin they cancel in part: |0.5 - 0.8|
        ([1.0, 0.95], [False, True], 10, 0.475),  # a confidence of one is in the last bin, not above it: |0.5 - 0.975|
        ([0.31, 0.31, 0.99], [True, True, False], 10, 2 / 3 * 0.69 + 1 / 3 * 0.99),
    ],
    ids=[
        "sure and right",
        "sure and wrong",
        "calibrated",
        "two bins",
        "weights",
        "one bin",
        "cancelling",
        "last bin",
        "both ways",
    ],
)
def test_by_hand(confidences, correct, n_bins, expected):
    probabilities, labels = predictions(confidences, correct)
    assert expected_calibration_error(probabilities, labels, n_bins) == pytest.approx(expected, abs=1e-12)


def test_a_calibrated_classifier_of_many_rows_is_near_zero():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.3, 1, 100_000)
    probabilities, labels = predictions(list(confidences), list(rng.random(100_000) < confidences))
    assert expected_calibration_error(probabilities, labels) < 0.01
    assert expected_calibration_error(probabilities, (labels + 1) % 4) > 0.5


def test_the_order_of_rows_and_float32_do_not_matter():
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet(np.ones(5), 200), rng.integers(0, 5, 200)
    order = rng.permutation(200)
    expected = expected_calibration_error(probabilities, labels)
    assert expected_calibration_error(probabilities[order], labels[order]) == pytest.approx(expected, abs=1e-12)
    assert expected_calibration_error(probabilities.astype(np.float32), labels) == pytest.approx(expected, abs=1e-5)
    assert isinstance(expected, float) and 0 <= expected <= 1


def test_bins_hold_their_rows_mean_confidence_and_accuracy_and_empty_ones_are_left_out():
    bins = calibration_bins(np.array([0.95, 0.31, 0.93, 1.0]), np.array([True, False, False, True]), 10)
    np.testing.assert_array_equal(bins.n_rows, [1, 3])
    np.testing.assert_allclose(bins.confidences, [0.31, 0.96])
    np.testing.assert_allclose(bins.accuracies, [0, 2 / 3])
