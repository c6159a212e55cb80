"""What the server has planned for the work pool, and what has become of its runs: read with a client, told in words."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort

from flows.service.heartbeat import WORK_POOL

__all__ = ["Planned", "ended_runs", "planned_runs", "started_runs", "time_until"]

OUR_POOL = WorkPoolFilter(name=WorkPoolFilterName(any_=[WORK_POOL]))
SCHEDULED = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
LATE_S = 300.0


@dataclass(frozen=True)
class Planned:
    """A deployment and its next run. schedules: those that are on, in words. next: None where nothing is scheduled."""

    name: str
    is_paused: bool
    schedules: tuple[str, ...]
    next: datetime | None

    @property
    def must_run(self) -> bool:
        return bool(self.schedules) and not self.is_paused

    @property
    def is_unscheduled(self) -> bool:
        """Whether the server should have planned a run and has not, as with a broken scheduler."""
        return self.must_run and self.next is None

    def late_s(self, now: datetime) -> float:
        """Since when its next run is due, in seconds; 0 where it is not, or just about to be taken by the worker."""
        due_s = (now - self.next).total_seconds() if self.next else 0.0
        return due_s if due_s > LATE_S else 0.0


def planned_runs(client: SyncPrefectClient) -> list[Planned]:
    """Every deployment of the work pool, by name."""
    found = []
    for deployment in client.read_deployments(work_pool_filter=OUR_POOL, limit=200):
        flow = client.read_flow(deployment.flow_id)
        on = [item.schedule for item in deployment.schedules if item.active]
        words = (f"{s.cron} {s.timezone or 'UTC'}" if isinstance(s, CronSchedule) else str(s) for s in on)
        upcoming = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=SCHEDULED,
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=1,
        )
        soonest = upcoming[0].expected_start_time if upcoming else None
        found.append(Planned(f"{flow.name}/{deployment.name}", deployment.paused, tuple(words), soonest))
    return sorted(found, key=lambda planned: planned.name)


def started_runs(client: SyncPrefectClient, since: datetime) -> Iterator[tuple[UUID, str]]:
    """The runs of the pool that began after a time: id, and what to say."""
    # For the server runs that are only planned have a start, too: the time they are planned for.
    began = FlowRunFilter(start_time=FlowRunFilterStartTime(after_=since, before_=datetime.now(UTC)))
    for run in client.read_flow_runs(flow_run_filter=began, work_pool_filter=OUR_POOL):
        if run.state and run.state.is_running():
            yield run.id, f"{_named(client, run)} began"


def ended_runs(client: SyncPrefectClient, since: datetime) -> Iterator[tuple[UUID, str]]:
    """The runs of the pool that ended after a time: id, and what to say, with the reason where it is no success."""
    ended = FlowRunFilter(end_time=FlowRunFilterEndTime(after_=since))
    for run in client.read_flow_runs(flow_run_filter=ended, work_pool_filter=OUR_POOL):
        why = "" if run.state is None or run.state.is_completed() or not run.state.message else f": {run.state.message}"
        yield run.id, f"{_named(client, run)} {run.state_name or 'ended'}{' '.join(why.split(chr(10)))}"


def _named(client: SyncPrefectClient, run: FlowRun) -> str:
    return f"{client.read_flow(run.flow_id).name} {run.name!r}"


def time_until(when: datetime, now: datetime | None = None) -> str:
    """A time in UTC and how far off it is, e.g. 2026-11-26 02:00 UTC, in 2.1 h."""
    hours = (when - (now or datetime.now(UTC))).total_seconds() / 3600
    distance = f"{abs(hours):.1f} h" if abs(hours) >= 1 else f"{abs(hours) * 60:.0f} min"
    told = f"in {distance}" if hours >= 0 else f"{distance} ago"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {told}"
