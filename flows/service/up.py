"""`nightlens up`: everything that nights need to run by themselves on one machine, for as long as it runs.

A server of our own (or the API that is configured), the work pool, the deployments, the heartbeat automation, a worker.
Whoever brings a root up holds <root>/prefect/up.json, which says who that is, and up.lock beside it, which nobody but an
`up` ever takes: who reads up.json is in nobody's way. The kernel lets go of both with their holder, so no process id is
ever trusted. A server or worker that dies is started again, with a line; one that dies three times within five minutes
ends all of it with the end of its log.
"""

import contextlib
import os
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings

from flows.server.api import LOOPBACK, api_environment, configured_api, refuse_unreachable
from flows.server.server import LocalServer, log_tail, previous_port
from flows.server.state_file import POLL_S, held, is_of_this_host, read_state, write_state
from flows.service.deployments import DEPLOYMENT_FILE, read_deployments
from flows.service.heartbeat import AUTOMATION, HEARTBEAT_FREQUENCY_S, ensure_heartbeat_automation
from flows.service.outfit import (
    ServiceError,
    address_warning,
    clock_warnings,
    deploy,
    ensure_work_pool,
    refuse_wrong_clock,
    refuse_wrong_database,
)
from flows.service.runs.lost_pages import NOT_WRITTEN, LostPages
from flows.service.runs.run_news import RunNews
from flows.service.runs.schedule import planned_runs, time_until
from flows.service.stopping import stopped_by_signal
from flows.service.worker import Worker, last_sign_of_worker, worker_name
from storage.file.disk.lock import hold

__all__ = ["UpOptions", "Watch", "holder", "refuse_another_host", "stay_up"]

DEFAULT_PORT = 4200
WITHIN_S = 4.0 * HEARTBEAT_FREQUENCY_S
ONLINE_TIMEOUT_S, SCHEDULED_TIMEOUT_S = 90.0, 90.0
LOOK_EVERY_S, READ_RUNS_EVERY_S = 0.5, 10.0
# A process that dies so often within so long is not started again.
DEATHS, DEATHS_WITHIN_S = 3, 300.0


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """What `up` was asked for. port: 0 is the last one, or 4200, or a free one. database: a URL, or SQLite in the root."""

    root: Path
    host: str = LOOPBACK
    port: int = 0
    database: str | None = None
    record_days: int = 90
    deployments: Path = DEPLOYMENT_FILE

    @property
    def home(self) -> Path:
        return self.root / "prefect"

    def of_a_server(self) -> list[str]:
        """The options that only a server of our own can have, as far as they were given."""
        names = ("host", "port", "database", "record_days")
        return [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if field.name in names and getattr(self, field.name) != field.default
        ]


def stay_up(options: UpOptions) -> None:
    """Brings everything up and keeps it so until Ctrl-C or SIGTERM; where it is up already, updates its deployments.

    Raises BadParameters for wrong deployments, ValueError for a wrong database or clock and for a root that another host
    keeps up, ServerError and ServiceError for what does not start, is not ours, or dies again and again.
    """
    refuse_wrong_clock()
    read_deployments(options.deployments)
    options.home.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as holding:
        state = _hold(options, holding)
        if isinstance(state, dict):
            _update(options, state)
            return
        with contextlib.ExitStack() as stack, stopped_by_signal():
            server = _enter_server(options, stack)
            _write(state, server)
            worker = Worker(options.home)
            with get_client(sync_client=True) as client:
                for warning in clock_warnings(client, options.root):
                    _warn(warning)
                _say("pool", ensure_work_pool(client))
                for name in deploy(options.deployments, options.root):
                    _say("deployed", name)
                if ensure_heartbeat_automation(client, within_s=WITHIN_S):
                    _say("watching", f"a run without a heartbeat for {WITHIN_S:g} s is marked as crashed")
                else:
                    _warn(f"the automation '{AUTOMATION}' is switched off and stays so: a dead run holds its slot")
                news, pages = RunNews(client), LostPages(options.root)
                stack.callback(pages.stop)
                stack.callback(worker.stop)
                stack.callback(_write, state, server, stopping=True)
                _start(client, worker)
                _say_next_runs(client)
            _write(state, server, ready=True)
            _say("ready", f"{_ui_url()}  (Ctrl-C or `nightlens down --root {options.root}` stops it)")
            Watch(server, worker, state, news, pages).go_on()


