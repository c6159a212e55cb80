"""The formats by name, and the one function that exports."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from storage.export.atlas_table import write_atlas
from storage.export.destination import whole_folder
from storage.export.parquet_table import write_parquet
from storage.export.row_figures import write_figures
from storage.export.tensorboard_logs import History, write_tensorboard
from storage.export.virelay_project import write_virelay
from storage.export.zarr_group import write_zarr
from storage.read.reader import StoreReader

__all__ = ["FORMATS", "Format", "export_rows"]

Format = Literal["virelay", "zarr", "parquet", "png", "atlas", "tensorboard"]
FORMATS: tuple[Format, ...] = get_args(Format)
# (store, row numbers ascending, an empty folder, a callback for how many rows are done since it was last called)
Writer = Callable[[StoreReader, NDArray[np.int64], Path, Callable[[int], None]], None]
WRITERS: dict[Format, Writer] = {
    "virelay": write_virelay,
    "zarr": write_zarr,
    "parquet": write_parquet,
    "png": write_figures,
    "atlas": write_atlas,
    "tensorboard": write_tensorboard,
}


def export_rows(
    store: StoreReader,
    rows: NDArray[np.int64],
    format: Format,
    destination: Path,
    *,
    chosen: dict[str, object] | None = None,
    advance: Callable[[int], None] = lambda n_rows: None,
    history: History | None = None,
) -> None:
    """Write rows of a store into the folder `destination`, which appears when it is whole.

    rows: row numbers, ascending; none of them gives an export without rows.
    destination: as prepared_destination returned it.
    chosen: how the rows were chosen, to be noted in export.json.
    advance: called with the number of rows that were finished since the call before.
    history: the training curves of the model, which TensorBoard shows; None where they are not known.
    Raises StoreCorrupt naming damaged rows, OSError if the folder cannot be written, ModuleNotFoundError where a
    package of an extra, `export` or `tensorboard`, is missing; nothing is left behind then.
    """
    about = {
        "format": format,
        "n_rows": len(rows),
        "grad_cam": store.has_grad_cam,
        "chosen": chosen or {},
        "store": {name: value for name, value in store.attributes.items() if isinstance(value, (str, int))},
    }
    write = partial(write_tensorboard, history=history) if format == "tensorboard" else WRITERS[format]
    with whole_folder(destination, about) as folder:
        write(store, rows, folder, advance)
