"""What `up` asks a real server about its runs, again and again: each run is spoken of once, and old ones are not asked for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled

from flows.service.heartbeat import WORK_POOL
from flows.service.runs.run_news import RunNews

pytestmark = pytest.mark.usefixtures("prefect_server")
N_OLD = 12
AT_ONCE = timedelta(0)


class Traffic:
    """The paths that a client asked for, and how many flow runs it got."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.n_runs = 0

    def __call__(self, response: httpx.Response) -> None:
        path = response.request.url.path
        self.paths.append(path.removeprefix("/api"))
        if path.endswith("/flow_runs/filter"):
            self.n_runs += len(json.loads(response.read()))


@contextmanager
def watched() -> Iterator[tuple[SyncPrefectClient, Traffic]]:
    """A client, and what goes over its connection while this lasts."""
    traffic = Traffic()
    with get_client(sync_client=True, httpx_settings={"event_hooks": {"response": [traffic]}}) as client:
        # The first request brings others with it, for the server's version and a token.
        client.read_flow_runs(limit=1)
        traffic.paths.clear()
        traffic.n_runs = 0
        yield client, traffic


@pytest.fixture(scope="module")
def deployment(prefect_server: str) -> Iterator[UUID]:
    """A deployment of a flow `night` in our work pool; afterwards neither is there."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
        flow_id = client.create_flow_from_name("night")
        made = client.create_deployment(
            flow_id=flow_id, name="small", work_pool_name=WORK_POOL, entrypoint="a.py:night"
        )
        yield made
        client.delete_deployment(made)
        client.delete_work_pool(WORK_POOL)


@pytest.fixture
def client(deployment: UUID) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def run(client: SyncPrefectClient, deployment: UUID, name: str, *states: State[Any]) -> UUID:
    """A run that goes through the given states."""
    made = client.create_flow_run_from_deployment(deployment, name=name, state=Scheduled()).id
    for state in states:
        client.set_flow_run_state(made, state, force=True)
    return made


def test_a_run_is_spoken_of_once_when_it_begins_and_once_when_it_ends(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    run(client, deployment, "before", Running(), Completed())
    zombie = run(client, deployment, "zombie", Running())
    news = RunNews(client)
    assert news.read(client) == []
    first = run(client, deployment, "first", Running())
    run(client, deployment, "planned")
    assert news.read(client) == ["night 'first' began"]
    assert news.read(client) == []
    client.set_flow_run_state(first, Failed(message="a part\nfailed"), force=True)
    run(client, deployment, "second", Cancelled(message="the limit is reached"))
    client.set_flow_run_state(zombie, Completed(), force=True)
    assert news.read(client) == [
        "night 'first' Failed: a part failed",
        "night 'second' Cancelled: the limit is reached",
        "night 'zombie' Completed",
    ]
    assert news.read(client) == []


def test_runs_that_ended_badly_are_known_by_their_ids_until_the_next_time(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    news = RunNews(client)
    bad = {run(client, deployment, each.name, Running(), each) for each in (Failed(), Crashed())}
    for each in (Completed(), Cancelled()):
        run(client, deployment, each.name, Running(), each)
    assert len(news.read(client)) == 4
    assert set(news.ended_badly) == bad
    assert news.read(client) == []
    assert news.ended_badly == []


def test_a_run_that_is_tried_again_is_spoken_of_again(client: SyncPrefectClient, deployment: UUID) -> None:
    news = RunNews(client)
    again = run(client, deployment, "again", Running(), Failed(message="no disk"))
    assert news.read(client) == ["night 'again' Failed: no disk"]
    client.set_flow_run_state(again, Scheduled(), force=True)
    client.set_flow_run_state(again, Running(), force=True)
    assert news.read(client) == ["night 'again' began"]
    client.set_flow_run_state(again, Completed(), force=True)
    assert news.read(client) == ["night 'again' Completed"]


def test_old_runs_are_not_asked_for_again(client: SyncPrefectClient, deployment: UUID) -> None:
    news = RunNews(client, overlap=AT_ONCE)
    names = [f"old-{number}" for number in range(N_OLD)]
    for name in names:
        run(client, deployment, name, Running(), Completed())
    assert news.read(client) == [f"night '{name}' Completed" for name in names]
    with watched() as (watching, traffic):
        assert news.read(watching) == []
        assert (traffic.paths, traffic.n_runs) == (["/flow_runs/filter"] * 2, 1)
        run(client, deployment, "new", Running(), Completed())
        assert news.read(watching) == ["night 'new' Completed"]
        assert (traffic.paths, traffic.n_runs) == (["/flow_runs/filter"] * 4, 1 + 2)
    with watched() as (watching, traffic):
        RunNews(watching, overlap=AT_ONCE)
        assert traffic.n_runs <= 2, "nor by an `up` that begins"


def test_more_runs_than_a_request_brings_are_all_spoken_of(client: SyncPrefectClient, deployment: UUID) -> None:
    """A server gives at most 200 of them, whatever a client asks for."""
    news = RunNews(client, page=5)
    names = [f"many-{number}" for number in range(N_OLD)]
    for name in names:
        run(client, deployment, name, Running(), Completed())
    with watched() as (watching, traffic):
        assert news.read(watching) == [f"night '{name}' Completed" for name in names]
        # One for those that are going on, and pages of 5, 5 and 2 at least.
        assert traffic.paths.count("/flow_runs/filter") >= 4


def test_what_a_server_that_is_away_did_not_say_is_said_later(client: SyncPrefectClient, deployment: UUID) -> None:
    news = RunNews(client)
    run(client, deployment, "meanwhile", Running(), Completed())
    breaking = {"event_hooks": {"response": [break_the_second()]}}
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings=breaking) as failing,
        pytest.raises(httpx.ReadError),
    ):
        news.read(failing)
    assert news.read(client) == ["night 'meanwhile' Completed"]


@dataclass
class Ended:
    """A run of a server that a test makes up. end_time: None as long as it goes on."""

    name: str
    end_time: datetime | None
    id: UUID = field(default_factory=uuid4)
    flow_id: int = 1
    state: None = None
    state_name: str = "Completed"
    state_type: StateType = StateType.COMPLETED


@dataclass
class Day:
    """A server with runs of a test, and a clock of this machine that the test sets."""

    runs: list[Ended]
    now: datetime

    def read_flow(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(name="nightly")

    def read_flow_runs(self, *, flow_run_filter: Any, limit: int, offset: int = 0, **_: Any) -> list[Ended]:
        if flow_run_filter.state:
            return [run for run in self.runs if run.end_time is None][offset : offset + limit]
        after = flow_run_filter.end_time.after_ or datetime.min.replace(tzinfo=UTC)
        found = [(run.end_time, run) for run in self.runs if run.end_time and run.end_time >= after]
        return [run for _, run in sorted(found, key=lambda pair: pair[0])[::-1]][offset : offset + limit]

    def news(self) -> RunNews:
        return RunNews(cast(SyncPrefectClient, self), now=lambda: self.now)

    def read(self, news: RunNews) -> list[str]:
        return news.read(cast(SyncPrefectClient, self))


NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def day() -> Day:
    """A night every hour of the day before noon, which it is, and one that goes on."""
    ended = [Ended(f"night {hour}", NOON - timedelta(hours=24 - hour)) for hour in range(24)]
    return Day([*ended, Ended("long", None)], NOON)


def test_a_clock_that_is_set_back_makes_no_news_of_what_was_spoken_of(day: Day) -> None:
    news = day.news()
    day.runs.append(Ended("last", NOON))
    assert day.read(news) == ["nightly 'last' Completed"]
    day.now = NOON - timedelta(hours=12)
    assert [day.read(news) for _ in range(3)] == [[]] * 3
    day.now += timedelta(minutes=1)
    day.runs.append(Ended("after", day.now))
    assert day.read(news) == ["nightly 'after' Completed"]
    assert day.read(news) == []


def test_what_was_going_on_when_the_clock_was_set_back_is_news_when_it_ends(day: Day) -> None:
    news = day.news()
    day.now = NOON - timedelta(hours=12)
    day.runs[-1].end_time = day.now
    assert day.read(news) == ["nightly 'long' Completed"]
    assert day.read(news) == []


def test_an_end_in_the_future_hides_no_other(day: Day) -> None:
    day.runs.append(Ended("tomorrow", NOON + timedelta(hours=24)))
    news = day.news()
    day.now += timedelta(minutes=1)
    day.runs.append(Ended("today", day.now))
    assert day.read(news) == ["nightly 'today' Completed"]
    day.runs.append(Ended("of the future", NOON + timedelta(hours=36)))
    assert day.read(news) == ["nightly 'of the future' Completed"]
    day.now += timedelta(minutes=1)
    day.runs.append(Ended("now", day.now))
    assert day.read(news) == ["nightly 'now' Completed"]
    assert day.read(news) == []


def break_the_second() -> Any:
    """Breaks the connection when the second request for runs is answered."""
    answered: list[str] = []

    def broken(response: httpx.Response) -> None:
        answered.append(response.request.url.path)
        if sum(path.endswith("/flow_runs/filter") for path in answered) == 2:
            raise httpx.ReadError("connection lost")

    return broken
