"""A Prefect worker of our own: it takes the runs of the work pool and starts a process for each.

Runs find the Python and the packages that `nightlens up` itself has. Each runs in a session of its own, so that a worker
that is killed leaves them alive; they carry a mark in their environment by which they are found when all is to stop.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import WorkerStatus

from flows.service.heartbeat import HEARTBEAT_FREQUENCY_S, WORK_POOL

__all__ = ["Worker", "last_sign_of_worker", "online_workers", "worker_name"]

PROCESS = Path(__file__).with_name("worker_process.py")
REPOSITORY = Path(__file__).parents[2]
MARK = "NIGHTLENS_STARTED_BY"
# Two nights of different deployments side by side; more of them at once lock SQLite.
RUNS_AT_ONCE = 2
# A run that computes takes a while to notice. A worker that has had runs does not (Prefect 3.8.8), and by then has none.
RUN_TIMEOUT_S, WORKER_TIMEOUT_S = 30.0, 5.0


def worker_name() -> str:
    """What the worker of this machine is called in the UI."""
    return f"nightlens-{socket.gethostname()}"


def online_workers(client: SyncPrefectClient) -> list[str]:
    """The names of the workers that have lately said to the server that they take the pool's runs."""
    return [w.name for w in client.read_workers_for_work_pool(WORK_POOL) if w.status == WorkerStatus.ONLINE]


def last_sign_of_worker(client: SyncPrefectClient) -> datetime | None:
    """When the worker of this machine, or one before it, last said to the server that it is there."""
    known = client.read_workers_for_work_pool(WORK_POOL)
    return next((worker.last_heartbeat_time for worker in known if worker.name == worker_name()), None)


class Worker:
    """The worker's process, started again as often as it is told to; it talks to the API of this process's environment."""

    def __init__(self, home: Path) -> None:
        self.log = home / "worker.log"
        self._home = home
        self._mark = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Starts the process; the server lists it as online some seconds later."""
        limit, name = str(RUNS_AT_ONCE), worker_name()
        arguments = ["--pool", WORK_POOL, "--type", "process", "--name", name, "--limit", limit]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROCESS), *arguments],
                env=self._variables(),
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is for `up`, which stops it in order.
                start_new_session=True,
            )

    def restart(self) -> None:
        """Ends the process if it still lives and starts another; runs that go on are left alone."""
        self._end_worker()
        self.start()

    def stop(self) -> None:
        """Ends the runs, which say so to the server, and then the worker; what does not end in time is killed."""
        runs = self._runs()
        for run in runs:
            _send(run, signal.SIGTERM)
        psutil.wait_procs(runs, timeout=RUN_TIMEOUT_S)
        self._end_worker()
        left = self._runs()
        for run in left:
            _send(run, signal.SIGKILL)
        psutil.wait_procs(left, timeout=WORKER_TIMEOUT_S)

    def _end_worker(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(WORKER_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _runs(self) -> list[psutil.Process]:
        """The processes of runs that this worker, or one before it, started and that still live."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid not in (self.pid, os.getpid()) and process.environ().get(MARK) == self._mark:
                    found.append(process)
        return found

    def _variables(self) -> dict[str, str]:
        paths = [str(REPOSITORY), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        # The password of the server's database is none of the runs' business.
        inherited = {name: value for name, value in os.environ.items() if name != "PGPASSWORD"}
        return inherited | {
            MARK: self._mark,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_FREQUENCY_S),
            "PREFECT_WORKER_QUERY_SECONDS": "5",
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
            "MPLBACKEND": "Agg",
        }


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
