"""What is new of the work pool's runs: each is spoken of once when it began and once when it ended.

`up` asks every few seconds, for months, so it asks for little: the runs that are going on, and those that ended after the
newest end that is known, less OVERLAP, as an end may reach the database a moment after a later one. The server gives runs their
times, so it matters little what the clock of this machine says: an end in its future would hide all others until then, and
is taken for now. Where the clock is set back, the newest end follows, and what ended after it and was spoken of is no news.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from flows.service.runs.schedule import OUR_POOL

__all__ = ["RunNews"]

OVERLAP = timedelta(minutes=5)
PAGE = 200
RUNNING = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
ENDED = FlowRunFilter(end_time=FlowRunFilterEndTime(is_null_=False))


class RunNews:
    """What becomes of runs from now on; what the server knows of them already is no news.

    overlap: how much earlier than the newest known an end may be that is still to become known. page: runs a request.
    now: the clock of this machine.
    """

    def __init__(
        self,
        client: SyncPrefectClient,
        *,
        overlap: timedelta = OVERLAP,
        page: int = PAGE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._overlap, self._page, self._now = overlap, page, now
        self._flow_names: dict[UUID, str] = {}
        newest = client.read_flow_runs(
            flow_run_filter=ENDED, work_pool_filter=OUR_POOL, sort=FlowRunSort.END_TIME_DESC, limit=1
        )
        self._newest_end = self._newest(run.end_time for run in newest)
        self._going_on = set(self._read_going_on(client))
        self._ends = {run_id: run.end_time for run_id, run in self._read_ended(client, self._newest_end).items()}
        self.ended_badly: list[UUID] = []

    def read(self, client: SyncPrefectClient) -> list[str]:
        """What there is to say since the last time. Where the server fails, all of it is said the next time.

        Afterwards `ended_badly` has the runs among them that failed or crashed.
        """
        self._follow_clock(client)
        going_on, ended = self._read_going_on(client), self._read_ended(client, self._newest_end)
        news = [f"{self._named(client, run)} began" for run_id, run in going_on.items() if run_id not in self._going_on]
        # A run that was tried again ends a second time.
        new = [run for run_id, run in ended.items() if run.end_time != self._ends.get(run_id)]
        news += [f"{self._named(client, run)} {_ending(run)}" for run in reversed(new)]
        self.ended_badly = [run.id for run in new if run.state_type in (StateType.FAILED, StateType.CRASHED)]
        self._going_on = set(going_on)
        self._ends = {run_id: run.end_time for run_id, run in ended.items()}
        self._newest_end = self._newest((self._newest_end, *self._ends.values()))
        return news

    def _newest(self, ends: Iterable[datetime | None]) -> datetime | None:
        """The newest of the ends, or now where that is in the future."""
        known = [end for end in ends if end]
        return min(max(known), self._now()) if known else None

    def _follow_clock(self, client: SyncPrefectClient) -> None:
        """Where the clock was set back, takes now for the newest end, and what it brings back for known, but what was going on.

        A run that both began and ended while the clock was set back, between two readings, is taken for known, too.
        """
        before, now = self._newest_end, self._now()
        if before is None or before <= now:
            return
        again = self._read_ended(client, now)
        self._ends |= {
            run_id: run.end_time
            for run_id, run in again.items()
            if run.end_time and run.end_time < before - self._overlap and run_id not in self._going_on
        }
        self._newest_end = now

    def _read_going_on(self, client: SyncPrefectClient) -> dict[UUID, FlowRun]:
        return self._read(client, RUNNING, FlowRunSort.START_TIME_DESC)

    def _read_ended(self, client: SyncPrefectClient, newest: datetime | None) -> dict[UUID, FlowRun]:
        if newest is None:
            return self._read(client, ENDED, FlowRunSort.END_TIME_DESC)
        after = FlowRunFilter(end_time=FlowRunFilterEndTime(after_=newest - self._overlap))
        return self._read(client, after, FlowRunSort.END_TIME_DESC)

    def _read(self, client: SyncPrefectClient, wanted: FlowRunFilter, sort: FlowRunSort) -> dict[UUID, FlowRun]:
        """The runs, the newest first: one that is added meanwhile moves others to a later page, and none is missed."""
        found: list[FlowRun] = []
        while page := client.read_flow_runs(
            flow_run_filter=wanted, work_pool_filter=OUR_POOL, sort=sort, limit=self._page, offset=len(found)
        ):
            found += page
            if len(page) < self._page:
                break
        return {run.id: run for run in found}

    def _named(self, client: SyncPrefectClient, run: FlowRun) -> str:
        if run.flow_id not in self._flow_names:
            self._flow_names[run.flow_id] = client.read_flow(run.flow_id).name
        return f"{self._flow_names[run.flow_id]} {run.name!r}"


def _ending(run: FlowRun) -> str:
    """How a run ended, with the reason where it is no success."""
    why = "" if run.state is None or run.state.is_completed() or not run.state.message else f": {run.state.message}"
    return f"{run.state_name or 'ended'}{' '.join(why.split(chr(10)))}"
