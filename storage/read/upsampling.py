"""Maps at the size of the image: bilinear, half-pixel centres, raw units.

Output pixel i of n lies at (i + 1/2) m / n - 1/2 among m map cells; between two cells values are linear, beyond the outer
ones constant. So do TensorFlow's tf.image.resize and, where it enlarges, PIL's BILINEAR. Nothing is normalised.
"""

import numpy as np
from numpy.typing import NDArray


def upsample(maps: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Maps (..., cam_y, cam_x) enlarged to (..., height, width), in the maps' units; zero stays zero."""
    rows, columns = _weights(maps.shape[-2], height), _weights(maps.shape[-1], width)
    return (rows @ maps @ columns.T).astype(np.float32, copy=False)


def _weights(n_cells: int, n_pixels: int) -> NDArray[np.float32]:
    """(pixel, cell): how much each cell counts in each pixel; every line sums to 1."""
    position = np.clip((np.arange(n_pixels) + 0.5) * n_cells / n_pixels - 0.5, 0, n_cells - 1)
    distance = np.abs(position[:, None] - np.arange(n_cells))
    return np.maximum(1 - distance, 0).astype(np.float32)
