"""The night while it runs, and how it ends: sealed, with what is to be looked at, or failed, in which stage and why."""

import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from storage import Catalog, NightEntry, find_night, new_night_id, open_store
from storage.nights.night_entries import begin_run, end_run, read_night, working_on
from storage.nights.night_marks import mark, unmark
from storage.nights.night_records import RUN_RECORD
from tasks.audit import AuditError
from tasks.config import AlertConfig
from tasks.night.alert import count_zero_maps, earlier_night, earlier_paces, find_warnings
from tasks.night.events import emit_failed
from tasks.night.log_fields import log_fields
from tasks.night.outage import outlasting
from tasks.night.pace import find_slowness, measure_pace
from tasks.night.progress import Progress, report
from tasks.night.result import NightFailure, NightResult, NightWarning, verdict_text
from tasks.pages.failure_page import name_latest, publish_failure
from tasks.pages.lost_nights import report_lost_nights
from tasks.parts.compute import PartReport
from tasks.parts.plan import Plan
from tasks.parts.precision_error import describe_precision
from tasks.worth.assessment import recorded_assessment
from tasks.worth.strategies.shortcuts import find_shortcuts
from tasks.worth.worth_warnings import find_drift_warnings, find_worth_warnings

__all__ = ["Night", "NightResult", "run_name"]

PAGE = "artifact night"  # as an outage calls it


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
        self._marked: Callable[[Night], None] = lambda _: None

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
        with outlasting() as outage, log_fields(night=night.id):
            report_lost_nights(catalog)
            with working_on(catalog, night.id):
                night._marked = partial(_mark, catalog)
                night._marked(night)
                try:
                    yield night
                except KeyboardInterrupt:
                    unmark(catalog, night.id)  # whoever pressed Ctrl-C needs no page that says so
                    raise
                except Exception as error:
                    _write_end(catalog, night.id, failure=_one_line(error))
                    failure = night.failure(catalog, error)
                    publish_failure(failure, root)
                    emit_failed(failure)
                    outage.finish(patience_s=0)
                    if PAGE in outage.missing:
                        _mark(catalog, night, reason=failure.reason)  # for whoever speaks for it
                    else:
                        unmark(catalog, night.id)
                    raise
                _write_end(catalog, night.id)
                unmark(catalog, night.id)
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
        self._marked(self)
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
        parts: Sequence[PartReport] = (),
        moves_latest: bool = True,
    ) -> NightResult:
        """The night's record, from its sealed store, compared with the night before.

        audit: the audit's verdict. warnings: what was found odd about the dataset. doubts: and about the model.
        parts: what was explained, and what of it was found.
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
        n_computed = sum(part.stop - part.start for part in parts if not part.reused)
        pace = measure_pace(about, self.stage_seconds, n_rows=len(table), n_computed=n_computed)
        if pace and moves_latest:
            found += (*find_slowness(pace, earlier_paces(Catalog(store.parents[2]), self.id, pace.work), alert),)
        return NightResult(
            night_id=self.id,
            verdict=verdict_text(found),
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
            pace=pace,
            **images,
        )

    @property
    def mark(self) -> dict[str, Any]:
        """What is to be known of it if it is killed."""
        return {
            "flow_run_id": self.flow_run_id,
            "began": self.began,
            "stage": self._stage,
            "stage_seconds": self.stage_seconds,
        }

    def failure(self, catalog: Catalog, error: Exception) -> NightFailure:
        """What there is to say of the night that this error ends."""
        reason = _one_line(error)
        return NightFailure(
            night_id=self.id,
            stage=self._stage,
            reason=reason,
            latest=name_latest(catalog),
            warnings=(NightWarning(kind="audit", message=reason),) if isinstance(error, AuditError) else (),
            stage_seconds=dict(self.stage_seconds),
            failed_seconds=round(time.monotonic() - self._stage_began, 2),
            flow_run_id=self.flow_run_id,
            can_resume=(catalog.night_dir(self.id) / RUN_RECORD).is_file(),
        )


def _distinct(doubts: tuple[NightWarning, ...]) -> list[NightWarning]:
    """The last of each kind: what the whole split says of the model comes after what a sample said."""
    return list({doubt.kind: doubt for doubt in doubts}.values())


def _resumable(catalog: Catalog, night_id: str) -> NightEntry:
    entry = find_night(catalog, night_id)
    if not entry.can_resume:
        came = "it is running" if entry.state == "running" else f"it is {entry.state}"
        raise ValueError(f"night {night_id} cannot be resumed: {came}; `nightlens nights` lists those that can")
    return entry


def _mark(catalog: Catalog, night: Night, **more: str) -> None:
    try:
        mark(catalog, night.id, night.mark | more)
    except OSError as error:
        get_run_logger().error("if night %s is killed, nobody will say where: %s", night.id, error)


def _write_end(catalog: Catalog, night_id: str, failure: str | None = None) -> None:
    try:
        end_run(catalog, night_id, failure=failure)
    except OSError as error:
        # The night is what it is; on a full disk its record just does not say how it ended.
        get_run_logger().error("how night %s ended could not be written down: %s", night_id, error)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
