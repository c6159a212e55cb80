"""A real Prefect server and real process workers in processes of their own, to be killed and started again."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, TaskRun

from command import python
from environment import clean_environment
from flows.service.heartbeat import HEARTBEAT_FREQUENCY_S, WORK_POOL
from free_port import free_port
from places import REPOSITORY
from waiting import wait_until

DRAIN_TIMEOUT_S = 10.0


class Server:
    """A Prefect server with SQLite in a folder, on a port that it keeps, and its clients' environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = clean_environment() | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "results"),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_FREQUENCY_S),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": "127.0.0.1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["server", "start", "--host", "127.0.0.1", "--port", str(self.port), "--no-ui"]
        self._process = start_prefect(*command, environment=self.environment, log=self.home / "server.log")
        wait_until(self.answers, 90, f"the server of {self.home} answers")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        if self._process:
            kill_tree(self._process)

    def deploy(self, deployments: list[dict[str, Any]], folder: Path) -> None:
        """Deploys as `prefect deploy --all` does, from the repository."""
        file = folder / "prefect.yaml"
        file.write_text(yaml.safe_dump({"name": "nightlens", "deployments": deployments}))
        asked = ("--no-prompt", "deploy", "--all", "--prefect-file", file)
        done = python("-m", "prefect", *asked, cwd=REPOSITORY, environment=self.environment)
        assert done.returncode == 0, done.stderr


class Worker:
    """A process worker of our pool for one of its queues; the flow processes are its children."""

    def __init__(self, server: Server, queue: str) -> None:
        self.log = server.home / f"worker-{queue}.log"
        command = ["worker", "start", "--pool", WORK_POOL, "--work-queue", queue, "--type", "process"]
        self._process = start_prefect(*command, environment=server.environment, log=self.log)

    def kill_flow(self) -> None:
        flows = psutil.Process(self._process.pid).children(recursive=True)
        assert flows, "no flow process to kill"
        for process in flows:
            process.kill()

    def kill(self) -> None:
        """The worker and its flows, all at once."""
        kill_tree(self._process)


def start_prefect(*arguments: str, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments], env=environment, cwd=log.parent, stdout=file, stderr=file
        )


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, first for the process itself, so that it does not see its children die."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()
        for each in [parent, *parent.children(recursive=True)]:
            each.kill()
    process.wait(10)


class Record:
    """What a server knows of its flow runs."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client

    def start_run(self, deployment: str, **parameters: Any) -> FlowRun:
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters)

    def state(self, run: FlowRun | UUID) -> State:
        state = self.client.read_flow_run(run.id if isinstance(run, FlowRun) else run).state
        assert state is not None
        return state

    def wait_for_end(self, run: FlowRun, timeout_s: float = 90) -> State:
        def ended() -> State | None:
            state = self.state(run)
            return state if state.is_final() else None

        state: State = wait_until(ended, timeout_s, f"run {run.name} ends")
        return state

    def task_runs(self, run: FlowRun) -> list[TaskRun]:
        this = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        return self.client.read_task_runs(flow_run_filter=this, limit=200)

    def final_task_runs(self, run: FlowRun, n: int) -> list[TaskRun]:
        """All task runs, once there are so many and all have ended; until then none."""
        runs = self.task_runs(run)
        return runs if len(runs) >= n and all(each.state and each.state.is_final() for each in runs) else []

    def artifacts(self, run: FlowRun) -> set[str | None]:
        this = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        return {artifact.key for artifact in self.client.read_artifacts(artifact_filter=this, limit=100)}

    def pages_of_night(self, run: FlowRun | UUID) -> list[str]:
        """The texts of the pages `night` of a run."""
        its = ArtifactFilterFlowRunId(any_=[run.id if isinstance(run, FlowRun) else run])
        this = ArtifactFilter(flow_run_id=its, key=ArtifactFilterKey(any_=["night"]))
        return [str(artifact.data) for artifact in self.client.read_artifacts(artifact_filter=this, limit=100)]

    def logs(self, run: FlowRun) -> list[str]:
        this = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        return [log.message for log in self.client.read_logs(this, limit=200)]


@contextlib.contextmanager
def recorded(server: Server) -> Iterator[Record]:
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    # A process sends its events to the server that it met first, until it is told to let go of it.
    EventsWorker.drain_all(timeout=DRAIN_TIMEOUT_S)
    try:
        with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
            yield Record(client)
    finally:
        EventsWorker.drain_all(timeout=DRAIN_TIMEOUT_S)
