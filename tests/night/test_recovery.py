"""Recovery on a real server with real workers: what is killed, fails or is refused, and what becomes of the night.

What takes long is begun first: the run that only missing heartbeats will end. A server that goes away: test_server_outage.py.
"""

import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.concurrency._leases import maintain_concurrency_lease
from prefect.exceptions import PrefectHTTPStatusError

from flows.nightly import nightly
from flows.service.heartbeat import AUTOMATION, ensure_heartbeat_automation
from hostile_texts import unescape
from real_prefect import Worker
from recovery_site import N_PARTS, N_ROWS, OTHER_TASKS, WITHIN_S, Site, assert_sealed
from tasks.night.outage import outlasting
from waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def doomed(site: Site) -> FlowRun:
    """A run whose process was killed together with its worker."""
    worker = Worker(site.server, "doomed")
    try:
        with site.held("doomed", 1):
            run = site.start("doomed", n_parts=1)
            worker.kill()
    finally:
        worker.kill()
    assert site.record.state(run).is_running()
    return run


@pytest.mark.usefixtures("doomed")
def test_a_cron_fires_and_its_run_completes_with_a_whole_record(site: Site) -> None:
    client = site.record.client
    found = client.read_deployment_by_name("nightly/cron")
    client.resume_deployment(found.id)
    try:
        this = DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))

        def completed() -> list[FlowRun]:
            runs = client.read_flow_runs(deployment_filter=this)
            return [run for run in runs if run.state and run.state.is_completed()]

        run = wait_until(completed, 180, "a scheduled run completes")[-1]
    finally:
        client.pause_deployment(found.id)
    assert run.auto_scheduled
    assert (run.expected_start_time.second, run.run_count) == (0, 1)
    assert_sealed(site.root("cron"), run)

    n_tasks = N_PARTS + len(OTHER_TASKS)
    runs = wait_until(lambda: site.record.final_task_runs(run, n_tasks), 30, "its task runs are recorded")
    assert all(each.state.is_completed() for each in runs)
    assert {each.name.rsplit("-", 1)[0] for each in runs} >= set(OTHER_TASKS)
    wait_until(lambda: f"sealed {N_ROWS} rows" in "".join(site.record.logs(run)), 60, "its logs are recorded")
    said = "gradients an image"
    wait_until(lambda: "".join(site.record.logs(run)).count(said) == N_PARTS, 60, "the logs of its parts are recorded")
    assert "night" in site.record.artifacts(run)


@dataclass
class Killed:
    """What became of a run that was killed, of one that began beside it, and of the next."""

    run: FlowRun
    parts: dict[str, int]
    beside: State
    ended: State
    next: FlowRun
    next_ended: State


@pytest.fixture(scope="module")
def killed(site: Site) -> Killed:
    with site.held("killed", 3):
        run = site.start("killed", n_parts=3)
        beside = site.record.wait_for_end(site.record.start_run("nightly/killed"), 30)
        assert site.record.state(run).is_running()
        parts = site.parts("killed")
        site.worker.kill_flow()
        ended = site.record.wait_for_end(run, 30)
    following = site.record.start_run("nightly/killed")
    return Killed(run, parts, beside, ended, following, site.record.wait_for_end(following, 120))


def test_a_second_run_is_cancelled_with_its_reason_while_one_is_going(killed: Killed) -> None:
    assert killed.beside.is_cancelled()
    assert killed.beside.message == "Deployment concurrency limit reached."


def test_a_killed_flow_is_crashed_and_the_next_run_computes_only_what_is_missing(killed: Killed, site: Site) -> None:
    assert killed.ended.is_crashed(), killed.ended
    assert killed.next_ended.is_completed(), killed.next_ended
    assert_sealed(site.root("killed"), killed.next)
    assert len(killed.parts) == 3
    after = site.parts("killed")
    assert len(after) == N_PARTS
    assert {name: after[name] for name in killed.parts} == killed.parts
    found = "found whole, not computed again"
    wait_until(lambda: "".join(site.record.logs(killed.next)).count(found) == len(killed.parts), 60, "it is logged")


