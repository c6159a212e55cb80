"""The table of a row per image as one Parquet file, units and descriptions in its schema."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.export import Progress
from storage.schema import BY_PATH
from storage.store import AttributionStore

PLACES = ("", "integrated_gradients/", "grad_cam/")
FILE = "rows.parquet"


def write(store: AttributionStore, rows: NDArray[np.int64], folder: Path, progress: Progress) -> None:
    """Write rows.parquet: the columns of AttributionStore.table() with the row number as `row`."""
    table = pa.Table.from_pandas(store.table().loc[rows].reset_index(), preserve_index=False)
    fields = [field.with_metadata(_about(field.name)) for field in table.schema]
    about = {name: str(store.attributes[name]) for name in ("run_id", "dataset_name", "dataset_split", "model_sha256")}
    schema = pa.schema(fields, metadata={**(table.schema.metadata or {}), **about})
    pq.write_table(table.cast(schema), folder / FILE, compression="zstd")
    progress(len(rows), len(rows))


def _about(column: str) -> dict[str, str]:
    variable = next((BY_PATH[place + column] for place in PLACES if place + column in BY_PATH), None)
    return {"units": variable.units, "description": variable.description} if variable else {}
