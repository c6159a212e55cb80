"""Where `nightlens browse` shows a root: only a process that lives and an address that answers are believed."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import running
from storage.nights.browse_record import browse_address, remove_browse_record, write_browse_record


@pytest.fixture
def address() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def other_pid() -> Iterator[int]:
    """Of a process that lives as long as the test."""
    with running("-c", "import sys; sys.stdin.read()") as process:
        yield process.pid


def record(root: Path, **changed: object) -> None:
    path = root / "browse.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_a_record_is_there_until_it_is_removed(address: str, tmp_path: Path) -> None:
    assert browse_address(tmp_path) is None
    write_browse_record(tmp_path, address)
    assert browse_address(tmp_path) == address
    about = json.loads((tmp_path / "browse.json").read_text())
    assert (set(about), about["pid"]) == ({"address", "host", "pid", "started"}, os.getpid())
    remove_browse_record(tmp_path)
    assert browse_address(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    remove_browse_record(tmp_path)


def test_a_browse_that_was_killed_is_not_believed(address: str, other_pid: int, tmp_path: Path) -> None:
    write_browse_record(tmp_path, address)
    record(tmp_path, pid=other_pid)
    assert browse_address(tmp_path) == address
    with running("-c", "pass") as process:
        process.wait(30)
    record(tmp_path, pid=process.pid)
    assert browse_address(tmp_path) is None


@pytest.mark.parametrize("host", ["another machine", None])
def test_a_browse_on_another_machine_is_not_believed_and_keeps_its_record(
    host: str | None, address: str, tmp_path: Path
) -> None:
    write_browse_record(tmp_path, address)
    record(tmp_path, host=host)
    assert browse_address(tmp_path) is None
    remove_browse_record(tmp_path)
    assert (tmp_path / "browse.json").exists()


def test_an_address_that_takes_no_connection_is_not_believed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        write_browse_record(tmp_path, address)
        assert browse_address(tmp_path) == address
    assert browse_address(tmp_path) is None


def test_the_record_of_a_browse_that_came_later_stays(address: str, other_pid: int, tmp_path: Path) -> None:
    write_browse_record(tmp_path, address)
    record(tmp_path, pid=other_pid)
    remove_browse_record(tmp_path)
    assert browse_address(tmp_path) == address


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "\xff", '{"address": 1}', '{"address": "http://127.0.0.1:1"}'],
    ids=["empty", "half", "list", "null", "no UTF-8", "no text", "no process"],
)
def test_a_text_that_is_no_record_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "browse.json").write_bytes(text.encode("latin-1"))
    assert browse_address(tmp_path) is None


@pytest.mark.parametrize("pid", [0, -1, "1", None, 10**30], ids=str)
def test_a_process_that_cannot_be_is_not_believed(pid: object, address: str, tmp_path: Path) -> None:
    write_browse_record(tmp_path, address)
    record(tmp_path, pid=pid)
    assert browse_address(tmp_path) is None


@pytest.mark.parametrize("tail", [")[x](javascript:alert(1)", "/<script>", " ", "\n", "99"])
def test_what_would_break_a_page_is_no_address(tail: str, address: str, tmp_path: Path) -> None:
    """The last one is a port that no machine has."""
    write_browse_record(tmp_path, address)
    record(tmp_path, address=address + tail)
    assert browse_address(tmp_path) is None
    if tail != "99":
        with pytest.raises(ValueError, match="expected an address such as http://127.0.0.1:8123, got 'http://127"):
            write_browse_record(tmp_path, address + tail)
