"""`nightlens browse` as a process: its address, its record in the root, its end; and one line for what it cannot show."""

import json
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from browsed_root import AFTER, make_root
from command import nightlens, nightlens_arguments, printed_by_python, python, running
from storage.nights.browse_record import browse_address


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_says_so_in_the_root_and_leaves_nothing(root: Path, ending: signal.Signals) -> None:
    with running(*nightlens_arguments("browse", root, "--port", "0")) as process:
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+)/  3 nights of ", line)
        assert found, line
        assert httpx.get(f"{found[1]}/nights/{AFTER}/", timeout=60).status_code == 200
        assert browse_address(root) == found[1]
        assert json.loads((root / "browse.json").read_text())["pid"] == process.pid
        process.send_signal(ending)
        assert process.wait(30) == 0
    assert not (root / "browse.json").exists()


def test_a_night_within_a_root_is_what_the_address_leads_to(root: Path) -> None:
    with running(*nightlens_arguments("browse", root / "nights" / AFTER, "--port", "0")) as process:
        assert f"/nights/{AFTER}/  3 nights of" in process.stdout.readline()


def test_what_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    for place, said in (
        (tmp_path, "no night was sealed here yet: `nightlens run`"),
        (tmp_path / "nowhere", "nowhere"),
        ("http://127.0.0.1:9/attributions.h5", "http://127.0.0.1:9/attributions.h5"),
    ):
        done = nightlens("browse", place, "--port", "0")
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(root: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = nightlens("browse", root, "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"nightlens: --port {port}: it is taken by another program; give another one, or 0 for any that is free"
    ]


def test_an_analysts_install_has_neither_tensorflow_nor_prefect() -> None:
    code = "import sys; import tasks.browse.browse_server; print({'tensorflow', 'keras', 'prefect'} & set(sys.modules))"
    assert printed_by_python(code) == "set()\n"


def test_a_missing_package_is_named_with_its_extra(root: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['nightlens', 'browse', '--port', '0']\n"
        "from flows.cli import main; main()"
    )
    done = python("-c", code, cwd=root)
    assert done.returncode == 2
    assert done.stderr == "nightlens: browse needs uvicorn, which is not installed: pip install 'nightlens[browse]'\n"
