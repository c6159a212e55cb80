"""What the server has planned for the work pool, read with a client, and times in words. What becomes of runs: run_news.py."""

from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort

from flows.service.heartbeat import WORK_POOL

__all__ = ["OUR_POOL", "Planned", "planned_runs", "time_until"]

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


def time_until(when: datetime, now: datetime | None = None) -> str:
    """A time in UTC and how far off it is, e.g. 2026-11-26 02:00 UTC, in 2.1 h."""
    hours = (when - (now or datetime.now(UTC))).total_seconds() / 3600
    distance = f"{abs(hours):.1f} h" if abs(hours) >= 1 else f"{abs(hours) * 60:.0f} min"
    distance_text = f"in {distance}" if hours >= 0 else f"{distance} ago"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {distance_text}"
