"""The record of a finished night: what the flow returns, `night.json` holds and the page `night` shows."""

import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python

from storage import Catalog, NightEntry, find_night, new_night_id, open_store
from storage.nights import begin_run, end_run, read_night, working_on
from tasks.log_fields import log_fields
from tasks.plan import Plan
from tasks.progress import Progress, report

__all__ = ["Night", "NightResult", "run_name"]

ZERO_MAPS_WARNING = 0.2


class NightResult(BaseModel):
    """A sealed night. Counts and shares are of rows explained for the true label; worst_gap is an absolute value.

    verdict: "sealed", or "sealed with warnings: ..." with what to look at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    night_id: str
    verdict: str
    store: Path
    gallery: Path
    store_bytes: int
    n_rows: int
    accuracy: float
    converged_share: float
    worst_gap: float
    gradients_per_image: float
    n_zero_maps: int
    audit: str
    stage_seconds: dict[str, float]
    flow_run_id: str

    @property
    def seconds(self) -> float:
        return sum(self.stage_seconds.values())


def run_name() -> str:
    """What a run is called in the UI: the dataset and when it began, UTC."""
    source = flow_run.parameters["dataset"].source
    return f"{Path(source).name} {datetime.now(UTC):%Y-%m-%d %H:%M}"


class Night:
    """The night while it runs: its id, when it began, and how long each stage took."""

    def __init__(self, night_id: str, began: str, flow_run_id: str):
        self.id, self.began, self.flow_run_id = night_id, began, flow_run_id
        self.stage_seconds: dict[str, float] = {}

    @classmethod
    @contextmanager
    def begin(cls, root: Path, flow_run_id: str, resume: str | None) -> Iterator[Self]:
        """A new night, or an unfinished one that goes on; while the context lasts it is known to be running.

        Raises StoreError or ValueError if there is no night `resume` that can go on.
        """
        catalog, now = Catalog(root), datetime.now(UTC)
        if resume:
            now = _resumable(catalog, resume).began or now
        night = cls(resume or new_night_id(now, secrets.token_hex(3)), now.isoformat(timespec="seconds"), flow_run_id)
        with working_on(catalog, night.id), log_fields(night=night.id):
            try:
                yield night
            except Exception as error:
                _write_end(catalog, night.id, failure=_one_line(error))
                raise
            _write_end(catalog, night.id)

    def record(self, plan: Plan, parameters: Mapping[str, BaseModel]) -> None:
        """Writes down what is about to be explained, so that the night can be resumed. parameters: the flow's."""
        catalog = Catalog(plan.root)
        folder = catalog.night_dir(self.id)
        if folder.is_dir() and (before := read_night(catalog, self.id).digest) not in (None, plan.digest):
            get_run_logger().warning("settings, data, model or code changed since night %s began: %s", self.id, before)
        about = {
            "digest": plan.digest,
            "start": plan.start,
            "stop": plan.stop,
            "part_rows": plan.part_rows,
            "model_sha256": plan.model.sha256,
        }
        begin_run(catalog, self.id, parameters=to_jsonable_python(dict(parameters)), plan=about)

    @property
    def seed(self) -> int:
        """Follows from the id, so that each night audits other rows and a night can be audited again."""
        return zlib.crc32(self.id.encode())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Reports the stage as it begins and keeps how long it took."""
        report(Progress(stage=name, done=0, total=1, unit="steps"))
        began = time.monotonic()
        with log_fields(stage=name):
            get_run_logger().info("stage %s begins", name)
            yield
            self.stage_seconds[name] = seconds = round(time.monotonic() - began, 2)
            get_run_logger().info("stage %s ends after %.1f s", name, seconds, extra={"seconds": seconds})
        report(Progress(stage=name, done=1, total=1, unit="steps"))

    def result(self, store: Path, accuracy: float, audit: str, warnings: tuple[str, ...]) -> NightResult:
        """The night's record, from its sealed store."""
        with open_store(store) as sealed:
            table = sealed.table()
        n_rows, n_open = len(table), int((table["converged"] == 0).sum())
        n_zero = int((table["cam_max"] == 0).sum())
        found = list(warnings)
        if n_open:
            found.append(f"{n_open} of {n_rows} rows did not converge")
        if n_zero > ZERO_MAPS_WARNING * n_rows:
            found.append(f"{n_zero} of {n_rows} Grad-CAM maps are empty")
        if audit != "passed":
            found.append(audit)
        return NightResult(
            night_id=self.id,
            verdict=f"sealed with warnings: {'; '.join(found)}" if found else "sealed",
            store=store,
            gallery=store.parent / "gallery",
            store_bytes=store.stat().st_size,
            n_rows=n_rows,
            accuracy=accuracy,
            converged_share=1 - n_open / n_rows,
            worst_gap=float(np.abs(table["gap"]).max()),
            gradients_per_image=float(table["n_gradients"].mean()),
            n_zero_maps=n_zero,
            audit=audit,
            stage_seconds=dict(self.stage_seconds),
            flow_run_id=self.flow_run_id,
        )


def _resumable(catalog: Catalog, night_id: str) -> NightEntry:
    entry = find_night(catalog, night_id)
    if not entry.can_resume:
        came = "it is running" if entry.state == "running" else f"it is {entry.state}"
        raise ValueError(f"night {night_id} cannot be resumed: {came}; `nightlens nights` lists those that can")
    return entry


def _write_end(catalog: Catalog, night_id: str, failure: str | None = None) -> None:
    try:
        end_run(catalog, night_id, failure=failure)
    except OSError as error:
        # The night is what it is; on a full disk its record just does not say how it ended.
        get_run_logger().error("how night %s ended could not be written down: %s", night_id, error)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
