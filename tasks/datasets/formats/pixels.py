"""Arrays of numbers as uint8 pixels, 0 black and 255 white, by the range of their values.

| values | become |
|---|---|
| uint8, or whole numbers of any type from 0 to 255 | as they are |
| whole numbers of an integer type up to 65535, more than 16383 at least once | x / 257, rounded |
| booleans | 0 and 255 |
| floats from 0 to 1 | x * 255, rounded |
| floats from -1 to 1, -0.5 at most and 0.5 at least once | (x + 1) * 127.5, rounded |

The range is that of train and test together. Whatever else there is could be several things, and is refused: images that
are scaled wrongly are explained wrongly.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.datasets.dataset import DatasetError

__all__ = ["divisor", "to_uint8"]

Array = npt.NDArray[Any]

ROWS_AT_ONCE = 1024
SIXTEEN_BITS = 65_535
FOURTEEN_BITS = 16_383
TO_8_BITS = 257
# What a float32 image loses when it is scaled there and back.
ROUNDING = 1e-5
SAVE_AS_UINT8 = "save the images as uint8, 0 black and 255 white"


def to_uint8(where: str, arrays: Mapping[str, Array]) -> tuple[dict[str, npt.NDArray[np.uint8]], str | None]:
    """The arrays as uint8 pixels, and what was done, in words; None if nothing was.

    arrays: by their name in the file `where`. Raises DatasetError for values that could mean several things.
    """
    kinds = {_kind(where, name, array) for name, array in arrays.items()}
    if len(kinds) > 1:
        types = " and ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise DatasetError(f"{where}: expected images of one kind of numbers, got {types}; {SAVE_AS_UINT8}")
    convert, text = {"b": _booleans, "u": _integers, "f": _floats}[kinds.pop()](where, arrays)
    if convert is None:
        return {name: array.astype(np.uint8, copy=False) for name, array in arrays.items()}, text
    return {name: _by_rows(convert, array) for name, array in arrays.items()}, text


Conversion = tuple[Callable[[Array], Array] | None, str | None]


def _kind(where: str, name: str, array: Array) -> str:
    kind = "u" if array.dtype.kind == "i" else array.dtype.kind
    if kind not in "buf":
        raise DatasetError(f"{where}: {name} must hold numbers, got {array.dtype}; {SAVE_AS_UINT8}")
    return kind


def _booleans(_where: str, _arrays: Mapping[str, Array]) -> Conversion:
    return lambda rows: rows * np.uint8(255), "booleans to 0 and 255"


def _integers(where: str, arrays: Mapping[str, Array]) -> Conversion:
    low, high = _extent(arrays)
    types = "/".join(sorted({str(array.dtype) for array in arrays.values()}))
    if low < 0:
        raise DatasetError(
            f"{where}: images must hold values from 0, got {types} from {low} to {high}; {SAVE_AS_UINT8}"
        )
    by = divisor(f"{where}: images of {types}", int(high))
    if by == 1:
        return None, None if types == "uint8" else f"{types} values up to {high} to uint8 as they are"
    return lambda rows: (rows.astype(np.int64) + by // 2) // by, f"{types} values up to {high} divided by {by}, rounded"


def divisor(what: str, largest: int) -> int:
    """What whole numbers up to `largest` are divided by to be 8 bits. Raises DatasetError where that could be several numbers."""
    if largest <= 255:
        return 1
    if FOURTEEN_BITS < largest <= SIXTEEN_BITS:
        return TO_8_BITS
    raise DatasetError(
        f"{what}: the largest value is {largest}, neither 8 bits (255) nor 16 (65535); scale them, such as by "
        f"255 / {_white(largest)}, round and save them as uint8"
    )


def _white(largest: int) -> int:
    """The value that probably means white: the largest of 9, 10, 12 or 14 bits."""
    return next((2**bits - 1 for bits in (9, 10, 12, 14) if largest < 2**bits), largest)


def _floats(where: str, arrays: Mapping[str, Array]) -> Conversion:
    for name, array in arrays.items():
        if not all(np.isfinite(rows).all() for rows in _rows(array)):
            raise DatasetError(
                f"{where}: {name} has values that are NaN or infinite; replace them, or leave out the image"
            )
    low, high = map(float, _extent(arrays))
    found = f"floats from {low:.4g} to {high:.4g}"
    if low >= 0 and high <= 1 + ROUNDING:
        return lambda rows: np.rint(np.minimum(rows.astype(np.float64), 1) * 255), f"{found} times 255, rounded"
    if (
        low >= 0
        and high <= 255
        and all((rows == np.rint(rows)).all() for array in arrays.values() for rows in _rows(array))
    ):
        return None, f"whole {found} to uint8 as they are"
    if low >= -1 - ROUNDING and high <= 1 + ROUNDING and low <= -0.5 and high >= 0.5:
        return (
            lambda rows: np.rint((np.clip(rows.astype(np.float64), -1, 1) + 1) * 127.5),
            f"{found}, taken as -1 to 1: (x + 1) times 127.5, rounded",
        )
    raise DatasetError(f"{where}: images are {found}, {_advice(low, high)}")


def _advice(low: float, high: float) -> str:
    """What floats of no known range may be, and what to do."""
    known = "expected 0 to 1, -1 to 1, or whole numbers from 0 to 255"
    if low >= 0 and 128 < high < 256:
        return f"{known}; if black is 0 and white 255, round them and save them as uint8"
    if low >= 0:
        return f"{known}; scale them to 0 to 255, round and save them as uint8"
    if low > -0.5 and high <= 1.5:
        return f"{known}; if black is 0 and white 1, clip them to that, for instance with np.clip"
    return (
        f"{known}; if they were standardised, save the images as they were before, as uint8, and set what the model is fed "
        "with model.input"
    )


def _extent(arrays: Mapping[str, Array]) -> tuple[Any, Any]:
    return min(array.min() for array in arrays.values()), max(array.max() for array in arrays.values())


def _rows(array: Array) -> Iterator[Array]:
    return (array[start : start + ROWS_AT_ONCE] for start in range(0, len(array), ROWS_AT_ONCE))


def _by_rows(convert: Callable[[Array], Array], array: Array) -> npt.NDArray[np.uint8]:
    """Some rows at a time, for intermediate results are larger than pixels."""
    pixels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), ROWS_AT_ONCE):
        pixels[start : start + ROWS_AT_ONCE] = convert(array[start : start + ROWS_AT_ONCE])
    return pixels
