"""Strategies of an example night, made up: clusters of its rows, as a store has them."""

import numpy as np
from numpy.typing import NDArray

NAMES = ["0a", "0b", "2a"]
CELLS = (8, 6)


def example_clusters(row_numbers: NDArray, predictions: NDArray, names: list[str] = NAMES) -> dict[str, NDArray]:
    """The table /clusters: class 0 has two strategies, the second a shortcut; 1 has none; 2 has one without a region."""
    random = np.random.default_rng(3)
    of_row = np.full(len(row_numbers), -1)
    zeros, twos = np.flatnonzero(predictions == 0), np.flatnonzero(predictions == 2)
    of_row[zeros[::2]], of_row[zeros[1::3]], of_row[twos] = 0, 1, 2
    region = np.zeros((3, *CELLS), bool)
    region[0, 1:3, 2:5], region[1, 6, 0] = True, True
    return {
        "clusters/name": np.array(names, dtype=object),
        "clusters/class": np.array([0, 0, 2]),
        "clusters/n_rows": np.bincount(of_row[of_row >= 0], minlength=3),
        "clusters/share_wrong": np.array([0.25, 0.5, 0.125]),
        "clusters/transplant_score": np.array([0.125, 0.875, 0.0]),
        "clusters/transplant_control": np.array([0.0625, 0.03125, 0.0]),
        "clusters/region_share": region.mean(axis=(1, 2)),
        "clusters/region": region,
        "clusters/mean_heat": random.normal(size=(3, *CELLS)),
        "clusters/medoid_row": np.stack([row_numbers[of_row == number][:4] for number in range(3)]),
        "clusters/of_row": of_row,
    }
