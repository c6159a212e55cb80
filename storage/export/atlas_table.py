"""The rows for Embedding Atlas: a line per image with its pictures, its place on a map, and the rows most like it.

    atlas.parquet    row, and the columns of AttributionStore.table(), for the predicted class
                     image, integrated_gradients and the maps: {bytes, path}, a PNG each
                     projection_x, projection_y: where the row is on the map, see storage/export/neighbourhood.py
                     neighbors: {ids, distances}, ids being positions in this file, from 0
                     n_neighbor_of: of how many rows it is a neighbour
    atlas.json       how the columns are shown, for --state

All of it is of the class that the model predicts: the reasons for what it said, of which strategies are clusters, too.
With --pagerank Embedding Atlas takes n_neighbor_of for the importance of a row, where it would compute one with PyTorch.
Formats: its documentation, "Data Formats", and the help of its command (0.26).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.export.embedding import HeatFile, pooled_heat
from storage.export.neighbourhood import nearest, plane
from storage.read.reader import StoreReader
from storage.read.row_means import block_rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_atlas"]

# As large as Embedding Atlas shows a picture beside a point.
SIDE = 96
GROUP_ROWS = 1024


def write_atlas(store: StoreReader, rows: NDArray[np.int64], folder: Path, advance: Callable[[int], None]) -> None:
    """Write atlas.parquet, a block of rows at a time, and atlas.json. Arguments as export_rows.

    Pictures are in memory for a block alone, what else there is of a row for all of them: 2 kB each.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = _numbers(store, rows, folder / "rows.heat")
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [numbers.schema.field(0), *(pa.field(name, picture) for name in _picture_names(store))]
    about = json.dumps(store.attributes, ensure_ascii=False, sort_keys=True)
    schema = pa.schema([*fields, *list(numbers.schema)[1:]], {"nightlens": about})
    with pq.ParquetWriter(folder / "atlas.parquet", schema) as writer:
        for first in range(0, len(rows), GROUP_ROWS):
            block = numbers.slice(first, GROUP_ROWS)
            columns = dict(zip(block.column_names, block.columns, strict=True)) | _pictures(
                store, block["row"].to_pylist()
            )
            writer.write_table(pa.table([columns[name] for name in schema.names], schema=schema))
            advance(len(block))
    (folder / "atlas.json").write_text(json.dumps(_state(store), indent=1), encoding="utf-8")


def _numbers(store: StoreReader, rows: NDArray[np.int64], heat_path: Path) -> "pa.Table":
    """Every column but the pictures, `row` first. Columns in which no row has a value are left out."""
    import pyarrow as pa

    from storage.read.tables import row_table

    heat = _heat(store, rows, heat_path)
    places, (positions, distances) = plane(heat, len(rows)), nearest(heat, len(rows))
    heat.remove()
    table = row_table(store, rows, "predicted").reset_index()
    found = [{"ids": ids, "distances": far} for ids, far in zip(positions, distances, strict=True)]
    return pa.table(
        {
            **{name: _column(table[name].to_numpy()) for name in table if _says_something(table[name].to_numpy())},
            "projection_x": places[:, 0],
            "projection_y": places[:, 1],
            "neighbors": pa.array(
                found, pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])
            ),
            "n_neighbor_of": np.bincount(positions.ravel(), minlength=len(rows)).astype(np.int32),
        }
    )


def _heat(store: StoreReader, rows: NDArray[np.int64], path: Path) -> HeatFile:
    heat, step = HeatFile(path), block_rows(store.image_shape, itemsize=4)
    for first in range(0, len(rows), step):
        heat.append(pooled_heat(store.attributions(rows[first : first + step], "predicted")))
    return heat


def _says_something(values: NDArray) -> bool:
    """Whether some row has a name, or a number. Of no rows every column does."""
    if values.dtype == object:
        return not len(values) or bool((values != "").any())
    return not len(values) or not np.isnan(values).all()


def _column(values: NDArray) -> "pa.Array":
    """Names as text also where there are no rows, and NaN as no value."""
    import pyarrow as pa

    return pa.array(values, pa.string() if values.dtype == object else None, from_pandas=True)


def _pictures(store: StoreReader, rows: list[int]) -> "dict[str, pa.Array]":
    import pyarrow as pa

    from storage.draw.thumbnails import as_png, thumbnails

    columns: dict[str, list[dict[str, Any]]] = {name: [] for name in _picture_names(store)}
    for row, pictures in zip(rows, thumbnails(store, rows, SIDE, "predicted"), strict=True):
        for name, pixels in pictures.items():
            columns[name].append({"bytes": as_png(pixels), "path": f"row-{row}-{name}.png"})
    return {name: pa.array(cells) for name, cells in columns.items()}


def _picture_names(store: StoreReader) -> list[str]:
    return [*(("image",) if store.has_images else ()), *(method.group for method in store.methods)]


def _state(store: StoreReader) -> dict[str, object]:
    """Pictures beside a point, numbers as badges, and what is for the program alone hidden."""
    shown = {"renderer": "image", "display": "full", "options": {"size": SIDE}}
    hidden = ("projection_x", "projection_y", "neighbors", "n_neighbor_of")
    styles = dict.fromkeys(_picture_names(store), shown) | dict.fromkeys(hidden, {"display": "hidden"})
    return {"columnStyles": styles}
