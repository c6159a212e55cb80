"""Our own Prefect server, for real: what it records, that it stops, and that runs on one root share it."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tracemalloc
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from command import running
from environment import PROXY_OF_NOBODY, clean_environment
from flows.server import server as server_module
from flows.server.server import LocalServer, log_tail
from flows.server.state_file import held, write_state
from free_port import free_port
from receivers import serving
from waiting import wait_until

N_PARTS = 40

RECORDED_RUN = """
import sys
from pathlib import Path
from flows.server.server_record import wait_until_recorded
from flows.server.server import LocalServer
with LocalServer(Path(sys.argv[1])) as server:
    from prefect import flow, get_run_logger, task
    from prefect.artifacts import create_markdown_artifact
    from prefect.task_runners import ThreadPoolTaskRunner
    @task
    def part(i):
        get_run_logger().info("part %d is done", i)
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def night(n):
        [future.result() for future in part.map(range(n))]
        create_markdown_artifact("explained", key="night")
    server.wait_until_up()
    state = night(int(sys.argv[2]), return_state=True)
    wait_until_recorded(state.state_details.flow_run_id)
    print(server.url, state.state_details.flow_run_id)
"""
WAITING_RUN = """
import sys
from pathlib import Path
from flows.server.server import LocalServer
with LocalServer(Path(sys.argv[1])) as server:
    server.wait_until_up()
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No Prefect of the developer's, no network, and a proxy that would swallow what is not meant for it."""
    proxy = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), PROXY_OF_NOBODY)
    return clean_environment(PREFECT_HOME=str(tmp_path_factory.mktemp("prefect-home")), **proxy)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> tuple[Path, str, str]:
    """A root with one mapped flow in its record, and what the process that ran it said on stdout and stderr."""
    root = tmp_path_factory.mktemp("recorded")
    with started(RECORDED_RUN, root, N_PARTS, environment=environment) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert server_processes(root) == []
    return root, out, err


@pytest.fixture
def root(tmp_path: Path, recorded: tuple[Path, str, str]) -> Path:
    """A root whose database is there already, which saves the seconds that Prefect takes to make one."""
    (tmp_path / "prefect").mkdir()
    shutil.copy(recorded[0] / "prefect" / "prefect.db", tmp_path / "prefect")
    return tmp_path


