"""A function of a model over rows, compiled for batches of fixed shape, that goes on with half a batch where one does not fit.

Rows are cut into batches and the last is padded, so that each shape is traced once and no other ever is. A batch that the
device's memory cannot hold is halved for all calls to come, which is reported; that no single row fits is an error.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["LARGEST_TENSOR", "SMALL_BATCHES", "XLA_ERRORS", "Compiled", "Report", "in_batches", "padded", "with_xla"]

Report = Callable[[str], object]

# What XLA raises for an operation that it does not know, or that has no shape before it runs.
XLA_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.InternalError)
LARGEST_TENSOR = 2**31 - 1  # elements: kernels with 32-bit indices address no more
SMALL_BATCHES = 8  # what does not fill a batch goes in batches of an eighth of its size

logger = logging.getLogger(__name__)


class Compiled:
    """A function from tensors (row, ...) to one or several tensors (row, ...), called with arrays of any number of rows.

    what: what it computes, in the plural, for messages. small: rows of a second, smaller shape, for what does not fill a batch.
    on_halving: is called with a line when a batch was halved; it goes to Python's log where nobody else wants it.
    """

    def __init__(
        self,
        what: str,
        function: Callable[..., tuple[tf.Tensor, ...]],
        batch_size: int,
        *,
        small: int | None = None,
        on_halving: Report | None = None,
    ):
        self.what, self.batch_size = what, batch_size
        self._small = batch_size if small is None else small
        self._on_halving, self._halving = on_halving or logger.warning, threading.Lock()
        self._function = tf.function(function)

    @property
    def n_traces(self) -> int:
        """How often the function was traced: once for each shape, of which halving makes up to two more."""
        return self._function.experimental_get_tracing_count()

    def __call__(self, *arrays: NDArray) -> tuple[NDArray, ...]:
        """The results for the rows of the arrays, of which there must be some.

        Raises MemoryError if a single row does not fit.
        """
        n, start, results = len(arrays[0]), 0, []
        while start < n:
            size = self._rows_for(n - start)
            rows = slice(start, min(start + size, n))
            try:
                results.append(self._call(size, [array[rows] for array in arrays]))
            except (tf.errors.ResourceExhaustedError, MemoryError) as error:
                self._halve(size, error)
                continue
            start = rows.stop
        return results[0] if len(results) == 1 else tuple(np.concatenate(parts) for parts in zip(*results, strict=True))

    def _rows_for(self, n: int) -> int:
        return self.batch_size if n > self.batch_size - self._small else self._small

    def _call(self, size: int, arrays: list[NDArray]) -> tuple[NDArray, ...]:
        results = self._function(*(tf.constant(padded(array, size)) for array in arrays))
        return tuple(result.numpy()[: len(arrays[0])] for result in results)

    def _halve(self, size: int, error: Exception) -> None:
        with self._halving:
            if size > self.batch_size:
                return  # another thread has halved it meanwhile
            if size == 1:
                raise MemoryError(
                    f"the {self.what} of a single image do not fit into memory; "
                    "run fewer parts at a time (run.n_workers), on a larger device, or with smaller images (dataset.size)"
                ) from error
            self.batch_size = size // 2
            self._small = min(self._small, self.batch_size)
            self._on_halving(
                f"a batch of {size} images does not fit into memory for {self.what}; going on with {size // 2}"
            )


def with_xla(function: Callable[..., Any], arguments: Sequence[tf.Tensor], report: Report) -> Callable[..., Any]:
    """The function compiled by XLA, or itself where XLA cannot compile it for these arguments, which is reported."""
    compiled = tf.function(function, jit_compile=True, autograph=False)
    try:
        compiled(*arguments)
    except XLA_ERRORS as error:
        report(f"XLA cannot compile this network, which is computed without: {str(error).splitlines()[0][:200]}")
        return function
    return compiled


def in_batches(n: int, batch_size: int) -> list[slice]:
    """The slices that cut n rows into batches; the last may be short."""
    return [slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def padded(array: NDArray, batch_size: int) -> NDArray:
    """The array with its last row repeated up to batch_size rows."""
    missing = batch_size - len(array)
    return array if missing == 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
