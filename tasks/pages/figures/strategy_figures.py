"""A sheet of strategies: of each the mean heat, typical images with the region outlined, and images that the region changed."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage import AttributionStore
from storage.draw.figures import RED_GREEN, as_rgb
from storage.read.class_names import CLUSTER, class_number
from tasks.pages.sheets import Tile, rows_sheet
from tasks.worth.strategies.strategy_pictures import N_PASTED, N_TYPICAL, strategy_pictures

__all__ = ["strategies_sheet"]

OUTLINE = np.array([0.8, 0.0, 0.8], np.float32)  # no class of objects and no heat has it
LEAST_SIDE = 192  # pixels: an outline of one or two is thin then
BLANK = np.ones((1, 1, 3), np.float32)
HEADINGS = ("mean heat", "typical", *[""] * (N_TYPICAL - 1), "pasted into", *[""] * (N_PASTED - 1))


def strategies_sheet(
    store: AttributionStore, names: Sequence[str], pasted: Mapping[str, Sequence[tuple[int, int]]]
) -> Figure:
    """A line for each strategy of a store, by name. pasted: pairs of rows, whose region and whose image, by name."""
    lines = []
    for name in names:
        number = class_number(store.cluster_names, name, CLUSTER)
        values = {key: store.column(f"clusters/{key}")[number] for key in ("n_rows", "share_wrong", "transplant_score")}
        said = (
            f"{values['transplant_score']:.0%} become it"
            if store.column("clusters/region")[number].any()
            else "no region"
        )
        caption = f"{name}\n{values['n_rows']} rows\n{values['share_wrong']:.0%} wrong\n{said}"
        lines.append((caption, _tiles(store, number, pasted.get(name, ()))))
    return rows_sheet(lines, HEADINGS)


def _tiles(store: AttributionStore, number: int, pasted: Sequence[tuple[int, int]]) -> list[Tile]:
    seen = strategy_pictures(store, number, pasted)
    images = [_outlined(image, seen.region) for image in (*seen.typical, *seen.pasted)]
    tiles: list[Tile] = [RED_GREEN(seen.heat / 2 + 0.5)[..., :3], *images]
    return tiles + [BLANK] * (len(HEADINGS) - len(tiles))


def _outlined(image: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The image, enlarged, with the outside edge of the region drawn around it."""
    factor = max(1, -(-LEAST_SIDE // max(region.shape)))
    large, inside = (a.repeat(factor, axis=0).repeat(factor, axis=1) for a in (as_rgb(image), region))
    width = max(1, max(inside.shape) // 96)
    around = np.zeros_like(inside)
    padded = np.pad(inside, width)
    for down in range(2 * width + 1):
        for right in range(2 * width + 1):
            around |= padded[down : down + inside.shape[0], right : right + inside.shape[1]]
    return np.where((around & ~inside)[..., None], OUTLINE, large)
