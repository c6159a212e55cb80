"""A Prefect server of our own, for machines where no Prefect API is configured.

A flow without an API gets a temporary server from Prefect that loses most task runs, so `nightlens run` starts a real
one: home <root>/prefect, SQLite there, 127.0.0.1, a free port, no analytics. `nightlens up` may choose another database,
address and port for it, and has it forget old runs. Three locks that the operating system
releases with their holder, however it dies, say who is there, so no process id is ever trusted:

    server.json     held by the server while it lives; what it says (url, host, pid, database) is stale when nobody holds it
    users.lock      held, shared, by every `run`, `ui` and `up` on this root; a server that nobody uses stops by itself
    start.lock      held by whoever starts the server, until it answers

The server process itself is server_process.py.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from flows.server.api import LOOPBACK, ServerError, answers, api_environment
from flows.server.server_record import flush
from flows.server.state_file import held, is_of_this_host, read_state, write_state
from storage.file.disk.lock import hold

__all__ = ["LocalServer", "ServerDied", "log_tail", "previous_port", "running_server"]

EVERYWHERE = ("0.0.0.0", "::")
SECONDS_A_DAY = 86_400
TAIL_BYTES = 65_536

PROCESS = Path(__file__).with_name("server_process.py")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class ServerDied(ServerError):
    """Our own server's process ended while it was in use."""


class LocalServer:
    """The server of a root, as a context: started or joined at its start, stopped at its end if nobody else uses it.

    Entering returns while the server is still starting, so that the caller can import TensorFlow meanwhile, and from
    then on this process's Prefect talks to it. `wait_until_up` must follow. Options are of a server that is started:
    ports to try in turn, the address to listen on, the database's URL, and after how many days runs are forgotten.
    """

    def __init__(
        self,
        root: Path,
        *,
        ports: Sequence[int] = (),
        host: str = LOOPBACK,
        database: str | None = None,
        record_days: int | None = None,
    ) -> None:
        self.home = root.expanduser().resolve() / "prefect"
        self.log = self.home / "server.log"
        self.url = ""
        self.was_there = False
        self._ports, self._host = tuple(ports), host
        self._database, self._record_days = database, record_days
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = contextlib.ExitStack()
        self._using = contextlib.ExitStack()

    @property
    def ui_url(self) -> str:
        """Where a browser finds it."""
        return self.url.removesuffix("/api")

    @property
    def port(self) -> int:
        return urllib.parse.urlsplit(self.url).port or 0

    @property
    def database(self) -> str:
        """Where the record is, in words and without a password."""
        return str((running_server(self.home) or {}).get("database", "SQLite"))

    @property
    def is_alive(self) -> bool:
        """Whether it lives. Where a root that is away for a while hides its state, our own process says so, or the address."""
        if self._process is not None and self._process.poll() is None:
            return True
        with contextlib.suppress(OSError):
            if (self.home / "server.json").exists():
                return running_server(self.home) is not None
        return answers(self.url)

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as using:
            # A server that is just stopping holds this lock alone, until it is gone.
            users = using.enter_context(self._lock("users.lock", is_shared=True))
            using.callback(self._leave, users)
            using.enter_context(self._starting)
            self._starting.enter_context(self._lock("start.lock"))
            if running := running_server(self.home):
                self.url, self.was_there = running["url"], True
            else:
                self._start()
            using.enter_context(api_environment(self.home, self.url))
            self._using = using.pop_all()
        return self

    def restart(self) -> None:
        """Starts the server again, on its port if that is free, after it died; joins one that somebody else started."""
        if self._process is not None and not _ends(self._process):
            self._process.kill()
            self._process.wait()
        self._starting.enter_context(self._lock("start.lock"))
        if running := running_server(self.home):
            self.url = running["url"]
        else:
            self._start()
        self._using.enter_context(api_environment(self.home, self.url))
        self.wait_until_up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._using:
            self.refuse_dead()
            flush()

    def wait_until_up(self) -> None:
        """Returns when the server answers. Raises ServerError with the end of its log if it dies or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.url):
            self.refuse_dead()
            if time.monotonic() > deadline:
                raise ServerError(
                    f"expected the Prefect server of {self.home} to answer at {self.url} within {START_TIMEOUT_S:g} s, "
                    f"it did not; the end of {self.log}: {log_tail(self.log)}"
                )
            time.sleep(0.1)
        self._starting.close()

    def refuse_dead(self) -> None:
        """Raises ServerDied with the end of its log if the server process is gone."""
        if running_server(self.home) is None:
            raise ServerDied(f"the Prefect server of {self.home} died; the end of {self.log}: {log_tail(self.log)}")

    @contextlib.contextmanager
    def _lock(self, name: str, *, is_shared: bool = False) -> Iterator[IO[str]]:
        with (self.home / name).open("a+") as file:
            hold(file, self.home.parent, is_shared=is_shared, waits=True)
            yield file

    def _leave(self, users: IO[str]) -> None:
        """Stops the server if it lives and no other `run` or `ui` uses it."""
        running = running_server(self.home)
        # On another host, or without a process id, as whoever started it was killed at once, it is left to stop by itself.
        if running and "pid" in running and is_of_this_host(running) and hold(users, self.home):
            _stop(running["pid"], self.home)
        # One that a root that is away hides still lives, and stops by itself.
        if self._process is not None and running_server(self.home) is None:
            _ends(self._process)

    def _start(self) -> None:
        with contextlib.ExitStack() as ours:
            ports = self._ports or (previous_port(self.home), 0)
            listening = ours.enter_context(_bind(self._host, ports))
            self._ports = (listening.getsockname()[1], 0)
            self.url = f"http://{_reached_by(self._host)}:{listening.getsockname()[1]}/api"
            # Before the file is held: the database's name takes an import, which is long on a busy machine.
            about = {"url": self.url, "database": _name_database(self._database), "host": socket.gethostname()}
            state = ours.enter_context(held(self.home / "server.json"))
            # At once, and with the process id as soon as there is one: nobody who looks in between may be misled.
            write_state(state, about)
            log = ours.enter_context(self.log.open("ab"))
            # Its own session: a Ctrl-C in the terminal is for the run, which still has to be recorded.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROCESS), str(listening.fileno()), str(self.home / "users.lock")],
                env=_server_variables(self.home, self.url, self._database, self._record_days),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listening.fileno(), state.fileno()),
                start_new_session=True,
            )
            write_state(state, about | {"pid": self._process.pid})


def _server_variables(home: Path, url: str, database: str | None, record_days: int | None) -> dict[str, str]:
    """The server's environment: nothing of another Prefect installation leaks in."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    # From the server's own folder: a root may be called what? or %41, which mean something else in a URL.
    chosen = {"PREFECT_API_DATABASE_CONNECTION_URL": database or "sqlite+aiosqlite:///prefect.db"}
    if record_days:
        # By default the server forgets events only.
        chosen["PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"] = "events,flow_runs"
        chosen["PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"] = str(record_days * SECONDS_A_DAY)
    return (
        inherited
        | chosen
        | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": url,
            # Pages ask the address that they came from, be it a tunnel's or another name of this machine.
            "PREFECT_UI_API_URL": "/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
            # The slot of a run that goes on outlives a restart of the server; the default keeps it in memory.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "DO_NOT_TRACK": "1",
        }
    )


