"""A night with a report: the example store with a configuration, its record, a contract, and texts that would break a page."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from example_clusters import NAMES as CLUSTER_NAMES
from example_clusters import example_clusters
from example_store import ATTRIBUTES, CLASS_NAMES, joined_arrays, write_parts
from example_worth import example_assessment
from storage import open_store, seal_store
from tasks.night.evaluation import measure
from tasks.report import write_report

N_ROWS = 160
HISTORY = {"loss": [1.2, 0.6], "val_loss": [1.0, 0.9], "accuracy": [0.5, 0.8], "val_accuracy": [0.6, 0.7]}
NIGHT = {
    "verdict": "sealed with warnings: 7 of 160 rows did not converge; accuracy fell",
    "audit": "passed",
    "n_rows": 160,
    "accuracy": 0.66,
    "stage_seconds": {"ingest": 2.0, "explain": 30.5},
}
CONFIGURATION = {
    "explanation": {"score": "probability"},
    "integrated_gradients": {"gap_tolerance": 0.05, "error_tolerance": 0.2, "rule": "adaptive", "baseline": "black"},
    "gallery": {"spotlight": [91, 98, 5000]},
}
CONTRACT: dict[str, Any] = {
    "summary": "images as 0 to 255 (auto)",
    "input": {
        "name": "raw",
        "mean": [0, 0, 0],
        "scale": [1 / 255] * 3,
        "bgr": False,
        "text": "images as 0 to 255",
        "chosen": "auto: it explains the labels best",
        "feeds": [
            {"name": "raw", "accuracy": 0.9512, "log_likelihood": -0.21, "n_images": 512, "note": ""},
            {
                "name": "unit",
                "accuracy": 0.082,
                "log_likelihood": -2.31,
                "n_images": 64,
                "note": "the same outputs as x",
            },
            {"name": "caffe", "note": "outputs are not finite"},
        ],
    },
    "output": {"kind": "probability", "text": "probabilities that sum to 1", "logits": "what goes into the softmax"},
    "classes": {"order": "names sorted as strings", "text": "names sorted as strings"},
    "grad_cam": {"layer": "backbone/c1", "text": "the last map of all paths"},
    "checks": [
        {"name": "same images twice", "text": "largest difference 0", "passed": True},
        {"name": "another batch", "text": "largest difference 3", "passed": False},
    ],
    "warnings": ["signed nearly as well"],
}
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>\"'`${window.hacked = 1}{{ 7 * 7 }}",
    "<!-- <script> & 猫 \u2028 " + "very long " * 30,
]


def seal_example(
    folder: Path,
    names: list[str] = CLASS_NAMES,
    *,
    grad_cam: bool = True,
    tables: dict[str, NDArray] | None = None,
    **changed: object,
) -> Path:
    path = folder / "attributions.h5"
    attributes = ATTRIBUTES | {"configuration": CONFIGURATION} | changed
    parts = write_parts(folder / "parts", 0, N_ROWS, grad_cam=grad_cam)
    seal_store(path, parts, class_names=names, attributes=attributes, tables=tables or {})
    return path


def seal_assessed(
    folder: Path, names: list[str] = CLASS_NAMES, clusters: list[str] = CLUSTER_NAMES, **changed: object
) -> Path:
    """The same night with its worth and, by these names, its strategies; without names it has none."""
    path = folder / "attributions.h5"
    rows, predictions = np.arange(N_ROWS), joined_arrays(0, N_ROWS)["prediction"]
    tables = example_clusters(rows, predictions, clusters) if clusters else {}
    worth = example_assessment(tables, rows, predictions).as_json()
    attributes = ATTRIBUTES | {"configuration": CONFIGURATION, "worth": worth} | changed
    parts = write_parts(folder / "parts", 0, N_ROWS)
    seal_store(path, parts, class_names=names, attributes=attributes, tables=tables)
    return path


def write(path: Path, night: dict | None = None, history: dict | None = None, out: Path | None = None) -> Path:
    with open_store(path) as store:
        evaluation = measure(store.probabilities, store.labels, tuple(store.class_names), seed=0)
        return write_report(
            store, NIGHT if night is None else night, evaluation, HISTORY if history is None else history, out
        )


def hostile_contract() -> dict[str, Any]:
    """Every text of the contract is somebody's: layers, feeds and notes carry names from the model's file."""
    first, second, third = HOSTILE
    return {
        "summary": first,
        "input": {
            "name": second,
            "text": third,
            "chosen": first,
            "feeds": [{"name": second, "accuracy": 0.5, "log_likelihood": -1.0, "n_images": 3, "note": first}],
        },
        "output": {"kind": second, "text": first, "logits": third},
        "classes": {"order": second, "text": first},
        "grad_cam": {"layer": second, "text": first},
        "checks": [{"name": second, "text": first, "passed": False}],
        "warnings": [first, second],
    }
