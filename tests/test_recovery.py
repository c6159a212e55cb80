"""Recovery on a real server with real workers: what is killed, fails or goes away, and what becomes of the night.

The nights are real, of a small network with tolerances that nothing meets, so that every part takes all the gradients it
may. Every deployment has a root of its own. What takes long is begun first: the run that only missing heartbeats will end.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect import flow
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.concurrency._leases import maintain_concurrency_lease
from prefect.exceptions import PrefectHTTPStatusError
from real_prefect import REPOSITORY, Record, Server, Worker, kill_tree, recorded, wait_until

from flows.nightly import nightly
from flows.service.heartbeat import AUTOMATION, HEARTBEAT_FREQUENCY_S, WORK_POOL, ensure_heartbeat_automation
from storage import open_store
from tasks.datasets import Dataset
from tasks.outage import outlasting
from tasks.registry import ModelRecord

pytestmark = pytest.mark.slow

N_ROWS, PART_ROWS = 48, 4
N_PARTS = N_ROWS // PART_ROWS
OTHER_TASKS = ("ingest", "train", "evaluate", "seal", "audit", "promote", "publish")
WITHIN_S = 3 * HEARTBEAT_FREQUENCY_S
DEPLOYMENTS = ("cron", "killed", "doomed", "restart")
# Gradients an image, and so how long a night takes; a command that runs beside a deployment begins before it.
N_MAX = dict.fromkeys((*DEPLOYMENTS, "offline-command"), 512) | {"restart": 1024}
N_MAX |= dict.fromkeys(("restart-command", "gone-command"), 2048)


class Site:
    """The server, its record, the worker of the queue `default`, and the roots of the deployments."""

    def __init__(self, server: Server, record: Record, folder: Path, parameters: dict[str, dict[str, Any]]) -> None:
        self.server, self.record, self.folder, self.parameters = server, record, folder, parameters
        self.worker = Worker(server, "default")

    def root(self, name: str) -> Path:
        return self.folder / name

    def parts(self, name: str) -> dict[str, int]:
        """The finished parts of a deployment's root and when they were written."""
        return {part.name: part.stat().st_mtime_ns for part in (self.root(name) / "parts").rglob("rows-*.h5")}

    def start(self, name: str, n_parts: int = 1) -> FlowRun:
        """A run of a deployment, once it has so many parts."""
        run = self.record.start_run(f"nightly/{name}")
        self.wait_for_parts(name, n_parts)
        return run

    def wait_for_parts(self, name: str, n_parts: int = 1) -> None:
        wait_until(lambda: len(self.parts(name)) >= n_parts, 120, f"{name} has {n_parts} parts")
        assert len(self.parts(name)) < N_PARTS, f"{name}: too late to break anything"

    def command(self, name: str, *options: str, api: str | None) -> subprocess.Popen[str]:
        """`nightlens run` with the parameters of a deployment."""
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(self.parameters[name]))
        command = [sys.executable, "-m", "flows.cli", "run", "--config", str(config), *options]
        environment = {**self.server.environment, "PREFECT_API_URL": api}
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={key: value for key, value in environment.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def site(digits: Dataset, small_model: ModelRecord, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    server = Server(folder)
    parameters = {name: night(folder / name, digits, small_model, n_max) for name, n_max in N_MAX.items()}
    try:
        server.start()
        with recorded(server) as record:
            record.client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
            ensure_heartbeat_automation(record.client, within_s=WITHIN_S)
            server.deploy([deployment(name, parameters[name]) for name in DEPLOYMENTS], folder)
            site = Site(server, record, folder, parameters)
            try:
                yield site
            finally:
                site.worker.kill()
    finally:
        server.kill()


def deployment(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The repository's own deployment, by another name and with the parameters of a small and slow night."""
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    ours = next(each for each in deployments if each["name"] == "digits")
    pool = ours["work_pool"] | {"work_queue_name": "doomed" if name == "doomed" else "default"}
    schedule = {"cron": "* * * * *", "timezone": "UTC", "active": True}
    changed = {"schedules": [schedule] if name == "cron" else [], "paused": name == "cron", "work_pool": pool}
    return ours | changed | {"name": name, "parameters": parameters}


def night(root: Path, digits: Dataset, model: ModelRecord, n_max: int) -> dict[str, Any]:
    return {
        "dataset": {"source": str(digits.directory)},
        "model": {"source": str(model.path)},
        "audit": {"n_rows": 0},
        "gallery": {"spotlight": [1], "per_class": 0},
        "explanation": {"part_rows": PART_ROWS, "batch_size": 64},
        "integrated_gradients": {"n_max": n_max, "gap_tolerance": 1e-12, "error_tolerance": 1e-12},
        "run": {"root": str(root), "rows": f"0:{N_ROWS}"},
    }


def assert_sealed(root: Path, run: FlowRun | UUID | None = None) -> None:
    """`latest` is a whole store, of the given run."""
    with open_store(root / "latest") as store:
        assert len(store) == N_ROWS
        if run is not None:
            assert store.attributes["flow_run_id"] == str(run.id if isinstance(run, FlowRun) else run)
    assert (root / "latest" / "night.json").is_file()


@pytest.fixture(scope="module")
def doomed(site: Site) -> FlowRun:
    """A run whose process was killed together with its worker."""
    worker = Worker(site.server, "doomed")
    try:
        run = site.start("doomed")
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
    wait_until(lambda: f"sealed {N_ROWS} rows" in "".join(site.record.logs(run)), 10, "its logs are recorded")
    assert "".join(site.record.logs(run)).count("images/s") == N_PARTS
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
    assert 3 <= len(killed.parts) < N_PARTS
    after = site.parts("killed")
    assert len(after) == N_PARTS
    assert {name: after[name] for name in killed.parts} == killed.parts
    found = "found whole, not computed again"
    wait_until(lambda: "".join(site.record.logs(killed.next)).count(found) == len(killed.parts), 10, "it is logged")


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
        wait_until(lambda told=told: told in "".join(site.record.logs(run)), 10, told)
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
    wait_until(lambda: lost in "".join(site.record.logs(run)), 10, "it is logged")


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
