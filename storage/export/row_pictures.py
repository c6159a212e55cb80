"""The seed's figure of each row as a PNG, named by the row's number."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.export import Progress
from storage.store import AttributionStore

DPI = 100


def write(store: AttributionStore, rows: NDArray[np.int64], folder: Path, progress: Progress) -> None:
    """Write row-000091.png and so on."""
    for done, row in enumerate(rows.tolist(), start=1):
        store.figure(row).savefig(folder / f"row-{row:06d}.png", format="png", dpi=DPI)
        progress(done, len(rows))
