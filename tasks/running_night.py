"""The night while it runs, and how it ends: sealed, with what is to be looked at, or failed, in which stage and why."""

import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from storage import Catalog, NightEntry, StoreNotFound, find_night, new_night_id, open_store
from storage.nights.night_entries import begin_run, end_run, read_night, working_on
from tasks.audit import AuditError
from tasks.config import AlertConfig
from tasks.night.alert import count_zero_maps, earlier_night, find_warnings
from tasks.night.events import emit_failed
from tasks.night.log_fields import log_fields
from tasks.night.outage import outlasting
from tasks.night.progress import Progress, report
from tasks.night.result import NightFailure, NightResult, NightWarning, verdict_of
from tasks.pages.failure_page import publish_failure
from tasks.parts.plan import Plan
from tasks.parts.precision_error import describe_precision
from tasks.worth.assessment import recorded_assessment
from tasks.worth.strategies.shortcuts import find_shortcuts
from tasks.worth.worth_warnings import find_drift_warnings, find_worth_warnings

__all__ = ["Night", "NightResult", "run_name"]


def run_name() -> str:
    """What a run is called in the UI: the dataset and when it began, UTC."""
    source = flow_run.parameters["dataset"].source
    return f"{Path(source).name} {datetime.now(UTC):%Y-%m-%d %H:%M}"


class Night:
    """The night while it runs: its id, when it began, and how long each stage took."""

    def __init__(self, night_id: str, began: str, flow_run_id: str):
        self.id, self.began, self.flow_run_id = night_id, began, flow_run_id
        self.stage_seconds: dict[str, float] = {}
        self._stage, self._stage_began = "begin", time.monotonic()

    @classmethod
    @contextmanager
    def begin(cls, root: Path, flow_run_id: str, resume: str | None) -> Iterator[Self]:
        """A new night, or an unfinished one that goes on; while the context lasts it is known to be running.

        What the server does not take meanwhile is sent again at the end, or named.

        Raises StoreError or ValueError if there is no night `resume` that can go on.
        """
        catalog, now = Catalog(root), datetime.now(UTC)
        if resume:
            now = _resumable(catalog, resume).began or now
        night = cls(resume or new_night_id(now, secrets.token_hex(3)), now.isoformat(timespec="seconds"), flow_run_id)
        with working_on(catalog, night.id), outlasting() as outage, log_fields(night=night.id):
            try:
                yield night
            except Exception as error:
                _write_end(catalog, night.id, failure=_one_line(error))
                failure = night.failure(catalog, error)
                publish_failure(failure)
                emit_failed(failure)
                outage.finish(patience_s=0)
                raise
            _write_end(catalog, night.id)
            outage.finish()

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
        self._stage, self._stage_began = name, time.monotonic()
        with log_fields(stage=name):
            get_run_logger().info("stage %s begins", name)
            yield
            self.stage_seconds[name] = seconds = round(time.monotonic() - self._stage_began, 2)
            get_run_logger().info("stage %s ends after %.1f s", name, seconds, extra={"seconds": seconds})
        report(Progress(stage=name, done=1, total=1, unit="steps"))

    def result(
        self,
        store: Path,
        accuracy: float,
        audit: str,
        warnings: tuple[str, ...],
        alert: AlertConfig = AlertConfig(),  # noqa: B008 (frozen)
        *,
        doubts: tuple[NightWarning, ...] = (),
        moves_latest: bool = True,
    ) -> NightResult:
        """The night's record, from its sealed store, compared with the night before.

        audit: the audit's verdict. warnings: what was found odd about the dataset. doubts: and about the model.
        moves_latest: whether `latest` is to point to it; one on demand is not compared.
        """
        with open_store(store) as sealed:
            table, about, n_bytes = sealed.table(), sealed.attributes, sealed.n_bytes
            names, has_grad_cam, worth = sealed.class_names, sealed.has_grad_cam, recorded_assessment(sealed)
            shortcuts = find_shortcuts(sealed, alert.shortcut) if alert.shortcut < 1 else []
        images = {name: str(about[name]) for name in ("dataset_sha256", "dataset_split")}
        earlier = earlier_night(Catalog(store.parents[2]), self.id, **images) if moves_latest else None
        remarks = [NightWarning(kind="dataset", message=warning) for warning in warnings]
        remarks += [*_distinct(doubts), *find_worth_warnings(worth, alert, shortcuts)]
        remarks += find_drift_warnings(worth.drift, alert, names) if worth.drift else []
        found = find_warnings(table, accuracy=accuracy, earlier=earlier, audit=audit, remarks=remarks, alert=alert)
        return NightResult(
            night_id=self.id,
            verdict=verdict_of(found),
            warnings=found,
            store=store,
            gallery=store.parent / "gallery",
            store_bytes=n_bytes,
            n_rows=len(table),
            accuracy=accuracy,
            compared_with=earlier.night_id if earlier else None,
            accuracy_change=accuracy - earlier.accuracy if earlier else None,
            converged_share=float((table["converged"] != 0).mean()),
            worst_gap=float(np.abs(table["gap"]).max()),
            gradients_per_image=float(table["n_gradients"].mean()),
            n_zero_maps=int((table["cam_max"] == 0).sum()),
            zero_maps=count_zero_maps(table),
            has_grad_cam=has_grad_cam,
            audit=audit,
            stage_seconds=dict(self.stage_seconds),
            flow_run_id=self.flow_run_id,
            moves_latest=moves_latest,
            precision=describe_precision(str(about["precision"]), cast(Any, about["precision_error"])),
            device=str(about["device"]),
            relevance_gain=float(table["relevance_gain"].mean()),
            worth=worth.relevance_gains,
            **images,
        )

    def failure(self, catalog: Catalog, error: Exception) -> NightFailure:
        """What there is to say of the night that this error ends."""
        reason = _one_line(error)
        return NightFailure(
            night_id=self.id,
            stage=self._stage,
            reason=reason,
            latest=_latest(catalog),
            warnings=(NightWarning(kind="audit", message=reason),) if isinstance(error, AuditError) else (),
            stage_seconds=dict(self.stage_seconds),
            failed_seconds=round(time.monotonic() - self._stage_began, 2),
            flow_run_id=self.flow_run_id,
        )


def _distinct(doubts: tuple[NightWarning, ...]) -> list[NightWarning]:
    """The last of each kind: what the whole split says of the model comes after what a sample said."""
    return list({doubt.kind: doubt for doubt in doubts}.values())


def _latest(catalog: Catalog) -> str:
    try:
        latest = catalog.latest()
    except StoreNotFound as error:
        return str(error)
    return latest.name if latest else "none yet"


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
