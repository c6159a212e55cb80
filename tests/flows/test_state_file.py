"""What a process says of itself in a file that it holds, read at any moment: while it begins, writes, ends, or is gone."""

import fcntl
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from command import nightlens_arguments, running
from environment import clean_environment
from flows.commands.service_commands import down
from flows.commands.status import examine_service
from flows.server import state_file
from flows.server.api import ServerError
from flows.server.server import LocalServer, running_server
from flows.server.state_file import held
from flows.service.up import _write as write_own_state
from flows.service.up import holder
from waiting import wait_until

NOBODY = "http://127.0.0.1:9/api"
READERS: dict[str, Callable[[Path], Any]] = {"server.json": running_server, "up.json": holder}
NOT_WHOLE = pytest.mark.parametrize("text", ["", '{"url": "http://127.0'], ids=["empty", "cut off"])
STALE = {"pid": 1, "url": NOBODY, "own_server": True, "ready": True}
SERVER = """
import sys
from pathlib import Path
from flows.server.server import LocalServer
with LocalServer(Path(sys.argv[1])) as server:
    server.wait_until_up()
"""


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "prefect"
    folder.mkdir()
    return folder


@contextmanager
def locked(path: Path, text: str, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """The file with a text, locked by this process."""
    path.write_text(text)
    with path.open("r+") as file:
        fcntl.flock(file, operation)
        yield


def started(*arguments: object) -> AbstractContextManager[subprocess.Popen[str]]:
    """A Python process with an API configured that nobody answers for."""
    return running(*arguments, environment=clean_environment(PREFECT_HOME="/nowhere", PREFECT_API_URL=NOBODY))


def assert_went_on(up: subprocess.Popen[str]) -> None:
    """`up` came as far as the API that does not answer, which is as far as it can come here."""
    _, err = up.communicate(timeout=60)
    assert up.returncode == 2
    assert f"expected a Prefect API at PREFECT_API_URL {NOBODY}" in err


@NOT_WHOLE
def test_a_text_that_is_not_whole_yet_is_waited_for(name: str, text: str, home: Path) -> None:
    with ThreadPoolExecutor(1) as executor, locked(home / name, text):
        reading = executor.submit(READERS[name], home)
        with pytest.raises(TimeoutError):
            reading.result(0.3)
        (home / name).write_text('{"pid": 7}\n')
        assert reading.result(30) == {"pid": 7}


@NOT_WHOLE
def test_a_holder_that_is_gone_before_it_wrote_is_nobody(name: str, text: str, home: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        with locked(home / name, text):
            reading = executor.submit(READERS[name], home)
            with pytest.raises(TimeoutError):
                reading.result(0.3)
        assert reading.result(30) is None


def test_a_text_that_nobody_holds_is_stale(name: str, home: Path) -> None:
    assert READERS[name](home) is None
    (home / name).write_text(json.dumps(STALE))
    assert READERS[name](home) is None
    with locked(home / name, json.dumps(STALE), fcntl.LOCK_SH):
        assert READERS[name](home) is None, "who reads it is no holder"


def test_a_holder_that_never_writes_is_an_error(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "PATIENCE_S", 0.1)
    expected = r"json: expected what its holder wrote there, got nothing whole within 0\.1 s; `fuser .*` names that"
    with locked(home / name, ""), pytest.raises(ServerError, match=expected):
        READERS[name](home)


def test_status_judges_what_is_never_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "PATIENCE_S", 0.1)
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        locked(home / "up.json", ""),
        locked(home / "server.json", ""),
    ):
        lines = {line.what: line for line in examine_service(home.parent)}
    for what in ("up", "server"):
        assert lines[what].mark == "✗"
        assert f"{what}.json: expected what its holder wrote there" in lines[what].text


def test_up_waits_for_who_only_looks_and_shows_nobody_a_stale_text(home: Path) -> None:
    """As `status` does, this process holds up.json, shared."""
    path = home / "up.json"
    with started(*nightlens_arguments("up", "--root", home.parent)) as up:
        with locked(path, json.dumps(STALE), fcntl.LOCK_SH):
            wait_until(lambda: up.poll() is not None or not path.read_text(), 60, "up takes over")
            assert up.poll() is None, up.communicate()
        assert_went_on(up)


def test_up_waits_for_another_that_is_stopping(home: Path) -> None:
    stopping = json.dumps(STALE | {"ready": False, "stopping": True})
    with ExitStack() as first, started(*nightlens_arguments("up", "--root", home.parent)) as second:
        first.enter_context(locked(home / "up.lock", ""))
        first.enter_context(locked(home / "up.json", stopping))
        assert second.stdout
        assert second.stdout.readline() == "up        process 1 is stopping; this one goes on when it has\n"
        first.close()
        assert_went_on(second)


def test_a_server_that_begins_shows_nobody_a_stale_text(home: Path) -> None:
    path = home / "server.json"
    with started("-P", "-c", SERVER, home.parent) as user:
        with locked(path, json.dumps(STALE), fcntl.LOCK_SH):
            wait_until(lambda: user.poll() is not None or not path.read_text(), 60, "the server's file is taken over")
            assert user.poll() is None, user.communicate()
        begun = wait_until(lambda: running_server(home), 60, "the server begins")
        assert begun["database"] == "SQLite" and begun.get("pid") != STALE["pid"]
        assert begun["host"] == socket.gethostname()
    wait_until(lambda: running_server(home) is None, 60, "the server ends with the process that used it")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[str]]:
    """A process of this machine whose number another host's process has, too."""
    with running("-S", "-c", "input()", environment=clean_environment(), stdin=subprocess.PIPE) as process:
        yield process
        assert process.poll() is None


def on_another_host(stranger: subprocess.Popen[str]) -> str:
    return json.dumps(STALE | {"pid": stranger.pid, "host": "elsewhere"})


def test_down_ends_no_process_of_this_machine_for_one_of_another(home: Path, stranger: subprocess.Popen[str]) -> None:
    expected = f"^{re.escape(str(home.parent))} is kept up by process {stranger.pid} on elsewhere; stop it there$"
    with locked(home / "up.json", on_another_host(stranger)), pytest.raises(ValueError, match=expected):
        down(home.parent)


def test_a_second_up_changes_nothing_that_another_host_keeps_up(home: Path, stranger: subprocess.Popen[str]) -> None:
    up = started(*nightlens_arguments("up", "--root", home.parent))
    with locked(home / "up.json", on_another_host(stranger)), up as second:
        _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert err.endswith(f"{home.parent} is kept up by process {stranger.pid} on elsewhere; stop it there\n")


def test_up_says_on_which_host_it_is(home: Path) -> None:
    with held(home / "up.json") as state:
        write_own_state(state, None)
        assert (holder(home) or {})["host"] == socket.gethostname()


def test_the_server_of_another_host_is_left_to_stop_by_itself(home: Path, stranger: subprocess.Popen[str]) -> None:
    with locked(home / "server.json", on_another_host(stranger)), (home / "users.lock").open("a+") as users:
        LocalServer(home.parent)._leave(users)


def test_down_bears_an_up_that_ended_a_moment_ago(home: Path) -> None:
    with started("-P", "-c", "") as ended:
        ended.wait(60)
    with ThreadPoolExecutor(1) as executor:
        with locked(home / "up.json", json.dumps(STALE | {"pid": ended.pid})):
            stopping = executor.submit(down, home.parent)
            with pytest.raises(TimeoutError):
                stopping.result(0.3)
        stopping.result(60)