def server_processes(root: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if str(root / "prefect" / "users.lock") in process.cmdline():
                found.append(process)
    return found


def started(
    script: str, *arguments: object, environment: dict[str, str]
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A Python process that runs a script, out of the reach of a Ctrl-C for the tests."""
    return running("-c", script, *arguments, environment=environment, start_new_session=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def records(root: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"file:{root}/prefect/prefect.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def port_of(url: str) -> int:
    return int(url.removesuffix("/api").rpartition(":")[2])


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()
    assert process.wait(30) == 0


def test_the_record_is_in_the_root_whatever_that_is_called(tmp_path: Path, environment: dict[str, str]) -> None:
    """A question mark, a hash and a percent sign mean something in a URL, as a database has one."""
    root = tmp_path / 'what? a#b %41 naïve 猫 it\'s "q"'
    with started(WAITING_RUN, root, environment=environment) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        assert (root / "prefect" / "prefect.db").stat().st_size > 100_000
        process.communicate("", timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_a_mapped_flow_is_recorded_whole_and_the_server_is_gone(recorded: tuple[Path, str, str]) -> None:
    root, out, err = recorded
    url, run_id = out.split()
    assert "Traceback" not in err
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port_of(url))):
        pass
    assert records(root, "SELECT state_type, count(*) FROM task_run GROUP BY 1") == [("COMPLETED", N_PARTS)]
    assert records(root, "SELECT id, state_type FROM flow_run") == [(run_id, "COMPLETED")]
    assert records(root, "SELECT key FROM artifact WHERE key IS NOT NULL") == [("night",)]
    messages = {message for (message,) in records(root, "SELECT message FROM log")}
    assert {f"part {i} is done" for i in range(N_PARTS)} <= messages
    assert records(root, "SELECT count(*) FROM events WHERE event = 'prefect.task-run.Completed'") == [(N_PARTS,)]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "sigterm", "sigkill"])
def test_no_server_survives_the_process_that_used_it(
    sent: signal.Signals, root: Path, environment: dict[str, str]
) -> None:
    with started(WAITING_RUN, root, environment=environment) as process:
        assert read_line(process)
        assert len(server_processes(root)) == 1
        process.send_signal(sent)
        process.wait(60)
    wait_until(lambda: not server_processes(root), 60, "the server is gone")
    assert "Traceback" not in (root / "prefect" / "server.log").read_text()


def test_two_runs_share_a_server_and_the_last_one_stops_it(root: Path, environment: dict[str, str]) -> None:
    with (
        started(WAITING_RUN, root, environment=environment) as first,
        started(WAITING_RUN, root, environment=environment) as second,
    ):
        url = read_line(first)
        assert url == read_line(second)
        assert len(server_processes(root)) == 1
        end(first)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/health", timeout=30) as answer:
            assert answer.read() == b"true"
        end(second)
        assert server_processes(root) == []


def test_a_stale_server_json_is_recognised_and_its_port_used_again(root: Path, environment: dict[str, str]) -> None:
    port = free_port()
    # The process is alive and is none of ours: a process id proves nothing.
    stale = {"url": f"http://127.0.0.1:{port}/api", "pid": os.getpid()}
    (root / "prefect" / "server.json").write_text(json.dumps(stale))
    with started(WAITING_RUN, root, environment=environment) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out.strip()) == (0, stale["url"]), err


def test_a_taken_previous_port_gives_a_free_one(root: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        (root / "prefect" / "server.json").write_text(json.dumps({"url": url, "pid": 1}))
        with started(WAITING_RUN, root, environment=environment) as process:
            out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert port_of(out.strip()) not in (0, port_of(url))


def test_a_server_that_dies_at_its_start_is_told_with_the_end_of_its_log(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "prefect" / "prefect.db").mkdir(parents=True)
    with started(WAITING_RUN, tmp_path, environment=environment) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "died; the end of" in err
    assert "unable to open database file" in err
    assert server_processes(tmp_path) == []


def test_a_server_that_dies_while_it_is_used_is_told(root: Path, environment: dict[str, str]) -> None:
    with started(WAITING_RUN, root, environment=environment) as process:
        assert read_line(process)
        (server,) = server_processes(root)
        server.kill()
        # The process has no command line any more some moments before its files are closed.
        with (root / "prefect" / "server.json").open() as state:
            fcntl.flock(state, fcntl.LOCK_EX)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"the Prefect server of {root / 'prefect'} died" in err.splitlines()[-1]


def test_a_server_whose_starter_was_killed_before_it_wrote_its_number_stops_by_itself(
    root: Path, environment: dict[str, str]
) -> None:
    with started(WAITING_RUN, root, environment=environment) as process:
        assert read_line(process)
        path = root / "prefect" / "server.json"
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "pid"}))
        end(process)
    wait_until(lambda: not server_processes(root), 60, "the server is gone")


@dataclass
class OwnServer:
    """A server of a root that has no state of it, and the process that was started for it, which serves nobody."""

    server: LocalServer
    process: subprocess.Popen[bytes]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnServer]:
    server = LocalServer(tmp_path)
    server.home.mkdir()
    server.url = f"http://127.0.0.1:{free_port()}/api"
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        server._process = process
        try:
            yield OwnServer(server, process)
        finally:
            server._using.close()
            process.kill()


@pytest.fixture
def health() -> Iterator[str]:
    """The address of an API that is well, and is nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/api"


def test_a_server_of_ours_lives_as_long_as_its_process_though_its_root_is_away(own: OwnServer) -> None:
    own.server.home.rmdir()
    assert own.server.is_alive
    own.process.kill()
    own.process.wait()
    assert not own.server.is_alive


@pytest.mark.parametrize("is_readable", [True, False], ids=["away", "cannot be read"])
def test_a_server_of_others_lives_while_it_answers_though_its_root_is_away(
    own: OwnServer, health: str, is_readable: bool
) -> None:
    """A folder in place of the file is an error of another kind than that there is none."""
    own.server._process = None
    if not is_readable:
        (own.server.home / "server.json").mkdir()
    assert not own.server.is_alive
    own.server.url = health
    assert own.server.is_alive


def test_a_process_that_lives_on_is_killed_before_the_server_starts_again(
    own: OwnServer, health: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "STOP_TIMEOUT_S", 0.1)
    with held(own.server.home / "server.json") as state:
        write_state(state, {"url": health})
        own.server.restart()
    assert own.process.poll() == -signal.SIGKILL
    assert own.server.url == health


def test_a_server_that_a_root_that_is_away_hides_is_left_to_stop_by_itself(
    own: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "STOP_TIMEOUT_S", 0.1)
    with (own.server.home / "users.lock").open("a+") as users:
        own.server._leave(users)
    assert own.process.poll() is None


def test_the_end_of_a_long_log_is_read_and_no_more(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    lines = [f"line {number} of the \N{SNOWMAN} log" for number in range(40)]
    log.write_bytes(bytes(64_000_000) + "\n".join(["", *lines, ""]).encode())
    tracemalloc.start()
    try:
        found = log_tail(log, 30)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert [line.strip() for line in found.splitlines()] == ["", *lines[-30:]]


def test_a_log_that_is_gone_or_empty_is_said_to_be(tmp_path: Path) -> None:
    assert log_tail(tmp_path / "server.log") == "(there is none)"
    (tmp_path / "server.log").touch()
    assert log_tail(tmp_path / "server.log") == "(empty)"
