"""A real server with a real worker and deployments of real nights, to be broken by the tests of recovery.

The nights are of a small network. One that is to be broken in its middle is held there: a test takes the locks of some
parts, as another night on the root would, and the night waits for them until it lets go. Every deployment has a root of
its own.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, TaskRun

from command import nightlens_arguments, running
from contracts import unit_contract
from empty_record import EmptyRecord
from flows.service.heartbeat import HEARTBEAT_FREQUENCY_S, WORK_POOL, ensure_heartbeat_automation
from places import REPOSITORY
from real_prefect import Record, Server, Worker, kill_tree, recorded
from small_night import small_night, write_settings
from storage import open_store
from storage.file.disk.lock import locked
from tasks.config import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord
from tasks.parts.plan import make_plan
from waiting import wait_until

N_ROWS, PART_ROWS = 48, 4
N_PARTS = N_ROWS // PART_ROWS
TASKS_BEFORE_PARTS = 4
OTHER_TASKS = ("ingest", "train", "contract", "evaluate", "assess", "seal", "audit", "promote", "publish")
WITHIN_S = 3 * HEARTBEAT_FREQUENCY_S
DEPLOYMENTS = ("cron", "killed", "doomed", "restart")
COMMANDS = ("restart-command", "offline-command", "gone-command")


class Site:
    """The server, its record, the worker of the queue `default`, and the roots of the deployments."""

    def __init__(self, server: Server, record: Record, folder: Path, digits: Dataset, model: ModelRecord) -> None:
        self.server, self.record, self.folder, self.digits, self.model = server, record, folder, digits, model
        self.parameters = {name: night(folder / name, digits, model) for name in (*DEPLOYMENTS, *COMMANDS)}
        self.worker = Worker(server, "default")

    def root(self, name: str) -> Path:
        return self.folder / name

    def parts(self, name: str) -> dict[str, int]:
        """The finished parts of a deployment's root and when they were written."""
        return {part.name: part.stat().st_mtime_ns for part in (self.root(name) / "parts").rglob("rows-*.h5")}

    def start(self, name: str, n_parts: int) -> FlowRun:
        """A run of a deployment that is held after so many parts, once it is there."""
        run = self.record.start_run(f"nightly/{name}")
        self.wait_for_parts(name, n_parts)
        return run

    def wait_for_parts(self, name: str, n_parts: int) -> None:
        wait_until(lambda: len(self.parts(name)) >= n_parts, 120, f"{name} has {n_parts} parts")
        assert len(self.parts(name)) == n_parts, f"{name} is not held"

    def wait_for_record(self, name: str, n_ended: int) -> None:
        """Until the server has recorded that so many task runs of the night on this root have ended."""

        def ended() -> list[TaskRun]:
            runs = [run for run in self.record.client.read_flow_runs() if self.is_of(run, name)]
            tasks = [task for run in runs for task in self.record.task_runs(run)]
            return [task for task in tasks if task.state and task.state.is_final()]

        wait_until(lambda: len(ended()) >= n_ended, 60, f"{n_ended} task runs of {name} are recorded")

    def is_of(self, run: FlowRun, name: str) -> bool:
        return str(run.parameters["run"]["root"]) == str(self.root(name))

    @contextmanager
    def held(self, name: str, first: int, stop: int = N_PARTS) -> Iterator[None]:
        """While this lasts, a night on this root computes no part from number `first` up to `stop`."""
        folder = self.parts_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            for start in range(first * PART_ROWS, stop * PART_ROWS, PART_ROWS):
                locks.enter_context(locked(folder / f"rows-{start:06d}-{start + PART_ROWS:06d}.lock", "a test"))
            yield

    def parts_folder(self, name: str) -> Path:
        """Where a night on this root will put its parts."""
        settings = self.parameters[name]
        return make_plan(
            self.root(name),
            self.digits,
            self.model,
            unit_contract(self.model, self.digits),
            ExplanationConfig(**settings["explanation"]),
            IntegratedGradientsConfig(**settings["integrated_gradients"]),
            GradCamConfig(),
            settings["run"]["rows"],
        ).parts_folder

    @contextmanager
    def command(self, name: str, *options: str, api: str | None) -> Iterator[subprocess.Popen[str]]:
        """`nightlens run` with the parameters of this name, killed at the latest when this is left."""
        config = write_settings(self.folder / f"{name}.yaml", self.parameters[name])
        given = {key: value for key, value in self.server.environment.items() if key != "PREFECT_API_URL"}
        environment = given if api is None else given | {"PREFECT_API_URL": api}
        asked = nightlens_arguments("run", "--config", config, *options)
        with running(*asked, environment=environment) as process:
            try:
                yield process
            finally:
                kill_tree(process)


@contextmanager
def a_site(folder: Path, digits: Dataset, small_model: ModelRecord, empty_record: EmptyRecord) -> Iterator[Site]:
    """The server with its deployments, and the worker once it is started."""
    for home in (folder, folder / "offline-command" / "prefect"):
        empty_record.put(home)
    server = Server(folder)
    try:
        server.start()
        with recorded(server) as record:
            record.client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
            ensure_heartbeat_automation(record.client, within_s=WITHIN_S)
            site = Site(server, record, folder, digits, small_model)
            try:
                server.deploy([deployment(name, site.parameters[name]) for name in DEPLOYMENTS], folder)
                yield site
            finally:
                site.worker.kill()
    finally:
        server.kill()


def deployment(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The repository's own deployment, by another name and with the parameters of a small night."""
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    ours = next(each for each in deployments if each["name"] == "digits")
    pool = ours["work_pool"] | {"work_queue_name": "doomed" if name == "doomed" else "default"}
    schedule = {"cron": "* * * * *", "timezone": "UTC", "active": True}
    changed = {"schedules": [schedule] if name == "cron" else [], "paused": name == "cron", "work_pool": pool}
    return ours | changed | {"name": name, "parameters": parameters}


def night(root: Path, digits: Dataset, model: ModelRecord) -> dict[str, Any]:
    return small_night(
        root,
        model.path,
        digits.directory,
        explanation={"part_rows": PART_ROWS},
        integrated_gradients={"rule": "riemann_middle", "n_steps": 8},
        run={"rows": f"0:{N_ROWS}"},
    )


def assert_sealed(root: Path, run: FlowRun | UUID | None = None) -> None:
    """`latest` is a whole store, of the given run."""
    with open_store(root / "latest") as store:
        assert len(store) == N_ROWS
        if run is not None:
            assert store.attributes["flow_run_id"] == str(run.id if isinstance(run, FlowRun) else run)
    assert (root / "latest" / "night.json").is_file()
