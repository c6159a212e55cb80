"""Means with standard errors, and what is said where there is none."""

import numpy as np
import pytest

from tasks.worth.estimate import LEAST_ROWS, Estimate


def test_a_mean_and_its_standard_error():
    values = np.arange(16, dtype=np.float32)
    found = Estimate.of(values)
    assert found.mean == pytest.approx(7.5)
    assert found.standard_error == pytest.approx(np.sqrt(np.var(values, ddof=1) / 16))
    assert (found.n_rows, found.note) == (16, "")


def test_rows_that_have_no_number_are_left_out_and_counted():
    found = Estimate.of(np.concatenate([np.full(LEAST_ROWS, 2.0), [np.nan, np.inf]]))
    assert (found.mean, found.standard_error, found.n_rows) == (2.0, 0.0, LEAST_ROWS)


@pytest.mark.parametrize("n", [0, 1, LEAST_ROWS - 1])
def test_of_too_few_rows_there_is_no_number_but_a_reason(n: int):
    found = Estimate.of(np.concatenate([np.ones(n), np.full(3, np.nan)]))
    assert (found.mean, found.standard_error, found.n_rows) == (None, None, n)
    assert str(found) == f"too few rows: defined in {n} of {n + 3}, {LEAST_ROWS} are needed"
    assert not found.is_positive
    assert not found.is_negative


def test_what_no_row_has_is_not_defined():
    assert str(Estimate.of(np.full(LEAST_ROWS, np.nan))) == f"not defined in any of {LEAST_ROWS} rows"


@pytest.mark.parametrize(("shift", "positive", "negative"), [(4, True, False), (0, False, False), (-4, False, True)])
def test_a_sign_needs_three_standard_errors(shift: float, positive: bool, negative: bool):
    noise = np.tile([-1.0, 1.0], 8)
    found = Estimate.of(noise + shift * noise.std(ddof=1) / 4)
    assert (found.is_positive, found.is_negative) == (positive, negative)
