"""Rounding of significands: the nearest value of so many bits, found again by slow exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.file.rounding import has_significant_bits, round_significand

F32 = np.finfo(np.float32)
ALL_BITS = range(1, 24)


def patterns(n: int, seed: int) -> NDArray[np.float32]:
    """Random finite float32 of all magnitudes, from random bits."""
    values = np.random.default_rng(seed).integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
    return values[np.isfinite(values)]


def slowly_rounded(value: float, bits: int) -> Fraction:
    """Nearest multiple of the unit in the last kept place, halves to even (Python's round)."""
    exact = Fraction(value)
    exponent = np.frexp(value)[1] - 1  # 2^exponent <= |value| < 2^(exponent + 1)
    unit = Fraction(2) ** int(exponent - bits)
    return round(exact / unit) * unit


@pytest.mark.parametrize("bits", ALL_BITS)
def test_rounds_to_the_nearest_and_halves_to_even(bits: int) -> None:
    values = np.concatenate([patterns(300, bits), np.arange(1, 300, dtype=np.float32) / 8])
    values = values[(np.abs(values) >= F32.tiny) & (np.abs(values) < F32.max / 4)]
    rounded = round_significand(values, bits)
    assert [Fraction(float(r)) for r in rounded] == [slowly_rounded(float(v), bits) for v in values]


@pytest.mark.parametrize("bits", ALL_BITS)
def test_relative_error_is_at_most_half_a_unit(bits: int) -> None:
    values = patterns(100_000, 7)
    values = values[np.abs(values) < F32.max / 4].astype(np.float64)
    error = np.abs(round_significand(values.astype(np.float32), bits) - values)
    assert (error <= 2.0 ** -(bits + 1) * np.abs(values)).all()


def test_twelve_bits_are_no_better_than_that() -> None:
    """The bound is reached but for the last bits, so 1e-4 would be too much to promise."""
    worst = np.float32(1 + 2.0**-13)
    assert abs(float(round_significand(worst.reshape(1), 12)[0]) - float(worst)) / float(worst) > 1.22e-4


@pytest.mark.parametrize("bits", ALL_BITS)
def test_what_has_no_full_significand_is_left_alone(bits: int) -> None:
    special = np.array([0.0, -0.0, 1e-45, -1e-45, F32.tiny - F32.smallest_subnormal, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(round_significand(special, bits).view(np.uint32), special.view(np.uint32))
    assert np.isnan(round_significand(np.array([np.nan], np.float32), bits)).all()


@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_largest_values_stay_finite(bits: int) -> None:
    largest = np.array([F32.max, -F32.max, np.nextafter(F32.max, np.float32(0))], np.float32)
    rounded = round_significand(largest, bits)
    assert np.isfinite(rounded).all()
    assert (np.abs(rounded.astype(np.float64) / largest - 1) <= 2.0**-bits).all()


@pytest.mark.parametrize("bits", ALL_BITS)
def test_twice_is_once_and_is_recognised(bits: int) -> None:
    values = patterns(10_000, 3)
    once = round_significand(values, bits)
    np.testing.assert_array_equal(round_significand(once, bits), once)
    assert has_significant_bits(once, bits).all()
    np.testing.assert_array_equal(has_significant_bits(values, bits), once == values)


def test_any_shape_and_order_and_the_input_is_not_touched() -> None:
    values = patterns(5_000, 5)[: 3 * 4 * 5 * 2].reshape(3, 4, 5, 2)
    before = values.copy()
    for view in (values, values[:, ::2], values.transpose(3, 1, 0, 2), values[:0], np.asfortranarray(values)):
        rounded = round_significand(view, 6)
        assert rounded.shape == view.shape
        np.testing.assert_array_equal(rounded.ravel(), round_significand(view.ravel(), 6))
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("bits", [0, 24, -1])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 23 explicit bits.*got {bits}"):
        round_significand(np.ones(1, np.float32), bits)


def test_another_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match="got float64"):
        round_significand(np.ones(1), 12)