def test_the_next_run_writes_the_page_of_one_that_was_killed(killed: Killed, site: Site) -> None:
    (page,) = site.record.pages_of_night(killed.run)
    assert page.splitlines()[0].startswith("# Failed in explain: killed: its process")
    assert str(killed.ended.message)[:20] in unescape(page)
    assert "nightlens run --resume --night" in page
    assert len(site.record.pages_of_night(killed.next)) == 1
    assert list((site.root("killed") / ".running").glob("*.json")) == []


def test_a_part_that_the_disk_refuses_is_retried_and_fails_the_night_by_name(killed: Killed, site: Site) -> None:
    root, name = site.root("killed"), "rows-000008-000012.h5"
    latest = (root / "latest").readlink()
    (part,) = (root / "parts").rglob(name)
    part.unlink()
    part.mkdir()
    run = site.record.start_run("nightly/killed")
    ended = site.record.wait_for_end(run, 120)
    assert ended.is_failed()
    assert "1 of 12 parts failed, rows 8 to 11" in str(ended.message)
    assert "IsADirectoryError" in str(ended.message)
    for told in ("Retry 1/2 will start 1 second", "Retry 2/2 will start 10 second"):
        wait_until(lambda told=told: told in "".join(site.record.logs(run)), 60, told)
    assert (root / "latest").readlink() == latest
    assert_sealed(root, killed.next)
    part.rmdir()


def test_missing_heartbeats_free_the_slot_of_a_run_that_died_with_its_worker(doomed: FlowRun, site: Site) -> None:
    ended = site.record.wait_for_end(doomed, WITHIN_S + 60)
    assert ended.is_crashed()
    assert ended.message == f"No heartbeat for {WITHIN_S} s: the flow's process and its worker are gone."
    done = site.parts("doomed")
    worker = Worker(site.server, "doomed")
    try:
        run = site.record.start_run("nightly/doomed")
        assert site.record.wait_for_end(run, 120).is_completed()
    finally:
        worker.kill()
    assert_sealed(site.root("doomed"), run)
    assert {name: site.parts("doomed")[name] for name in done} == done
    (page,) = site.record.pages_of_night(doomed)
    assert "killed: its process" in page and "No heartbeat for" in page


def test_the_automation_is_made_once_and_corrected(site: Site) -> None:
    client = site.record.client
    (before,) = client.read_automations_by_name(AUTOMATION)
    ensure_heartbeat_automation(client, within_s=WITHIN_S)
    assert client.read_automations_by_name(AUTOMATION) == [before]
    ensure_heartbeat_automation(client, within_s=WITHIN_S + 30)
    (after,) = client.read_automations_by_name(AUTOMATION)
    assert (after.id, after.trigger.within.total_seconds()) == (before.id, WITHIN_S + 30)
    ensure_heartbeat_automation(client, within_s=WITHIN_S)
    with pytest.raises(ValueError, match="within_s must be at least 3 heartbeats of 30 s, got 60 s; use 90 or more"):
        ensure_heartbeat_automation(client, within_s=60)


def test_a_slot_that_the_server_lost_does_not_end_the_night(site: Site) -> None:
    """As after a restart of a server that keeps its leases in memory; Prefect alone would end the flow in a moment."""

    @flow
    def holding(lease: UUID) -> str:
        with outlasting(), maintain_concurrency_lease(lease, 300, raise_on_lease_renewal_failure=True):
            thread = f"concurrency-lease-renewal-{lease}"
            wait_until(lambda: thread not in [each.name for each in threading.enumerate()], 60, "the renewal gives up")
            return "sealed"

    state = holding(uuid4(), return_state=True)
    assert state.is_completed(), state
    run = site.record.client.read_flow_run(state.state_details.flow_run_id)
    lost = "the server does not hold this run's concurrency slot any more"
    wait_until(lambda: lost in "".join(site.record.logs(run)), 60, "it is logged")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"explanation": {"part_rows": "many"}}, "part_rows"),
        ({"audit": {"n_rows": 1.5}}, "n_rows"),
        ({"dataset": {"sorce": "digits"}}, "sorce"),
    ],
    ids=["text", "fraction", "misspelt"],
)
def test_a_parameter_of_the_wrong_type_is_refused_by_name(parameters: dict[str, Any], named: str, site: Site) -> None:
    with pytest.raises(PrefectHTTPStatusError) as caught:
        site.record.start_run("nightly/killed", **parameters)
    assert named in caught.value.response.text
    state: State = nightly(**parameters, return_state=True)
    assert state.is_failed()
    assert named in str(state.message)
