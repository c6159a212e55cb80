"""A real server that is killed in the middle of real nights, restarted or gone for good: each night is sealed all the same.

What takes long is begun first: the command that waits for its own server, which is gone.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from recovery_site import TASKS_BEFORE_PARTS, Site, assert_sealed
from waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def offline(site: Site) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A command with no API whose own server was killed, the address that did not answer, and the server's home."""
    name, url = "offline-command", "http://127.0.0.1:9/api"
    home = site.root(name) / "prefect"
    with ExitStack() as running:
        with site.held(name, 1):
            command = running.enter_context(site.command(name, "--offline-ok", api=url))
            site.wait_for_parts(name, n_parts=1)
            os.kill(json.loads((home / "server.json").read_text())["pid"], signal.SIGKILL)
        yield command, url, home


@pytest.mark.usefixtures("offline")
def test_a_server_that_is_restarted_costs_the_night_nothing_and_is_told(site: Site) -> None:
    with ExitStack() as running:
        with site.held("restart-command", 1), site.held("restart", 6):
            command = running.enter_context(site.command("restart-command", api=site.server.url))
            with site.held("restart", 2, 6):
                run = site.start("restart", n_parts=2)
                site.wait_for_parts("restart-command", n_parts=1)
                site.wait_for_record("restart-command", n_ended=TASKS_BEFORE_PARTS + 1)
                site.server.kill()
            wait_until(lambda: len(site.parts("restart")) == 6, 60, "the night goes on without a server")
            site.server.start()
        out, err = command.communicate(timeout=180)
    assert site.record.wait_for_end(run, 120).is_completed()
    assert_sealed(site.root("restart"), run)
    told = "the Prefect server did not answer from"
    wait_until(lambda: told in "".join(site.record.logs(run)), 30, "it is logged")
    assert "night" in site.record.artifacts(run)

    assert_sealed(site.root("restart-command"))
    assert "verdict   sealed" in out
    assert "nightlens: the Prefect server did not answer from" in err
    assert "Traceback" not in err
    assert command.returncode == 0, "what ended before the server died is on it, and the rest was sent when it was back"


def test_with_no_api_and_our_own_server_killed_the_night_is_sealed_where_that_is_ok(
    site: Site, offline: tuple[subprocess.Popen[str], str, Path]
) -> None:
    command, url, home = offline
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, err
    assert_sealed(site.root("offline-command"))
    assert "verdict   sealed" in out
    assert f"nightlens: not recorded at {url}, which did not answer" in err
    assert "nightlens: the Prefect server did not answer from" in err
    assert f"the Prefect server of {home} died" in err
    assert "Traceback" not in err


def test_a_server_that_goes_away_for_good_does_not_stop_the_night(site: Site) -> None:
    """The last: it leaves no server."""
    (site.root("restart") / "latest").unlink()
    for part in (site.root("restart") / "parts").rglob("rows-*.h5"):
        part.unlink()
    with ExitStack() as running:
        with site.held("gone-command", 1), site.held("restart", 1):
            command = running.enter_context(site.command("gone-command", api=site.server.url))
            run = site.start("restart", n_parts=1)
            site.wait_for_parts("gone-command", n_parts=1)
            site.server.kill()
        out, err = command.communicate(timeout=240)
    wait_until(lambda: (site.root("restart") / "latest" / "night.json").is_file(), 60, "the night is sealed")
    assert_sealed(site.root("restart"), run)

    assert command.returncode == 1, err
    assert_sealed(site.root("gone-command"))
    assert "verdict   sealed" in out
    assert "nightlens: the Prefect server did not answer from" in err
    assert "not recorded: " in err
    assert "Traceback" not in err