def holder(home: Path) -> dict[str, Any] | None:
    """Who keeps a root up: host, pid, since, url, ui, own_server, ready, stopping. None if nobody does.

    Raises ServerError if whoever brings it up does not go on.
    """
    return read_state(home / "up.json")


def refuse_another_host(root: Path, found: dict[str, Any]) -> None:
    """Raises ValueError where who keeps a root up does so on another host that shares it."""
    if not is_of_this_host(found):
        raise ValueError(f"{root} is kept up by process {found['pid']} on {found['host']}; stop it there")


def _hold(options: UpOptions, holding: contextlib.ExitStack) -> IO[str] | dict[str, Any]:
    """The state file, held until the stack is left, or what another `up` says there; one that is stopping is waited for."""
    alone = holding.enter_context((options.home / "up.lock").open("a+"))
    is_waiting = False
    while True:
        is_ours = hold(alone, options.root)
        other = holder(options.home)
        if other and not other.get("stopping"):
            return other
        if is_ours and not other:
            state = holding.enter_context(held(options.home / "up.json"))
            _write(state, None)
            return state
        if other and not is_waiting:
            _say("up", f"process {other['pid']} is stopping; this one goes on when it has")
            is_waiting = True
        # Without a word in up.json the other has begun, or ended, a moment ago.
        time.sleep(POLL_S)


def _write(state: IO[str], server: LocalServer | None, *, ready: bool = False, stopping: bool = False) -> None:
    settings = get_current_settings()
    about = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "url": server.url if server else settings.api.url,
        "ui": _ui_url(),
        "own_server": server is not None,
        "ready": ready,
        "stopping": stopping,
    }
    write_state(state, about)


def _update(options: UpOptions, found: dict[str, Any]) -> None:
    """What a second `up` does: it brings the deployments of the first up to date, or refuses one on another host."""
    refuse_another_host(options.root, found)
    if not found.get("ready"):
        _say("up", f"is being brought up already, by process {found.get('pid', 'unknown')}")
        return
    own = api_environment(options.home, found["url"]) if found["own_server"] else contextlib.nullcontext()
    with own:
        for name in deploy(options.deployments, options.root):
            _say("deployed", name)
    _say("up", f"already: {found['ui']} (process {found['pid']}, since {found['since']})")
    if given := options.of_a_server():
        _warn(f"{', '.join(given)}: only for a server that is started; `nightlens down --root {options.root}` first")


def _enter_server(options: UpOptions, stack: contextlib.ExitStack) -> LocalServer | None:
    """The root's own server, started or joined, or None where an API is configured, which then has to answer."""
    given = options.of_a_server()
    if api := configured_api():
        if given:
            raise ValueError(
                f"{', '.join(given)}: of no use with the configured API {api}; unset PREFECT_API_URL, or leave it out"
            )
        refuse_unreachable(api)
        _say("server", f"{api}, as configured")
        return None
    if options.database:
        refuse_wrong_database(options.database)
    if warning := address_warning(options.host):
        _warn(warning)
    wanted = options.port or previous_port(options.home) or DEFAULT_PORT
    server = LocalServer(
        options.root,
        ports=(wanted, 0),
        host=options.host,
        database=options.database,
        record_days=options.record_days,
    )
    stack.enter_context(server)
    server.wait_until_up()
    if server.was_there and given:
        raise ValueError(
            f"{', '.join(given)}: a `run` or `ui` has started a server of {options.root} already, at {server.url}; "
            "wait until it is done, or leave the option out"
        )
    how = "was there already" if server.was_there else f"keeps {options.record_days} days of runs"
    _say("server", f"{server.ui_url}  ({server.database}, {how}; its log is {server.log})")
    if not server.was_there and server.port != wanted:
        _warn(f"port {wanted} of {options.host} is taken; the server listens on {server.port} instead")
    return server


def _start(client: SyncPrefectClient, worker: Worker) -> None:
    """Starts the worker and waits for its first sign; one that stopped a moment ago still counts as online."""
    before = last_sign_of_worker(client)
    worker.start()
    deadline = time.monotonic() + ONLINE_TIMEOUT_S
    while last_sign_of_worker(client) == before:
        if not worker.is_alive or time.monotonic() > deadline:
            what = "is not online" if worker.is_alive else "died"
            raise ServiceError(f"the worker {what}; the end of {worker.log}: {log_tail(worker.log)}")
        time.sleep(LOOK_EVERY_S)
    _say("worker", f"{worker_name()} is online (its log is {worker.log})")


