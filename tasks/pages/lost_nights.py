"""The page `night` of nights that could not write it themselves: killed, or failed before they began.

A night that was killed leaves its mark under the root. A run that failed before it was a night, as its parameters were refused
or its process died at once, is known to the server alone. The next night of the root speaks for them, and `nightlens up` does
in a process of its own, as soon as it hears of such a run:

    python -m tasks.pages.lost_nights ROOT [RUN_ID ...]
"""

import math
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from storage import Catalog, LockBusy, StoreError
from storage.file.disk.durable import make_folder
from storage.file.disk.lock import locked
from storage.nights.night_marks import lost_nights, marked_runs, sealed_runs
from storage.nights.night_records import RUN_RECORD
from tasks.config import RunConfig
from tasks.night.events import send_failed
from tasks.night.outage import NOT_RECORDED
from tasks.night.result import NightFailure
from tasks.pages.failure_page import failure_page, name_latest

__all__ = ["report_lost_nights", "speak_for_lost_nights"]

FLOWS = ["nightly", "explain"]
ENDED_BADLY = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.FAILED, StateType.CRASHED]))
# Pages are of the nights to come: what ended long before the last of them is no news any more.
OVERLAP = timedelta(minutes=5)
MOST_RUNS = 20
TIMEOUT_S, PATIENCE_S = 10.0, 60.0
BEFORE_IT_BEGAN = "begin"
DEFAULT_ROOT = RunConfig().root


def report_lost_nights(catalog: Catalog) -> None:
    """Within a run: writes what is missing of nights before. What stands in the way is logged, and is tried again next time."""
    if FlowRunContext.get() is None:
        return
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), _client() as client:
            spoken_for = speak_for_lost_nights(catalog, client)
    except (*NOT_RECORDED, OSError, StoreError, ValueError) as error:
        get_run_logger().warning("whether a night before was killed is not known: %s", error)
        return
    for said in spoken_for:
        get_run_logger().warning("a night before left no page, which it has now: %s", said)


def speak_for_lost_nights(catalog: Catalog, client: SyncPrefectClient, run_ids: Sequence[UUID] = ()) -> list[str]:
    """Writes the page, and sends the event, of each night of the root that was killed, and of each run that failed without a
    page: of those with these ids, or without ids of those that ended since the last page. Returns a line for each.

    Another process that is at it is left to it.
    """
    if not Path(catalog.root).is_dir():
        return []
    try:
        with locked(make_folder(Path(catalog.root) / ".running") / "lost-nights", "writing pages of lost nights"):
            return [
                _publish(client, failure)
                for failures in (_killed(catalog, client), _never_begun(catalog, client, run_ids))
                for failure in failures
            ]
    except LockBusy:
        return []


def _killed(catalog: Catalog, client: SyncPrefectClient) -> Iterator[NightFailure]:
    for night_id, about in lost_nights(catalog):
        run = _read_run(client, about.get("flow_run_id"))
        if run and (_has_page(client, run) or _is_cancelled(run)):
            continue
        seconds = about.get("stage_seconds")
        gone = f"killed: its process {about.get('pid')} on {about.get('host')} is gone"
        yield NightFailure(
            night_id=night_id,
            stage=str(about.get("stage", "an unknown stage")),
            reason=f"{gone}; {_message(run)}" if _message(run) else gone,
            latest=name_latest(catalog),
            stage_seconds=_numbers(seconds) if isinstance(seconds, dict) else {},
            failed_seconds=0.0,
            flow_run_id=str(run.id) if run else "",
            can_resume=(catalog.night_dir(night_id) / RUN_RECORD).is_file(),
        )


def _never_begun(catalog: Catalog, client: SyncPrefectClient, run_ids: Sequence[UUID]) -> Iterator[NightFailure]:
    wanted = FlowRunFilter(state=ENDED_BADLY)
    if run_ids:
        wanted.id = FlowRunFilterId(any_=list(run_ids))
    elif last := _last_page(client):
        wanted.end_time = FlowRunFilterEndTime(after_=last - OVERLAP)
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=FLOWS)),
        flow_run_filter=wanted,
        sort=FlowRunSort.END_TIME_DESC,
        limit=MOST_RUNS,
    )
    # A server that did not hear from a run for a while takes it for dead; the night goes on, and will write its own page.
    # One that was sealed was no failure, though the server may have taken it for dead while it was away itself.
    known = marked_runs(catalog) | sealed_runs(catalog)
    for run in reversed(runs):
        if str(run.id) not in known and _is_ours(run, catalog, by_name=bool(run_ids)) and not _has_page(client, run):
            yield NightFailure(
                night_id=run.name,
                stage=BEFORE_IT_BEGAN,
                reason=_message(run) or "its process ended without a word",
                latest=name_latest(catalog),
                stage_seconds={},
                failed_seconds=0.0,
                flow_run_id=str(run.id),
                can_resume=False,
            )


def _last_page(client: SyncPrefectClient) -> datetime | None:
    pages = ArtifactFilter(key=ArtifactFilterKey(any_=["night"]))
    found = client.read_artifacts(artifact_filter=pages, sort=ArtifactSort.CREATED_DESC, limit=1)
    return found[0].created if found else None


def _publish(client: SyncPrefectClient, failure: NightFailure) -> str:
    page = failure_page(failure)
    artifact = ArtifactCreate(key=page.key, type="markdown", data=page.markdown(), description=page.description())
    if failure.flow_run_id:
        artifact.flow_run_id = UUID(failure.flow_run_id)
    client.create_artifact(artifact)
    send_failed(client, failure)
    return f"{failure.night_id} failed in {failure.stage}: {failure.reason}"


def _read_run(client: SyncPrefectClient, run_id: Any) -> FlowRun | None:
    try:
        return client.read_flow_run(UUID(str(run_id)))
    except (ObjectNotFound, ValueError):
        return None


def _has_page(client: SyncPrefectClient, run: FlowRun) -> bool:
    its = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=["night"]))
    return bool(client.read_artifacts(artifact_filter=its, limit=1))


def _is_cancelled(run: FlowRun) -> bool:
    return run.state is not None and run.state.type in (StateType.CANCELLED, StateType.CANCELLING)


def _is_ours(run: FlowRun, catalog: Catalog, *, by_name: bool) -> bool:
    """Whether it was to run in the root, as far as its parameters, which may be nonsense, say.

    by_name: whether somebody asked for this very run, as `up` does for those of its own deployments; else a root that they name
    from some folder, or not at all, is taken from this process's.
    """
    asked = run.parameters.get("run")
    root = asked.get("root") if isinstance(asked, dict) else None
    own = Path(catalog.root).resolve()
    if not isinstance(root, str):
        return by_name or own == Path(DEFAULT_ROOT).resolve()
    return (by_name and not Path(root).is_absolute()) or own == Path(root).expanduser().resolve()


def _numbers(seconds: dict[Any, Any]) -> dict[str, float]:
    """Of what a mark says, which may be damaged, what can be seconds."""
    return {
        str(stage): float(value)
        for stage, value in seconds.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _message(run: FlowRun | None) -> str:
    """Why it ended, as the server has it, in a line."""
    return " ".join((run.state.message or "").split())[:500] if run and run.state and run.state.is_final() else ""


def _client() -> SyncPrefectClient:
    return get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_S})


def main(root: Path, run_ids: Sequence[UUID]) -> None:
    with _client() as client:
        for said in speak_for_lost_nights(Catalog(root), client, run_ids):
            print(said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [UUID(word) for word in sys.argv[2:]])
