"""The attribution store: what a night explains, in one HDF5 file that says of each row how far it can be trusted.

Analysts need `open_store`; the night needs `write_part`, `check_part` and `seal_store`; `Catalog` knows what lies where;
`verify_store` finds what is wrong with a store.
Needs NumPy and h5py (pandas for tables), and never the model's side: `import storage` loads no TensorFlow and no Prefect.

store    open_store, and the store with its tables and figures
errors   what can be wrong with a store, as one small family
file/    what is on the disk: schema, layout, chunks, locks, the folder of all nights
read/    a sealed store by row number
write/   parts, and the seal that makes one store of them
check/   verify_store
draw/    figures of rows
nights/  the nights of a root: their state, pins, and pruning
export/  rows in the formats of other programs
"""

from storage.check.findings import Finding
from storage.check.verify import verify_store
from storage.errors import (
    StoreCorrupt,
    StoreError,
    StoreFormatError,
    StoreIncomplete,
    StoreNotFound,
    StoreUnreachable,
    StoreVersionError,
)
from storage.file.catalog import Catalog, new_night_id, resolve_store
from storage.file.disk.lock import LockBusy
from storage.file.methods import METHODS, StoredMethod
from storage.file.schema import COLUMNS, SCHEMA_VERSION
from storage.file.variable import Column
from storage.nights.night_entries import NightEntry, find_night, pin, read_nights
from storage.nights.prune import Pruning, Removal, pruning, remove
from storage.read.parts.part_summary import PartSummary, check_part, part_path, read_part_summary
from storage.read.reader import Target
from storage.read.row_views import RowView
from storage.store import AttributionStore, open_store
from storage.write.part_writer import write_part
from storage.write.sealing import SealSummary, seal_store

__all__ = [
    "COLUMNS",
    "METHODS",
    "SCHEMA_VERSION",
    "AttributionStore",
    "Catalog",
    "Column",
    "Finding",
    "LockBusy",
    "NightEntry",
    "PartSummary",
    "Pruning",
    "Removal",
    "RowView",
    "SealSummary",
    "StoreCorrupt",
    "StoreError",
    "StoreFormatError",
    "StoreIncomplete",
    "StoreNotFound",
    "StoreUnreachable",
    "StoreVersionError",
    "StoredMethod",
    "Target",
    "check_part",
    "find_night",
    "new_night_id",
    "open_store",
    "part_path",
    "pin",
    "pruning",
    "read_nights",
    "read_part_summary",
    "remove",
    "resolve_store",
    "seal_store",
    "verify_store",
    "write_part",
]
