"""Rounding of float32 values to fewer significant bits, so that the store's filters compress them better.

A normal float32 has 23 explicit bits of the significand after a hidden one. Kept are the first `bits` of them, the rest is
rounded to the nearest, halves to even, and becomes zero. A normal value changes by at most 2^-(bits + 1) of itself:
1.2e-4 for 12 bits, 6.1e-5 for 13. Rounding twice to the same bits is rounding once.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXPLICIT_BITS", "has_significant_bits", "round_significand"]

EXPLICIT_BITS = 23
_EXPONENT = np.uint32(0x7F80_0000)


def round_significand(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The values with `bits` explicit bits of the significand, in an array of the same shape.

    Zeros of either sign, subnormals, infinities and NaN are returned as they are. A value that would round to infinity
    becomes the largest one of so many bits.
    Raises ValueError for bits outside 1..23, TypeError for another dtype than float32.
    """
    if not 1 <= bits <= EXPLICIT_BITS:
        raise ValueError(f"expected 1 to {EXPLICIT_BITS} explicit bits of the significand, got {bits}")
    if values.dtype != np.float32:
        raise TypeError(f"expected float32 values, got {values.dtype}")
    if bits == EXPLICIT_BITS:
        return values.copy()
    dropped = EXPLICIT_BITS - bits
    pattern = np.ascontiguousarray(values).view(np.uint32)
    below_half = np.uint32((1 << (dropped - 1)) - 1)
    keep = ~np.uint32((1 << dropped) - 1)
    last_kept = (pattern >> np.uint32(dropped)) & np.uint32(1)
    rounded = (pattern + below_half + last_kept) & keep
    overflown = (rounded & _EXPONENT) == _EXPONENT
    rounded = np.where(overflown, pattern & keep, rounded)
    return np.where(_is_normal(pattern), rounded, pattern).view(np.float32).reshape(values.shape)


def has_significant_bits(values: NDArray[np.float32], bits: int) -> NDArray[np.bool_]:
    """Whether each value is one that `round_significand` leaves, in an array of the same shape."""
    pattern = np.ascontiguousarray(values).view(np.uint32)
    dropped = np.uint32((1 << (EXPLICIT_BITS - bits)) - 1)
    return (((pattern & dropped) == 0) | ~_is_normal(pattern)).reshape(values.shape)


def _is_normal(pattern: NDArray[np.uint32]) -> NDArray[np.bool_]:
    exponent = pattern & _EXPONENT
    return (exponent != 0) & (exponent != _EXPONENT)
