"""The page `night` of nights that could not write it themselves: killed, or failed before they began.

A night that was killed leaves its mark under the root. A run that failed before it was a night, as its parameters were refused
or its process died at once, is known to the server alone. The next night of the root speaks for them, and `nightlens up` does
in a process of its own, as soon as it hears of such a run:

    python -m tasks.pages.lost_nights ROOT [RUN_ID ...]
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
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
from prefect.client.schemas.sorting import FlowRunSort
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
# What ended longer ago is no news any more. A page was written where there is one, whoever wrote the last.
WINDOW = timedelta(days=30)
MOST_PAGES = 20  # of one night; the next writes more
AT_ONCE = 100  # ids in a request
MOST_STAGES, MOST_LETTERS = 30, 80  # of a mark, which may be anything
BUSY = 3
TIMEOUT_S, PATIENCE_S = 10.0, 60.0
BEFORE_IT_BEGAN = "begin"
DEFAULT_ROOT = RunConfig().root
OURS = {"dataset", "run"}  # parameters that every night has
MOST_SECONDS = 1e9


def report_lost_nights(catalog: Catalog) -> None:
    """Within a run: writes what is missing of nights before. What stands in the way is logged, and is tried again next time."""
    if FlowRunContext.get() is None:
        return
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), _client() as client:
            spoken_for = speak_for_lost_nights(catalog, client)
    except LockBusy:
        return
    except (*NOT_RECORDED, OSError, StoreError, ValueError) as error:
        get_run_logger().warning("whether a night before was killed is not known: %s", error)
        return
    for said in spoken_for:
        get_run_logger().warning("a night before left no page, which it has now: %s", said)


def speak_for_lost_nights(catalog: Catalog, client: SyncPrefectClient, run_ids: Sequence[UUID] = ()) -> list[str]:
    """Writes the page, and sends the event, of each night of the root that was killed, and of each run that failed without a
    page: of those with these ids, or without ids of the last that ended within WINDOW. Returns a line for each.

    Raises LockBusy while another process is at it.
    """
    if not Path(catalog.root).is_dir():
        return []
    with locked(make_folder(Path(catalog.root) / ".running") / "lost-nights", "writing pages of lost nights"):
        return [
            _publish(client, catalog, failure)
            for failures in (_killed(catalog, client), _never_begun(catalog, client, run_ids))
            for failure in failures
        ]


def _killed(catalog: Catalog, client: SyncPrefectClient) -> Iterator[NightFailure]:
    for night_id, about in lost_nights(catalog):
        run = _read_run(client, about.get("flow_run_id"))
        if run and (_with_page(client, [run]) or _is_cancelled(run)):
            continue
        seconds = about.get("stage_seconds")
        gone = f"killed: its process {_short(about.get('pid'))} on {_short(about.get('host'))} is gone"
        gone = f"{gone}; {_message(run)}" if _message(run) else gone
        yield NightFailure(
            night_id=night_id,
            stage=_short(about.get("stage", "an unknown stage")),
            # A night that failed by itself, and could not say so to the server, has said it to its mark.
            reason=_short(about["reason"], 500) if "reason" in about else gone,
            latest=name_latest(catalog),
            stage_seconds=_numbers(seconds) if isinstance(seconds, dict) else {},
            failed_seconds=0.0,
            flow_run_id=str(run.id) if run else "",
            can_resume=(catalog.night_dir(night_id) / RUN_RECORD).is_file(),
        )


def _never_begun(catalog: Catalog, client: SyncPrefectClient, run_ids: Sequence[UUID]) -> Iterator[NightFailure]:
    # A server that did not hear from a run for a while takes it for dead; the night goes on, and will write its own page.
    # One that was sealed was no failure, though the server may have taken it for dead while it was away itself.
    known = marked_runs(catalog) | sealed_runs(catalog)
    runs = [
        run
        for run in _ended_badly(client, run_ids)
        if str(run.id) not in known and _is_ours(run, catalog, by_name=bool(run_ids))
    ]
    have = _with_page(client, runs)
    left = [run for run in runs if run.id not in have]
    for run in reversed(left if run_ids else left[:MOST_PAGES]):
        yield NightFailure(
            night_id=_short(run.name, 200),
            stage=BEFORE_IT_BEGAN,
            reason=_message(run) or "its process ended without a word",
            latest=name_latest(catalog),
            stage_seconds={},
            failed_seconds=0.0,
            flow_run_id=str(run.id),
            can_resume=False,
        )


def _ended_badly(client: SyncPrefectClient, run_ids: Sequence[UUID]) -> list[FlowRun]:
    """Runs of our flows that failed or crashed, the last to end first: those with these ids, or those within WINDOW."""
    flows, found = FlowFilter(name=FlowFilterName(any_=FLOWS)), list[FlowRun]()
    if run_ids:
        wanted = [
            FlowRunFilter(state=ENDED_BADLY, id=FlowRunFilterId(any_=list(run_ids[first : first + AT_ONCE])))
            for first in range(0, len(run_ids), AT_ONCE)
        ]
    else:
        since = FlowRunFilterEndTime(after_=datetime.now(UTC) - WINDOW)
        wanted = [FlowRunFilter(state=ENDED_BADLY, end_time=since)]
    for each in wanted:
        n_before = len(found)
        while more := client.read_flow_runs(
            flow_filter=flows,
            flow_run_filter=each,
            sort=FlowRunSort.END_TIME_DESC,
            limit=AT_ONCE,
            offset=len(found) - n_before,
        ):
            found += more
    return found


def _publish(client: SyncPrefectClient, catalog: Catalog, failure: NightFailure) -> str:
    page = failure_page(failure, Path(catalog.root))
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


def _with_page(client: SyncPrefectClient, runs: Sequence[FlowRun]) -> set[UUID]:
    """Those of some runs that have a page `night`."""
    found = set[UUID]()
    night = ArtifactFilterKey(any_=["night"])
    for first in range(0, len(runs), AT_ONCE):
        ids = [run.id for run in runs[first : first + AT_ONCE]]
        theirs = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=ids), key=night)
        found |= {page.flow_run_id for page in client.read_artifacts(artifact_filter=theirs) if page.flow_run_id}
    return found


def _is_cancelled(run: FlowRun) -> bool:
    return run.state is not None and run.state.type in (StateType.CANCELLED, StateType.CANCELLING)


def _is_ours(run: FlowRun, catalog: Catalog, *, by_name: bool) -> bool:
    """Whether it was to run in the root, as far as its parameters, which may be nonsense, say.

    by_name: whether somebody asked for this very run, as `up` does for those of its own deployments; else a root that they name
    from some folder, or not at all, is taken from this process's, and the run must have a night's parameters.
    """
    asked = run.parameters.get("run")
    root = asked.get("root") if isinstance(asked, dict) else None
    own = Path(catalog.root).resolve()
    if not isinstance(root, str):
        return by_name or (own == Path(DEFAULT_ROOT).resolve() and bool(OURS & run.parameters.keys()))
    try:
        return (by_name and not Path(root).is_absolute()) or own == Path(root).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # somebody unknown's home, a loop of links, a null byte
        return False


def _numbers(seconds: dict[Any, Any]) -> dict[str, float]:
    """Of what a mark says, which may be damaged, what can be seconds."""
    return {
        _short(stage): float(value)
        for stage, value in list(seconds.items())[:MOST_STAGES]
        if isinstance(value, int | float) and abs(value) < MOST_SECONDS
    }


def _short(text: object, most: int = MOST_LETTERS) -> str:
    """Somebody's text in a line that fits a page, without what is no character."""
    line = " ".join(str(text)[:10_000].split())
    return "".join(letter for letter in line if letter.isprintable())[:most]


def _message(run: FlowRun | None) -> str:
    """Why it ended, as the server has it, in a line."""
    return " ".join((run.state.message or "").split())[:500] if run and run.state and run.state.is_final() else ""


def _client() -> SyncPrefectClient:
    return get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_S})


def main(root: Path, run_ids: Sequence[UUID]) -> int:
    """The exit code: BUSY while another process is at it."""
    with _client() as client:
        try:
            spoken_for = speak_for_lost_nights(Catalog(root), client, run_ids)
        except LockBusy:
            return BUSY
    for said in spoken_for:
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [UUID(word) for word in sys.argv[2:]]))
