"""TF32: whether an NVIDIA GPU may round what it multiplies to 11 significant bits, where float32 has 24.

TensorFlow allows it unless it is forbidden, and then float32 is float32 in name only. So importing `tasks.numerics.network`
forbids it, and only `computing_in("tf32")` allows it, for its time.

The permission is one for the process. An operation reads it when it runs; XLA reads it when it compiles, so a function that XLA
compiled belongs to one of the two. TensorFlow keeps cuDNN's plan of a convolution by its shapes, the batch among them, and not by
the permission: whoever computes the same in both takes batches of another size for one of them (`apart_from_tf32`). All this is
from TensorFlow's source; no GPU was at hand to see it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count

import tensorflow as tf

from tasks.numerics.network.compiled import SMALL_BATCHES
from tasks.numerics.network.precision import Precision

__all__ = ["apart_from_tf32", "computing_in", "forbid_tensor_float_32"]

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


def apart_from_tf32(batch_size: int) -> int:
    """A batch size near the given one that shares no shape with it, for what float32 computes beside tf32."""
    taken = _shapes(batch_size)
    smaller, larger = range(batch_size - 1, SMALL_BATCHES, -1), count(batch_size + 1)
    return next(other for other in chain(smaller, larger) if not taken & _shapes(other))


def _shapes(batch_size: int) -> set[int]:
    return {batch_size, max(1, batch_size // SMALL_BATCHES)}
