"""Seal: the parts of a plan become one store, and, after the audit, the one that `latest` points to."""

from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from storage import Catalog, open_store, seal_store
from storage.file.catalog import STORE_NAME
from storage.file.rounding import EXPLICIT_BITS
from storage.write.sealing import Layout
from tasks.night.outage import note_result
from tasks.night.result import NightResult, write_record
from tasks.parts.plan import Plan
from tasks.parts.precision_error import measure_precision_error
from tasks.process.provenance import git_commit, software_versions
from tasks.worth.assessment import NOT_ASSESSED, Assessed

__all__ = ["promote", "seal"]


@task(name="seal")
def seal(
    plan: Plan,
    night_id: str,
    created_utc: str,
    flow_run_id: str,
    configuration: Mapping[str, BaseModel],
    assessed: Assessed = NOT_ASSESSED,
    layout: Layout = "single",
) -> Path:
    """Seals the plan's parts into the night's store and returns its path. configuration: the flow's parameters.
    assessed: what the explanations are worth.

    layout: as seal_store takes it; it decides where the numbers are, not which they are.
    A resumed night may have been sealed before; then its store must be of this very plan, or it is a ValueError.
    """
    path = Catalog(plan.root).night_dir(night_id) / STORE_NAME
    if path.exists():
        return _sealed_before(path, plan)
    summary = seal_store(
        path,
        [plan.part(start, stop) for start, stop in plan.ranges()],
        class_names=plan.dataset.class_names,
        expected_rows=(plan.start, plan.stop),
        layout=layout,
        tables=assessed.tables,
        attributes={
            "run_id": night_id,
            "created_utc": created_utc,
            "dataset_name": plan.dataset.name,
            "dataset_version": plan.dataset.version,
            "dataset_split": plan.dataset.test_split,
            "dataset_sha256": plan.dataset.sha256,
            "model_name": plan.model.name,
            "model_sha256": plan.model.sha256,
            "configuration": {
                **to_jsonable_python(dict(configuration)),
                "resolved": {
                    "root": str(plan.root.absolute()),
                    "dataset": plan.dataset.model_dump(mode="json"),
                    "model_path": str(plan.model.path),
                    "model_code": None if plan.model.code is None else str(plan.model.code),
                    "model_code_sha256": plan.model.code_sha256,
                    "grad_cam_layer": plan.layer,
                    "part_rows": plan.part_rows,
                    "precision": plan.precision,
                    "precision_reason": plan.precision_reason,
                    "transform": plan.dataset.transform,
                    "training": plan.model.training,
                },
            },
            "software": software_versions(),
            "git_commit": git_commit(),
            "flow_run_id": flow_run_id,
            "significant_bits": 1 + (plan.integrated_gradients.keep_mantissa_bits or EXPLICIT_BITS),
            "batch_size": plan.batch_size,
            "precision": plan.precision,
            "precision_error": measure_precision_error(plan),
            "contract": plan.contract.as_json(),
            "device": plan.device,
            "worth": assessed.assessment.as_json(),
        },
    )
    if summary.n_copied:
        get_run_logger().warning(
            "%d parts were copied into the night's folder, where no hard links to %s are possible: they take room twice",
            summary.n_copied, plan.parts_folder,
        )  # fmt: skip
    megabytes = summary.bytes / 1e6
    get_run_logger().info("sealed %d rows, %.1f MB in %.1f s: %s", summary.rows, megabytes, summary.seconds, path)
    return path


def _sealed_before(path: Path, plan: Plan) -> Path:
    with open_store(path) as store:
        about, rows = store.attributes, store.row_range
    if about["digest"] != plan.digest or rows != range(plan.start, plan.stop):
        raise ValueError(f"{path} was sealed with other settings, data, model or code; start a new night instead")
    get_run_logger().info("sealed before: %s", path)
    return path


@task(name="promote")
def promote(plan: Plan, result: NightResult) -> None:
    """Writes the night's record and moves `latest` to it, if it is to, in one step; only a sealed and audited night gets here."""
    catalog = Catalog(plan.root)
    night = catalog.night_dir(result.night_id)
    write_record(result)
    if result.moves_latest and not catalog.point_latest(night):
        get_run_logger().warning(
            "%s has no symbolic links: `latest` is a file that names the night; give %s where a path asks for latest/...",
            plan.root, plan.root,
        )  # fmt: skip
    note_result(result)
