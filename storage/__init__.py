"""The attribution store: what a night explains, in one HDF5 file that says of each row how far it can be trusted.

Analysts need `open_store`; the night needs `write_part`, `check_part` and `seal_store`; `Catalog` knows what lies where;
`verify_store` finds what is wrong with a store.
Needs NumPy and h5py (pandas for tables), and never the model's side: `import storage` loads no TensorFlow and no Prefect.
"""

from storage.catalog import Catalog, new_night_id, resolve_store
from storage.errors import (
    StoreCorrupt,
    StoreError,
    StoreFormatError,
    StoreIncomplete,
    StoreNotFound,
    StoreVersionError,
)
from storage.findings import Finding
from storage.part import PartSummary, check_part, part_path, read_part_summary, write_part
from storage.schema import SCHEMA_VERSION
from storage.seal import SealSummary, seal_store
from storage.store import AttributionStore, Target, open_store
from storage.verify import verify_store
from storage.views import RowView

__all__ = [
    "SCHEMA_VERSION",
    "AttributionStore",
    "Catalog",
    "Finding",
    "PartSummary",
    "RowView",
    "SealSummary",
    "StoreCorrupt",
    "StoreError",
    "StoreFormatError",
    "StoreIncomplete",
    "StoreNotFound",
    "StoreVersionError",
    "Target",
    "check_part",
    "new_night_id",
    "open_store",
    "part_path",
    "read_part_summary",
    "resolve_store",
    "seal_store",
    "verify_store",
    "write_part",
]
