"""Which rows of a sealed store are computed again, by which plan and on which device; whether its contract still holds."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore, Finding, open_store
from storage.nights.packed_files import HANDOVER
from tasks.config import FeedConfig
from tasks.contract import establish
from tasks.models.registry import ModelError, load_model
from tasks.numerics.network.device import device_name, has_tensor_float_32
from tasks.parts.plan import Plan
from tasks.parts.recorded import recorded_plan
from tasks.recompute.compared_rows import compare_rows

__all__ = ["other_device", "own_images", "recompute_rows"]

CONTRACT = "contract"


def recompute_rows(
    path: Path,
    n_rows: int,
    *,
    seed: int | None = None,
    root: Path | None = None,
    model: Path | None = None,
    code: Path | None = None,
) -> tuple[NDArray[np.int64], tuple[Finding, ...]]:
    """The rows that were computed again, and a finding for each kind of difference.

    n_rows: how many random rows, at most all. seed: of their choice, by default from the store's run id.
    root, model, code: where to find what was recorded, as recorded_plan takes them.
    Raises RecordError, or a StoreError if the store cannot be read.
    """
    with open_store(path) as store:
        chosen = np.random.default_rng(_seed(store) if seed is None else seed)
        rows = np.sort(chosen.choice(store.row_numbers, min(n_rows, len(store)), replace=False))
        plan = _here(recorded_plan(store, root=root, model=model, code=code))
        findings = [*_prove_contract(plan)]
        for start in range(0, len(rows), plan.part_rows):
            findings += compare_rows(store, plan, rows[start : start + plan.part_rows])
        return rows, tuple(findings)


def other_device(path: Path) -> str:
    """In words that a store was computed on another device than this process computes on; empty where it was not.

    Before schema 6 no store says on which, and that is nothing to say.
    """
    with open_store(path) as store:
        device, precision = store.attributes["device"], str(store.attributes["precision"])
    if device in (None, device_name()):
        return ""
    return f"computed on {device} in {precision}, recomputed on {device_name()} in {_precision_here(precision)}"


def own_images(path: Path) -> str:
    """In words that a packed night's rows are computed again from the store's own images; empty where they are not."""
    with open_store(path) as store:
        configuration: Any = store.attributes["configuration"]
        name = store.attributes["dataset_name"]
    recorded = configuration.get("resolved", {}).get("dataset", {}).get("directory")
    if not (path.parent / HANDOVER).is_dir() or recorded is None or Path(recorded).is_dir():
        return ""
    return (
        f"the dataset {name} is not on this machine: rows are computed again from the images in the store, and the contract is "
        "proved on the sample that came with them; --root names a root that has the dataset"
    )


def _here(plan: Plan) -> Plan:
    return plan.model_copy(update={"precision": _precision_here(plan.precision)})


def _precision_here(precision: str) -> str:
    return "float32" if precision == "tf32" and not has_tensor_float_32() else precision


def _prove_contract(plan: Plan) -> Iterator[Finding]:
    """What is not so any more of how the model is fed and read. Its feed is taken as recorded, like any setting."""
    recorded = plan.contract
    feed = FeedConfig(mean=recorded.mean, scale=recorded.scale, bgr=recorded.bgr)
    layer = recorded.layer or "none"
    try:
        network = load_model(plan.model.path, plan.model.code)
        found = establish(
            network,
            plan.model,
            plan.dataset,
            feed,
            score=plan.explanation.score,
            layer=layer,
            baseline=plan.integrated_gradients.baseline,
        )
    except ModelError as error:
        yield Finding(CONTRACT, "contract", str(error))
        return
    for name in ("output", "layer"):
        was, now = getattr(recorded, name), getattr(found, name)
        if was != now:
            yield Finding(CONTRACT, "contract", f"{name}: recorded as {was!r}, now {now!r}")


def _seed(store: AttributionStore) -> int:
    return zlib.crc32(str(store.attributes["run_id"]).encode())
