"""What there is to see of a strategy: its mean heat, typical images, images that its region changed, and the region."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore
from tasks.numerics.worth.strategies import grown

__all__ = ["N_PASTED", "N_TYPICAL", "StrategyPictures", "strategy_pictures"]

N_TYPICAL, N_PASTED = 3, 2


@dataclass(frozen=True)
class StrategyPictures:
    """heat: the mean heat, (cell_y, cell_x), scaled to -1..1. cells, region: where its region is, (cell_y, cell_x) and (y, x).

    typical: its first medoids, as row numbers and images (n, y, x, channel) uint8. pasted: pairs of row numbers, and the
    images of the second with the region of the first.
    """

    heat: NDArray[np.float32]
    cells: NDArray[np.bool_]
    region: NDArray[np.bool_]
    typical_rows: tuple[int, ...]
    typical: NDArray[np.uint8]
    pasted_rows: tuple[tuple[int, int], ...]
    pasted: NDArray[np.uint8]


def strategy_pictures(store: AttributionStore, number: int, pasted: Sequence[tuple[int, int]]) -> StrategyPictures:
    """Of a cluster by its number. pasted: pairs of rows, whose region and whose image, of which N_PASTED are taken."""
    heat = store.column("clusters/mean_heat")[number]
    cells = store.column("clusters/region")[number].astype(bool)
    region = grown(cells, store.image_shape[:2])
    typical, pairs = store.column("clusters/medoid_row")[number][:N_TYPICAL], np.array(pasted[:N_PASTED], int)
    members, hosts = pairs.reshape(-1, 2).T
    return StrategyPictures(
        heat=heat / (float(np.abs(heat).max()) or 1.0),
        cells=cells,
        region=region,
        typical_rows=tuple(typical.tolist()),
        typical=store.images(typical),
        pasted_rows=tuple(zip(members.tolist(), hosts.tolist(), strict=True)),
        pasted=np.where(region[..., None], store.images(members), store.images(hosts)),
    )
