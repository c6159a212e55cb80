"""A day of `nightlens up` in seconds: its real loop, by a clock that the test moves on, against what a real server said.

What grows for months is seen within a day: requests, what they bring, open files, files under the root, memory. A night begins
every hour, one lasts for longer, one crashes, and the worker dies once. It looks and asks a tenth and a sixth as often as it
does, or the day would take minutes.
"""

import gc
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from flows.server.server import LocalServer
from flows.server.state_file import held, write_state
from flows.service import up
from flows.service.runs.lost_pages import LostPages
from flows.service.runs.run_news import RunNews
from flows.service.worker import Worker
from recorded_api import RUNS, RecordedApi, RecordedRun, recorded_api
from storage.file.disk.sizes import files_below

HOURS = 24
HOUR_S = 3600.0
LOOK_EVERY_S, READ_EVERY_S = 10 * up.LOOK_EVERY_S, 6 * up.READ_RUNS_EVERY_S
LONG_NIGHT, CRASH, DEATH = 2, 5, 13
# The loop holds a little more after its first hour than before; what grows by a run would grow with the hours.
SETTLED = 2
MOST_BYTES_AN_HOUR = 4_000
MOST_RESIDENT = 10_000_000
# A connection that was just closed, or a page that is just written; what a run left behind would be there for each of 25.
AT_THE_MOMENT = 4


class DayIsOver(Exception):
    """The clock has come to its end."""


@dataclass
class Sample:
    """What there was at the end of an hour, and what was asked within it."""

    requests: Counter[str]
    n_runs: int
    n_open: int
    n_files: int
    n_threads: int
    n_children: int
    n_bytes: int
    resident: int


@dataclass
class Day:
    """A clock that moves on when somebody sleeps, and looks around every hour. It ends a moment ago."""

    root: Path
    n_hours: int = HOURS
    at_hour: dict[int, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    api: RecordedApi | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.began = datetime.now(UTC) - timedelta(hours=self.n_hours)

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        before = self.seconds // HOUR_S
        self.seconds += seconds
        if self.seconds // HOUR_S > before:
            self.samples.append(self._look_around())
            self.at_hour.get(len(self.samples), lambda: None)()
            if len(self.samples) == self.n_hours:
                raise DayIsOver

    def _look_around(self) -> Sample:
        assert self.api
        gc.collect()
        asked, self.api.asked = self.api.asked, Counter()
        n_runs, self.api.n_runs = self.api.n_runs, 0
        process = psutil.Process()
        return Sample(
            requests=asked,
            n_runs=n_runs,
            n_open=len(os.listdir("/proc/self/fd")),
            n_files=sum(1 for _ in files_below(self.root)),
            n_threads=process.num_threads(),
            n_children=len(process.children()),
            n_bytes=tracemalloc.get_traced_memory()[0],
            resident=process.memory_info().rss,
        )


class Sleeper(Worker):
    """A worker whose process takes no runs: it waits, and can be killed."""

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True
        )


@pytest.fixture
def described(prefect_server: str) -> dict[str, Any]:
    """A flow run, as the real server sends it."""
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("nightly")
        made = client.request("POST", "/flow_runs/", json={"flow_id": str(flow), "name": "digits"}).json()
        for state in (Running(), Completed()):
            client.set_flow_run_state(made["id"], state, force=True)
        asked = {"flow_runs": {"id": {"any_": [made["id"]]}}}
        (run,) = client.request("POST", "/flow_runs/filter", json=asked).json()
    return run


def runs_of(day: Day) -> Iterator[RecordedRun]:
    for hour in range(day.n_hours):
        began = day.began + timedelta(hours=hour, seconds=7)
        state = "CRASHED" if hour == CRASH else "COMPLETED"
        yield RecordedRun(f"digits {hour:02}", began, began + timedelta(minutes=3), state)
    began = day.began + timedelta(hours=LONG_NIGHT)
    yield RecordedRun("cifar10", began, began + timedelta(minutes=90))


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def test_a_day_asks_holds_and_leaves_as_much_in_its_last_hour_as_in_its_first(
    prefect_server: str, described: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    day, worker = Day(tmp_path), Sleeper(home)
    pages = LostPages(tmp_path, (sys.executable, "-S", "-c", "import sys; print('a page for', *sys.argv[2:])"))
    day.at_hour = {DEATH: lambda: psutil.Process(worker.pid).kill()}
    with (
        recorded_api(prefect_server, described, day.now) as api,
        temporary_settings({PREFECT_API_URL: api.url}),
        held(home / "server.json") as server_state,
        (home / "up.json").open("w+") as state,
        traced(),
    ):
        write_state(server_state, {"url": api.url, "pid": os.getpid()})
        day.api, api.runs = api, list(runs_of(day))
        with get_client(sync_client=True) as client:
            news = RunNews(client)
        worker.start()
        try:
            with pytest.raises(DayIsOver):
                up.Watch(LocalServer(tmp_path), worker, state, news, pages, day, LOOK_EVERY_S, READ_EVERY_S).go_on()
        finally:
            worker._end_worker()
            pages.stop()
    out, err = capsys.readouterr()
    assert out.count(" began\n") == out.count(" Completed\n") + out.count(" Crashed\n") == HOURS + 1
    assert out.count("page      a page for") == 2
    assert next(run.id for run in api.runs if run.state == "CRASHED") in out
    assert err.count("\n") == 1 and "the worker died and is started again" in err
    settled = day.samples[SETTLED:]
    hourly = day.samples[1].requests[RUNS]
    assert hourly == pytest.approx(2 * HOUR_S / (READ_EVERY_S + LOOK_EVERY_S), abs=2)
    for sample in day.samples[1:]:
        assert sample.requests[RUNS] == pytest.approx(hourly, abs=2)
        assert sample.requests.total() == pytest.approx(day.samples[1].requests.total(), abs=8)
    assert max(sample.n_runs for sample in day.samples) < 3 * hourly
    assert {sample.n_files for sample in settled} == {settled[0].n_files}
    for what in ("n_open", "n_threads", "n_children"):
        numbers = [getattr(sample, what) for sample in settled]
        assert max(numbers) - min(numbers) <= AT_THE_MOMENT, (what, numbers)
    grown = settled[-1].n_bytes - settled[0].n_bytes
    assert grown < MOST_BYTES_AN_HOUR * len(settled)
    assert settled[-1].resident - settled[0].resident < MOST_RESIDENT
