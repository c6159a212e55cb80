"""A real server that is killed in the middle of real nights, restarted or gone for good: each night is sealed all the same."""

import json
import os
import signal
from collections.abc import Iterator

import pytest
from real_prefect import kill_tree, wait_until
from recovery_site import (
    Site,
    a_site,
    assert_sealed,
)

from tasks.datasets import Dataset
from tasks.registry import ModelRecord

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(digits: Dataset, small_model: ModelRecord, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site"), digits, small_model) as site:
        yield site


def test_a_server_that_is_restarted_costs_the_night_nothing_and_is_told(site: Site) -> None:
    command = site.command("restart-command", api=site.server.url)
    try:
        run = site.start("restart", n_parts=2)
        site.wait_for_parts("restart-command")
        site.server.kill()
        n_before = len(site.parts("restart"))
        wait_until(lambda: len(site.parts("restart")) > n_before, 60, "the night goes on without a server")
        site.server.start()
        out, err = command.communicate(timeout=180)
    finally:
        kill_tree(command)
    assert site.record.wait_for_end(run, 120).is_completed()
    assert_sealed(site.root("restart"), run)
    told = "the Prefect server did not answer from"
    wait_until(lambda: told in "".join(site.record.logs(run)), 30, "it is logged")
    assert "night" in site.record.artifacts(run)

    assert_sealed(site.root("restart-command"))
    assert "verdict   sealed" in out
    assert "nightlens: the Prefect server did not answer from" in err
    assert "Traceback" not in err
    assert command.returncode in (0, 1)


def test_with_no_api_and_our_own_server_killed_the_night_is_sealed_where_that_is_ok(site: Site) -> None:
    url, home = "http://127.0.0.1:9/api", site.root("offline-command") / "prefect"
    command = site.command("offline-command", "--offline-ok", api=url)
    try:
        site.wait_for_parts("offline-command")
        os.kill(json.loads((home / "server.json").read_text())["pid"], signal.SIGKILL)
        out, err = command.communicate(timeout=240)
    finally:
        kill_tree(command)
    assert command.returncode == 0, err
    assert_sealed(site.root("offline-command"))
    assert "verdict   sealed" in out
    assert f"nightlens: not recorded at {url}, which did not answer" in err
    assert "nightlens: the Prefect server did not answer from" in err
    assert f"the Prefect server of {home} died" in err
    assert "Traceback" not in err


def test_a_server_that_goes_away_for_good_does_not_stop_the_night(site: Site) -> None:
    """The last: it leaves no server."""
    command = site.command("gone-command", api=site.server.url)
    (site.root("restart") / "latest").unlink()
    for part in (site.root("restart") / "parts").rglob("rows-*.h5"):
        part.unlink()
    try:
        run = site.start("restart")
        site.wait_for_parts("gone-command")
        site.server.kill()
        out, err = command.communicate(timeout=240)
    finally:
        kill_tree(command)
    wait_until(lambda: (site.root("restart") / "latest" / "night.json").is_file(), 60, "the night is sealed")
    assert_sealed(site.root("restart"), run)

    assert command.returncode == 1, err
    assert_sealed(site.root("gone-command"))
    assert "verdict   sealed" in out
    assert "nightlens: the Prefect server did not answer from" in err
    assert "not recorded: " in err
    assert "Traceback" not in err
    print(out, err)
