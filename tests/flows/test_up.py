"""`nightlens up`, `down` and `status` for real: processes, a server, a worker; killed, started twice, and refused."""

import contextlib
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled

import command
from environment import PROXY_OF_NOBODY, clean_environment
from flows.server.api import api_environment
from flows.server.server import running_server
from flows.service.deployments import DEPLOYMENT_FILE
from flows.service.heartbeat import AUTOMATION, HEARTBEAT_FREQUENCY_S
from flows.service.outfit import address_warning, ensure_work_pool
from flows.service.runs.schedule import planned_runs
from flows.service.up import READ_RUNS_EVERY_S, UpOptions, holder
from places import REPOSITORY
from real_prefect import Record
from waiting import wait_until

PROCESS = str(REPOSITORY / "flows" / "service" / "worker_process.py")
START_TIMEOUT_S = 300.0
NAMES = ["explain/on-demand", "housekeeping/weekly", "nightly/cifar10", "nightly/digits"]


def environment(**more: str) -> dict[str, str]:
    """With a proxy that would swallow what is not meant for it."""
    return clean_environment(**({"HTTP_PROXY": PROXY_OF_NOBODY, "PREFECT_HOME": "/nowhere"} | more))


def nightlens(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return command.nightlens(*arguments, environment=environment(**more))


@dataclass
class Service:
    """A running `nightlens up` and what it said. taken: the port that it was asked to use, and that is in use."""

    root: Path
    process: subprocess.Popen[str]
    taken: int

    @property
    def home(self) -> Path:
        return self.root / "prefect"

    def said(self, stream: str = "out") -> str:
        return (self.root.parent / stream).read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, script: str) -> psutil.Process:
        (found,) = (process for process in self.children() if any(arg.endswith(script) for arg in process.cmdline()))
        return found

    @contextlib.contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        server = running_server(self.home)
        assert server is not None
        with api_environment(self.home, server["url"]), get_client(sync_client=True) as client:
            yield client


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`nightlens up`, ready, and asked for a port that somebody else has."""
    folder = tmp_path_factory.mktemp("up")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        (folder / "out").open("wb") as out,
        (folder / "err").open("wb") as err,
        command.running(
            *command.nightlens_arguments("up", "--root", folder / "root", "--port", taken.getsockname()[1]),
            environment=environment(),
            stdout=out,
            stderr=err,
            start_new_session=True,
        ) as process,
    ):
        started = Service(folder / "root", process, taken.getsockname()[1])
        try:
            wait_until(
                lambda: "ready " in started.said() or process.poll() is not None, START_TIMEOUT_S, "up is ready or ends"
            )
            assert process.poll() is None, started.said("err")
            yield started
        finally:
            children = started.children() if process.poll() is None else []
            for left in [process, *children]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()


@pytest.mark.slow
def test_the_server_is_for_this_machine_only(service: Service) -> None:
    listening = service.child("server_process.py").net_connections("tcp")
    (address,) = {found.laddr for found in listening if found.status == psutil.CONN_LISTEN}
    assert address.ip == "127.0.0.1"
    assert f"http://127.0.0.1:{address.port}" in service.said()


@pytest.mark.slow
def test_a_port_that_is_taken_gives_another_and_says_so(service: Service) -> None:
    assert re.search(rf"warning +port {service.taken} .* is taken; .* listens on \d+ instead", service.said("err"))


@pytest.mark.slow
def test_pool_deployments_and_automation_are_there(service: Service) -> None:
    with service.client() as client:
        assert client.read_work_pool("nightlens").type == "process"
        assert len(client.read_automations_by_name(AUTOMATION)) == 1
        deployments = client.read_deployments()
        assert [planned.name for planned in planned_runs(client)] == NAMES
    for deployment in deployments:
        (root,) = (group["root"] for group in deployment.parameters.values() if "root" in group)
        assert root == str(service.root)
        limit = deployment.global_concurrency_limit
        assert limit is not None and limit.limit == 1
        assert deployment.concurrency_options is not None
        assert deployment.concurrency_options.collision_strategy.value == "CANCEL_NEW"
        assert deployment.description and deployment.tags
        schema: Any = deployment.parameter_openapi_schema
        fields = [field for group in schema["definitions"].values() for field in group["properties"].values()]
        assert all(field.get("description") for field in fields)


@pytest.mark.slow
def test_the_server_plans_what_is_not_paused(service: Service) -> None:
    """With SQLAlchemy 2.1 it would plan nothing, and say nothing."""
    with service.client() as client:
        planned = {found.name: found for found in planned_runs(client)}
        n_scheduled = {
            f"{deployment.name}": len(
                client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])))
            )
            for deployment in client.read_deployments()
        }
    assert n_scheduled["cifar10"] > 0 and n_scheduled["weekly"] > 0
    assert n_scheduled["digits"] == 0 and planned["nightly/digits"].is_paused
    assert planned["nightly/cifar10"].next is not None and f"{planned['nightly/cifar10'].next:%H:%M}" == "02:00"
    assert "nightly/digits  paused" in service.said()


@pytest.mark.slow
def test_status_is_well_while_all_runs(service: Service) -> None:
    done = nightlens("status", "--root", service.root)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {re.split(r"  +", line[3:], maxsplit=1)[0]: line for line in done.stdout.splitlines()}
    assert {"up", "server", "worker", *NAMES, "last night", "disk"} <= lines.keys()
    assert all(lines[name].startswith("✓") for name in ("up", "server", "worker", "nightly/cifar10", "disk"))
    assert f"nightlens-{socket.gethostname()} online" in lines["worker"]


@pytest.mark.slow
def test_a_wrong_parameter_is_refused_by_the_server_and_a_right_one_runs(service: Service) -> None:
    with service.client() as client:
        weekly = client.read_deployment_by_name("housekeeping/weekly").id
        with pytest.raises(PrefectHTTPStatusError, match=r"prune\.keep(?s:.)*'many' is not of type 'integer'"):
            client.create_flow_run_from_deployment(weekly, parameters={"prune": {"keep": "many"}})
        wanted = {"prune": {"keep": 3, "dry_run": True, "root": str(service.root)}}
        run = client.create_flow_run_from_deployment(weekly, parameters=wanted).id
        wait_until(lambda: (found := client.read_flow_run(run).state) and found.is_final(), 120, "the run ends")
        state = client.read_flow_run(run).state
        assert state and state.is_completed(), state
    # `up` asks every READ_RUNS_EVERY_S; of a server that is busy Prefect's client asks again for about a minute.
    told = r"run +housekeeping 'housekeeping 20.*' Completed"
    wait_until(lambda: re.search(told, service.said()), READ_RUNS_EVERY_S + 120, "`up` says that the run ended")
    # The worker passes on what its runs write, a moment after the server knows that they ended.
    worker_log = service.home / "worker.log"
    wait_until(
        lambda: "Flow run 'housekeeping 20" in worker_log.read_text(), 60, "the worker's log has the run's lines"
    )


@pytest.mark.slow
def test_a_night_that_fails_before_it_begins_has_a_page_and_up_says_so(service: Service) -> None:
    """Its cluster is not there, which is found out before the first stage."""
    with service.client() as client:
        digits = client.read_deployment_by_name("nightly/digits").id
        nobody = {"root": str(service.root), "runner": "dask", "dask_address": "tcp://127.0.0.1:9"}
        run = client.create_flow_run_from_deployment(digits, parameters={"run": nobody})
        told = r"page +digits 20.* failed in begin: "
        wait_until(lambda: re.search(told, service.said()), START_TIMEOUT_S, "`up` says that there is a page")
        (page,) = Record(client).pages_of_night(run)
        assert page.startswith("# Failed in begin: ")
    assert list((service.root / ".running").glob("*.json")) == []


@pytest.mark.slow
def test_a_second_up_updates_the_deployments_and_leaves_what_people_switched(service: Service) -> None:
    with service.client() as client:
        client.resume_deployment(client.read_deployment_by_name("nightly/digits").id)
        client.pause_deployment(client.read_deployment_by_name("housekeeping/weekly").id)
        changed = service.root.parent / "changed.yaml"
        changed.write_text(DEPLOYMENT_FILE.read_text().replace("0 12 * * 0", "0 13 * * 0"))
        done = nightlens("up", "--root", service.root, "--deployments", changed)
        assert done.returncode == 0, done.stderr
        assert f"already: http://127.0.0.1:{running_server(service.home)['url'][17:].split('/')[0]} " in done.stdout
        planned = {found.name: found for found in planned_runs(client)}
        # A night of its own schedule would run beside what follows.
        client.pause_deployment(client.read_deployment_by_name("nightly/digits").id)
    assert not planned["nightly/digits"].is_paused
    assert planned["housekeeping/weekly"].is_paused
    assert planned["housekeeping/weekly"].schedules == ("0 13 * * 0 UTC",)
    assert len([found for found in service.children() if "server_process.py" in " ".join(found.cmdline())]) == 1


@pytest.mark.slow
def test_a_server_that_starts_forgets_old_runs_with_their_logs(service: Service) -> None:
    def records(query: str) -> int:
        with contextlib.closing(sqlite3.connect(service.home / "prefect.db", timeout=30)) as database, database:
            cursor = database.execute(query)
            return int(cursor.fetchone()[0]) if query.startswith("SELECT") else cursor.rowcount

    logs = "SELECT count(*) FROM log WHERE flow_run_id NOT IN (SELECT id FROM flow_run)"
    with service.client() as client:
        weekly = client.read_deployment_by_name("housekeeping/weekly").id
        run = client.create_flow_run_from_deployment(weekly, state=Cancelled()).id
    long_ago = (
        "UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000' WHERE state_type IN ('CANCELLED', 'COMPLETED')"
    )
    wait_until(lambda: records(long_ago) >= 1, 60, "an ended run is made older")
    n_planned = records("SELECT count(*) FROM flow_run WHERE state_type = 'SCHEDULED'")
    service.child("server_process.py").kill()
    ended = "SELECT count(*) FROM flow_run WHERE state_type IN ('CANCELLED', 'COMPLETED')"
    # `up` may be asking just then, and Prefect's client asks again for about a minute.
    seen_within_s = READ_RUNS_EVERY_S + 120
    wait_until(lambda: "the server died and is started again" in service.said("err"), seen_within_s, "`up` says so")
    wait_until(lambda: records(ended) == 0, 90, f"run {run} is forgotten")
    wait_until(lambda: records(logs) == 0, 60, "logs of no run are forgotten")
    assert records("SELECT count(*) FROM flow_run WHERE state_type = 'SCHEDULED'") >= n_planned


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again_with_a_line(service: Service) -> None:
    dead = service.child("worker_process.py")
    dead.kill()
    seen_within_s = READ_RUNS_EVERY_S + 120
    wait_until(lambda: "the worker died and is started again" in service.said("err"), seen_within_s, "`up` says so")
    wait_until(
        lambda: any(PROCESS in found.cmdline() for found in service.children() if found != dead),
        60,
        "another worker is there",
    )


@pytest.mark.slow
def test_down_stops_every_process(service: Service) -> None:
    processes = [psutil.Process(service.process.pid), *service.children()]
    assert len(processes) >= 3
    # A worker that does not react has `up` stop for some seconds, long enough to be suspended in the middle of it.
    service.child("worker_process.py").suspend()
    up = psutil.Process(service.process.pid)
    with ThreadPoolExecutor(1) as executor:
        stopping = executor.submit(nightlens, "down", "--root", service.root)
        try:
            wait_until(lambda: (holder(service.home) or {}).get("stopping"), 60, "`up` is stopping")
            up.suspend()
            assert "is stopping" in nightlens("status", "--root", service.root).stdout
        finally:
            up.resume()
        done = stopping.result()
    assert (done.returncode, done.stdout) == (0, f"stopped process {service.process.pid}\n"), done.stderr
    assert service.process.wait(30) == 0
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    assert holder(service.home) is None and running_server(service.home) is None
    assert nightlens("down", "--root", service.root).stdout.startswith("nothing is up in")


def test_status_where_nothing_runs(tmp_path: Path) -> None:
    done = nightlens("status", "--root", tmp_path / "root")
    assert done.returncode == 1 and not done.stderr
    assert re.search(r"✗ +up +not running; `nightlens up --root .*` starts it", done.stdout)
    assert re.search(r"✗ +server +not running", done.stdout)
    assert re.search(r"- +last night +no night in .* yet", done.stdout)
    assert not (tmp_path / "root").exists()


@pytest.mark.slow
def test_a_work_pool_of_another_type_is_refused(prefect_server: str, tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="nightlens", type="docker"))
        try:
            done = nightlens("up", "--root", tmp_path, PREFECT_API_URL=prefect_server, HTTP_PROXY="")
            assert client.read_work_pool("nightlens").type == "docker" and client.read_deployments() == []
        finally:
            client.delete_work_pool("nightlens")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "expected the work pool 'nightlens' to be of type 'process', got 'docker'; delete it" in line


def test_a_work_pool_that_another_up_makes_meanwhile_is_taken(prefect_server: str) -> None:
    def make_first(response: httpx.Response) -> None:
        if response.status_code == httpx.codes.NOT_FOUND:
            with get_client(sync_client=True) as other:
                other.create_work_pool(WorkPoolCreate(name="nightlens", type="process"))

    with get_client(sync_client=True, httpx_settings={"event_hooks": {"response": [make_first]}}) as client:
        try:
            assert ensure_work_pool(client) == "nightlens (process) was there"
        finally:
            client.delete_work_pool("nightlens")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "no.such.address.invalid"], r"--host no\.such\.address\.invalid: no address"),
        (
            ["--database", "postgres://me:secret@127.0.0.1/x"],
            r"--database postgres://me:\*\*\*@.*expected postgresql\+asyncpg",
        ),
        (["--database", "postgresql+asyncpg://me:secret@127.0.0.1:9/x"], r"--database .*me:\*\*\*@127.*cannot be used"),
        (["--database", "not a url"], "--database: expected a URL such as"),
    ],
    ids=["host", "database's scheme", "database that is not there", "no URL"],
)
def test_bad_options_are_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    done = nightlens("up", "--root", tmp_path, *options, PREFECT_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(said, line) and "secret" not in line


def test_nonsense_in_the_deployments_is_refused_before_anything_starts(tmp_path: Path) -> None:
    given = yaml.safe_load(DEPLOYMENT_FILE.read_text())
    given["deployments"][0]["schedules"][0]["timezone"] = "Mars/Base"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given))
    done = nightlens("up", "--root", tmp_path / "root", "--deployments", tmp_path / "mine.yaml")
    assert done.returncode == 2 and not (tmp_path / "root").exists()
    assert re.search(r"nightlens: .*mine\.yaml: cifar10\..*Mars/Base", done.stderr)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_alone_needs_no_warning(host: str) -> None:
    assert address_warning(host) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7"])
def test_an_open_address_is_warned_of(host: str) -> None:
    assert f"listens on {host} and asks nobody for a password" in str(address_warning(host))


def test_the_systemd_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    done = nightlens("up", "--root", tmp_path / "the root", "--port", 4321, "--systemd-unit")
    assert done.returncode == 0, done.stderr
    assert f'up --root "{tmp_path}/the root" --port 4321\n' in done.stdout
    # In a fresh clone the command may lie elsewhere; systemd checks that it is there.
    executable = re.search(r"ExecStart=(\S+)", done.stdout)
    assert executable
    unit = tmp_path / "nightlens.service"
    unit.write_text(done.stdout if Path(executable[1]).exists() else done.stdout.replace(executable[1], sys.executable))
    verified = command.program(analyze, "verify", unit)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_a_unit_never_has_a_password_in_it(tmp_path: Path) -> None:
    database = "postgresql+asyncpg://me:secret@db/nights"
    done = nightlens("up", "--root", tmp_path, "--database", database, "--systemd-unit")
    assert done.returncode == 2 and "secret" not in done.stdout + done.stderr
    assert "leave the password to ~/.pgpass" in done.stderr


def test_the_heartbeat_frequency_reaches_the_runs() -> None:
    from flows.service.worker import Worker

    assert Worker(Path("/nowhere"))._variables()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_FREQUENCY_S)


def test_only_options_of_a_server_count_as_such(tmp_path: Path) -> None:
    assert UpOptions(root=tmp_path).of_a_server() == []
    assert UpOptions(root=tmp_path, port=4200, database="x").of_a_server() == ["--port", "--database"]
