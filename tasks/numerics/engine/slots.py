"""Numbers that are free: of the lanes of rows in flight, and of the slots of nodes."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Slots"]


class Slots:
    """Numbers from `first` to `n - 1`; what was given back last is taken first, for it is still in the processor's cache."""

    def __init__(self, n: int, first: int):
        self._free = np.arange(n - 1, first - 1, -1, dtype=np.int32)
        self.n_free = self.n = n - first

    def take(self, n: int) -> NDArray[np.int32]:
        """Raises IndexError if so many are not free."""
        if n > self.n_free:
            raise IndexError(f"{n} of {self.n_free} free slots")
        self.n_free -= n
        return self._free[self.n_free : self.n_free + n].copy()

    def give_back(self, numbers: NDArray[np.int32]) -> None:
        self._free[self.n_free : self.n_free + len(numbers)] = numbers
        self.n_free += len(numbers)
