"""The analyst's door: open a store, trust or refuse its rows, know what may be wrong with it.

    import nightlens

    with nightlens.open_store("nightlens-data/latest") as store:
        rows = store.rows(label="cat", correct=False, converged=True)
        values = store.attributions(rows, target="predicted")

Needs the base install only: `import nightlens` loads neither TensorFlow nor Prefect nor pydantic.
"""

from importlib.metadata import version

from storage import (
    AttributionStore,
    Finding,
    StoreCorrupt,
    StoreError,
    StoreFormatError,
    StoreIncomplete,
    StoreNotFound,
    StoreUnreachable,
    StoreVersionError,
    open_store,
    verify_store,
)

__all__ = [
    "AttributionStore",
    "Finding",
    "StoreCorrupt",
    "StoreError",
    "StoreFormatError",
    "StoreIncomplete",
    "StoreNotFound",
    "StoreUnreachable",
    "StoreVersionError",
    "__version__",
    "open_store",
    "verify_store",
]

__version__ = version("nightlens")
