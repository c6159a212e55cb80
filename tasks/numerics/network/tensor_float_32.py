"""TF32: whether an NVIDIA GPU may round what it multiplies to 11 significant bits, where float32 has 24.

TensorFlow allows it unless it is forbidden, and then float32 is float32 in name only. So importing `tasks.numerics.network`
forbids it, and only `computing_in("tf32")` allows it, for its time.

The permission is one for the process. An operation reads it when it runs; XLA reads it when it compiles, so a function that XLA
compiled belongs to one of the two. TensorFlow keeps cuDNN's plan of a convolution as long as the process lives, by its shapes,
the batch among them, and not by the permission. So batches in tf32 are of sizes of their own (`tf32_batch`), which nothing in
float32 has, before, beside or after (`float32_batch`). All this is from TensorFlow's source; no GPU was at hand to see it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count

import tensorflow as tf

from tasks.numerics.network.compiled import SMALL_BATCHES
from tasks.numerics.network.precision import Precision

__all__ = ["computing_in", "float32_batch", "forbid_tensor_float_32", "tf32_batch"]

LEAST_TF32 = 31  # an eighth of it is 3: a power of two neither

_turn = threading.Condition()
_n_within = {True: 0, False: 0}  # by the permission


def forbid_tensor_float_32() -> None:
    """From now on float32 is float32, but within `computing_in("tf32")`."""
    tf.config.experimental.enable_tensor_float_32_execution(False)


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """While it lasts, what this process computes may be TF32 if that is the precision, and may not if it is another.

    Threads of the same permission go on side by side; one of the other waits until they are done. Not to be nested.
    """
    allowed = precision == "tf32"
    with _turn:
        _turn.wait_for(lambda: not _n_within[not allowed])
        _n_within[allowed] += 1
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        with _turn:
            _n_within[allowed] -= 1
            if not _n_within[allowed]:
                forbid_tensor_float_32()
                _turn.notify_all()


def tf32_batch(batch_size: int) -> int:
    """The size of batches in tf32 in place of that in float32: as near as can be, LEAST_TF32 at least.

    What it shares with the given one, what that is halved to, and powers of two, is no shape: neither it nor its eighth.
    """
    taken = {1 << k for k in range(32)} | {each for k in range(32) for each in _shapes(batch_size >> k)}
    smaller, larger = range(batch_size - 1, LEAST_TF32 - 1, -1), count(max(batch_size + 1, LEAST_TF32))
    return next(size for size in chain(smaller, larger) if not taken & _shapes(size))


def float32_batch(batch_size: int) -> int:
    """The size of batches in float32 beside those of that size in tf32: the power of two below."""
    return 1 << (max(1, batch_size - 1).bit_length() - 1)


def _shapes(batch_size: int) -> set[int]:
    return {max(1, batch_size), max(1, batch_size // SMALL_BATCHES)}
