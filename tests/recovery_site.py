"""A real server with a real worker and deployments of real, slow nights, to be broken by the tests of recovery.

The nights are of a small network with tolerances that nothing meets, so that every part takes all the gradients it may.
Every deployment has a root of its own.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from real_prefect import REPOSITORY, Record, Server, Worker, recorded, wait_until

from flows.service.heartbeat import HEARTBEAT_FREQUENCY_S, WORK_POOL, ensure_heartbeat_automation
from storage import open_store
from tasks.datasets import Dataset
from tasks.registry import ModelRecord

N_ROWS, PART_ROWS = 48, 4
N_PARTS = N_ROWS // PART_ROWS
OTHER_TASKS = ("ingest", "train", "evaluate", "seal", "audit", "promote", "publish")
WITHIN_S = 3 * HEARTBEAT_FREQUENCY_S
DEPLOYMENTS = ("cron", "killed", "doomed", "restart")
# Gradients an image, and so how long a night takes; a command that runs beside a deployment begins before it.
N_MAX = dict.fromkeys((*DEPLOYMENTS, "offline-command"), 512) | {"doomed": 1024, "restart": 2048}
N_MAX |= dict.fromkeys(("restart-command", "gone-command"), 3072)


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


@contextmanager
def a_site(folder: Path, digits: Dataset, small_model: ModelRecord) -> Iterator[Site]:
    """The server with its deployments, and the worker once it is started."""
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
