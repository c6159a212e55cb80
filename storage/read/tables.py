"""pandas tables of a store: what is known of each image, and how far its attribution can be trusted."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.file.added_tables import CLUSTERS
from storage.file.methods import CERTIFICATE
from storage.file.schema import COLUMNS
from storage.read.reader import StoreReader, Target

__all__ = ["certificate_table", "clusters_table", "row_table"]


def certificate_table(store: StoreReader, target: Target, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """The certificate of these rows by row number, in the columns of CERTIFICATE; converged as bool."""
    return _table(store, CERTIFICATE, numbers, target)


def row_table(store: StoreReader, numbers: NDArray[np.int64], target: Target = "true") -> pd.DataFrame:
    """A line for each of these rows, with every column of the schema that is for tables; flags as bool.

    A number that the store does not have, as the maximum of a map in one without maps, is NaN, and not 0.
    """
    return _table(store, [column.name for column in COLUMNS if "table" in column.places], numbers, target)


def clusters_table(store: StoreReader) -> pd.DataFrame:
    """A line for each cluster, by its number, in the order of CLUSTERS; what is no number a cluster is left out."""
    names = [variable.name for variable in CLUSTERS.variables if variable.dimensions == ("cluster",)]
    columns = {name: store.column(f"clusters/{name}") for name in names} if store.has_clusters else {}
    table = pd.DataFrame(columns, columns=[name for name in names if name != "cluster"])
    table["name"] = store.cluster_names
    table.insert(2, "class_name", [store.class_names[number] for number in table["class"]])
    return table.rename_axis("cluster")


def _table(store: StoreReader, names: Sequence[str], numbers: NDArray[np.int64], target: Target) -> pd.DataFrame:
    index, columns = pd.Index(numbers, name="row"), {name: store.values(name, numbers, target) for name in names}
    # With its dtype: pandas 3 would make names a text dtype of its own, which pandas 2 has not.
    return pd.DataFrame({name: pd.Series(values, index, dtype=values.dtype) for name, values in columns.items()}, index)
