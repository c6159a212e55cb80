"""The numbers of all rows as the page carries them: a column of little-endian numbers each, in base64."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from storage import AttributionStore
from tasks.report.picture_strips import RowPictures
from tasks.report.ranking import REASONS

__all__ = ["page_data"]

# Read back by templates/report.js under the same names; all of float32 is kept.
COLUMNS = {
    "label": "<u2",
    "prediction": "<u2",
    "confidence": "<f4",
    "gap": "<f4",
    "quadrature_error": "<f4",
    "n_gradients": "<u4",
    "converged": "<u1",
    "cam_max": "<f4",
}
N_LIKELY = 3


def page_data(store: AttributionStore, table: pd.DataFrame, pictures: Sequence[RowPictures]) -> dict[str, Any]:
    """What the page's script works on. table: as of AttributionStore.table()."""
    return {
        "start": int(table.index[0]),
        "n_rows": len(table),
        "classes": store.class_names,
        "reasons": REASONS,
        "store": str(store.path),
        "grad_cam": store.has_grad_cam,
        "columns": {
            name: [dtype[1:], base64.b64encode(table[name].to_numpy().astype(dtype).tobytes()).decode()]
            for name, dtype in COLUMNS.items()
            if name != "cam_max" or store.has_grad_cam
        },
        "pictures": [_entry(store, entry) for entry in sorted(pictures, key=lambda entry: entry.row)],
    }


def _entry(store: AttributionStore, entry: RowPictures) -> dict[str, Any]:
    probabilities = store.probabilities[entry.row - int(store.row_numbers[0])]
    likely = np.argsort(-probabilities, kind="stable")[:N_LIKELY]
    return {
        "row": entry.row,
        "why": REASONS.index(entry.why),
        "image": entry.image,
        "true": _rounded(asdict(entry.true)),
        "predicted": _rounded(asdict(entry.predicted)) if entry.predicted else None,
        "likely": [[int(k), round(float(probabilities[k]), 4)] for k in likely],
    }


def _rounded(explanation: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: explanation[name] for name in ("limit", "peak") if explanation[name] is not None}
    return explanation | {name: float(f"{value:.3g}") for name, value in numbers.items()}