def _say_next_runs(client: SyncPrefectClient) -> None:
    """Says when each deployment runs next; the server plans that some seconds after it got them."""
    deadline = time.monotonic() + SCHEDULED_TIMEOUT_S
    while any(planned.is_unscheduled for planned in planned_runs(client)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    for planned in planned_runs(client):
        if planned.is_unscheduled:
            _warn(f"{planned.name}: the server plans no run of {', '.join(planned.schedules)}; see `nightlens doctor`")
        elif planned.next:
            _say("next", f"{planned.name}  {time_until(planned.next)}  ({', '.join(planned.schedules)})")
        elif planned.schedules:
            _say("next", f"{planned.name}  paused  ({', '.join(planned.schedules)})")
        else:
            _say("next", f"{planned.name}  when asked")


class Clock(Protocol):
    """What `time` is to a loop that waits."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class Watch:
    """Keeps the server and the worker alive, and says what becomes of the runs, until it is interrupted."""

    def __init__(
        self,
        server: LocalServer | None,
        worker: Worker,
        state: IO[str],
        news: RunNews,
        pages: LostPages,
        clock: Clock = time,
        look_every_s: float = LOOK_EVERY_S,
        read_every_s: float = READ_RUNS_EVERY_S,
    ) -> None:
        self._server, self._worker, self._state, self._news, self._pages = server, worker, state, news, pages
        self._clock, self._look_every_s, self._read_every_s = clock, look_every_s, read_every_s
        # Made once and kept: Prefect's client reads the certificates of the world, which takes longer than what is asked.
        self._asking = contextlib.ExitStack()
        self._client: SyncPrefectClient | None = None
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._is_silent = False

    def go_on(self) -> None:
        with self._asking:
            self._go_on()

    def _go_on(self) -> None:
        read = self._clock.monotonic()
        while True:
            self._clock.sleep(self._look_every_s)
            if self._server and not self._server.is_alive:
                self._revive_server(self._server)
            if not self._worker.is_alive:
                self._count_death("the worker", self._worker.log)
                self._worker.restart()
            if self._clock.monotonic() - read > self._read_every_s:
                read = self._clock.monotonic()
                self._tell_runs()
            for said in self._pages.go_on():
                if said.startswith(NOT_WRITTEN):
                    _warn(said)
                else:
                    _say("page", said)

    def _revive_server(self, server: LocalServer) -> None:
        self._count_death("the server", server.log)
        url = server.url
        self._forget_client()
        server.restart()
        if server.url != url:
            _warn(f"the server listens on {server.port} now, its port was taken; the worker starts again with it")
            self._worker.restart()
        _write(self._state, server, ready=True)

    def _count_death(self, what: str, log: Path) -> None:
        now = self._clock.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == DEATHS and now - self._deaths[0] < DEATHS_WITHIN_S:
            raise ServiceError(
                f"{what} died, the {DEATHS}rd death within {now - self._deaths[0]:.0f} s; the end of {log}: {log_tail(log)}"
            )
        _warn(f"{what} died and is started again; its log is {log}")

    def _tell_runs(self) -> None:
        try:
            found = self._news.read(self._client or self._ask())
        except (httpx.HTTPError, PrefectException, ValueError) as error:
            # ValueError: an answer that is not Prefect's, as the page of a proxy that says that the server is away.
            if not self._is_silent:
                _warn(f"{_ui_url()} does not say what becomes of runs ({type(error).__name__})")
            self._is_silent = True
            self._forget_client()
            return
        if self._is_silent:
            _say("server", f"{_ui_url()} answers again")
        self._is_silent = False
        for said in found:
            _say("run", said)
        self._pages.want(self._news.ended_badly)

    def _ask(self) -> SyncPrefectClient:
        self._client = self._asking.enter_context(get_client(sync_client=True, httpx_settings={"timeout": 5.0}))
        return self._client

    def _forget_client(self) -> None:
        """The next one finds the server wherever it listens then."""
        self._client = None
        self._asking.close()


def _ui_url() -> str | None:
    return get_current_settings().ui_url


def _say(what: str, text: str) -> None:
    print(f"{what:<9} {text}", flush=True)


def _warn(text: str) -> None:
    print(f"warning   {text}", file=sys.stderr, flush=True)