def _bind(host: str, ports: Sequence[int]) -> socket.socket:
    """A socket on the first port that can be had; 0 is any free one.

    Bound here and handed on, so that nobody can take the port before the server listens.
    """
    for port in ports:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except socket.gaierror as error:
            raise ServerError(f"--host {host}: no address of this machine ({error.strerror}); try {LOOPBACK}") from None
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            return listening
        except OSError as error:
            listening.close()
            reason = error.strerror
    raise ServerError(f"port {ports[-1]} of {host} cannot be used ({reason}); choose another --port")


def _reached_by(host: str) -> str:
    """Where this machine reaches a server that listens on `host`, as it stands in a URL."""
    if host in EVERYWHERE:
        return LOOPBACK
    return f"[{host}]" if ":" in host else host


def _name_database(url: str | None) -> str:
    """A database's URL as people may read it, without a password."""
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True) if url else "SQLite"


def previous_port(home: Path) -> int:
    """The port in a server.json that is stale, 0 where there is none to be read."""
    path = home / "server.json"
    found = re.search(r"://[^/\"]+:(\d{1,5})/", path.read_text(errors="replace")) if path.exists() else None
    return int(found[1]) if found and int(found[1]) < 65_536 else 0


def running_server(home: Path) -> dict[str, Any] | None:
    """The url, database, host and pid of the server of this home, if one lives; the pid may be missing in its first moment.

    Raises ServerError if whoever starts it does not go on.
    """
    return read_state(home / "server.json")


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process ends within STOP_TIMEOUT_S."""
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(pid: int, home: Path) -> None:
    """Asks the server to stop and waits; one that does not is killed, and that is an error worth telling."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while running_server(home) is not None:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise ServerError(
                f"the Prefect server of {home} (process {pid}) did not stop within {STOP_TIMEOUT_S:g} s and was killed"
            )
        time.sleep(0.05)


def log_tail(log: Path, n_lines: int = 15) -> str:
    """The last lines of a log that may have grown for months."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-n_lines:]
    except FileNotFoundError:
        return "(there is none)"
    return "\n    ".join(["", *lines]) if lines else "(empty)"
