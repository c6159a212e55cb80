"""The table of a store, a line per image, as Parquet: `rows.parquet`, for pandas, polars, DuckDB, Spark and R."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.read.reader import StoreReader

__all__ = ["write_parquet"]


def write_parquet(store: StoreReader, rows: NDArray[np.int64], folder: Path, advance: Callable[[int], None]) -> None:
    """Write rows.parquet: the column `row`, then the columns of AttributionStore.table(), class names included.

    The key `nightlens` of the file's metadata holds the store's root attributes as JSON. Arguments as export_rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from storage.read.tables import row_table

    table = pa.Table.from_pandas(row_table(store, rows).reset_index(), preserve_index=False)
    about = json.dumps(store.attributes, ensure_ascii=False, sort_keys=True)
    pq.write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), "nightlens": about}), folder / "rows.parquet"
    )
    advance(len(rows))
