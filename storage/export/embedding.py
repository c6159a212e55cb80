"""What rows have in common, in few numbers: principal components of where their attribution lies.

A row's heat is its attribution summed over channels, summed again in at most 16 x 16 cells, and divided by its L2 norm:
so it says where the attribution lies and not how large it is. Heat of all rows waits in a file, not in memory, until
a class is complete; its principal components come from the eigenvectors of the covariance of the cells, which is of the
same size for ten rows and ten million.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_CELLS", "N_COMPONENTS", "HeatFile", "pooled_heat", "principal_components"]

MAX_CELLS = 16
N_COMPONENTS = 4
BLOCK_ROWS = 512


def pooled_heat(attributions: NDArray[np.floating]) -> NDArray[np.float32]:
    """Where the attribution of each row lies: (row, cell), of norm 1, or 0 where the attribution is 0.

    attributions: (row, y, x, channel).
    """
    heat = attributions.sum(axis=3, dtype=np.float64)
    for axis in (1, 2):
        size = heat.shape[axis]
        n_cells = min(size, MAX_CELLS)
        heat = np.add.reduceat(heat, np.arange(n_cells) * size // n_cells, axis=axis)
    cells = heat.reshape(len(heat), -1)
    norms = np.linalg.norm(cells, axis=1, keepdims=True)
    return (cells / np.where(norms > 0, norms, 1)).astype(np.float32)


class HeatFile:
    """Heat of rows, (row, cell), on the disk: appended in order, read by position. Made in a folder that is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO = path.open("wb")
        self._n_cells = 0

    def append(self, heat: NDArray[np.float32]) -> None:
        """Add the heat of further rows, (row, cell)."""
        self._n_cells = heat.shape[1]
        self._stream.write(np.ascontiguousarray(heat).tobytes())

    def blocks(self, positions: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """The heat of some rows by their position, in blocks of (row, cell)."""
        if len(positions):
            heat = self.all_rows()
            for first in range(0, len(positions), BLOCK_ROWS):
                yield heat[positions[first : first + BLOCK_ROWS]]

    def all_rows(self) -> NDArray[np.float32]:
        """The heat of every row, (row, cell), mapped from the file; there must be some."""
        self._stream.flush()
        return np.memmap(self._path, dtype=np.float32, mode="r").reshape(-1, self._n_cells)

    def remove(self) -> None:
        """Delete the file."""
        self._stream.close()
        self._path.unlink()


def principal_components(
    heat: HeatFile, positions: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Principal components of some rows' heat: (row, component) and their variances (component,), largest first.

    There are always N_COMPONENTS, 0 beyond the rank of the heat. Signs: of each axis the largest entry is positive.
    """
    n_rows, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for block in heat.blocks(positions):
        cells = block.astype(np.float64)
        if not n_rows:
            total, products = np.zeros(cells.shape[1]), np.zeros((cells.shape[1],) * 2)
        n_rows += len(cells)
        total += cells.sum(axis=0)
        products += cells.T @ cells
    components, variances = np.zeros((n_rows, N_COMPONENTS), np.float32), np.zeros(N_COMPONENTS)
    if n_rows < 2:
        return components, variances
    mean = total / n_rows
    values, axes = np.linalg.eigh(products / n_rows - np.outer(mean, mean))
    rank = min(N_COMPONENTS, n_rows - 1, len(values))
    values, axes = np.maximum(values[::-1][:rank], 0), axes[:, ::-1][:, :rank]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(rank)] < 0, -1, 1)
    variances[:rank] = values
    first = 0
    for block in heat.blocks(positions):
        components[first : first + len(block), :rank] = (block.astype(np.float64) - mean) @ axes
        first += len(block)
    return components, variances
