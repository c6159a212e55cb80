"""The notebook's figures as files: one PNG per row, named by the row's number only, so no class name becomes a path."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.read.reader import StoreReader

__all__ = ["write_figures"]

DPI = 100


def write_figures(store: StoreReader, rows: NDArray[np.int64], folder: Path, advance: Callable[[int], None]) -> None:
    """Write row-N.png for each row, N with as many digits as the store's last row needs. Arguments as export_rows."""
    from storage.draw.row_pictures import draw_row
    from storage.draw.row_sheet import draw_rows

    width = len(str(store.row_range[-1]))
    for row in rows.tolist():
        figure = draw_row(store, row) if store.has_images else draw_rows(store, np.array([row]))
        figure.savefig(folder / f"row-{row:0{width}d}.png", format="png", dpi=DPI)
        advance(1)
