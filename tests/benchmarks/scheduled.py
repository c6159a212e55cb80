"""Nights that `nightlens up` runs by the cron of a deployment, and what they took, from the root that they leave.

As somebody would who has images of their own: prefect.yaml is copied, `nightly/cifar10` is given the images, other settings and
another cron, and `up` gets that file. Nothing here imports TensorFlow.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from nights import REPOSITORY
from storage import Catalog
from storage.nights.night_records import read_result

__all__ = ["EVERY_DAY", "EVERY_MINUTE", "ScheduledNight", "Service", "read_nights", "service", "write_deployments"]

EVERY_DAY, EVERY_MINUTE = "0 2 * * *", "* * * * *"
LOOK_S = 1.0
# A second `up` reads and deploys a file before the server plans its runs, which takes that some seconds.
AHEAD, PLANNING = timedelta(seconds=40), timedelta(seconds=12)
STOP_TIMEOUT_S = 120.0

Parameters = Mapping[str, Mapping[str, Any]]


def write_deployments(path: Path, parameters: Parameters, cron: str) -> Path:
    """prefect.yaml with these parameters of `nightly/cifar10`, the images among them, and this cron line."""
    given = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    (ours,) = (deployment for deployment in given["deployments"] if deployment["name"] == "cifar10")
    ours |= {"parameters": dict(parameters), "schedules": [{"cron": cron, "timezone": "UTC"}]}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


@dataclass(frozen=True)
class ScheduledNight:
    """result: of the flow, as its night.json has it. stages: seconds by stage, publish among them.

    model: what the log says of it, such as "reused". n_computed: rows that were explained now; the others were there.
    """

    result: dict[str, Any]
    stages: dict[str, float]
    model: str
    n_computed: int

    @classmethod
    def read(cls, folder: Path, worker_log: str) -> "ScheduledNight":
        """A sealed night from its folder and the log of the worker that ran it.

        Raises ValueError if the log does not know it: another `up` ran it, and its log is gone.
        """
        result = read_result(folder)
        run = re.search(rf"Flow run '(.+)' - View at \S+/{result['flow_run_id']}\n", worker_log)
        log = worker_log[run.end() :].partition(f"Flow run '{run[1]}' - Finished")[0] if run else ""
        found = re.search(r"model \S+: (.+)\n(?s:.*)are explained, (\d+) of them now", log)
        if found is None:
            raise ValueError(f"{folder}: expected a night that the root's worker explained, its log does not say so")
        stages = {name: float(seconds) for name, seconds in re.findall(r"stage (\S+) ends after ([\d.]+) s", log)}
        return cls(result=result, stages=stages, model=found[1], n_computed=int(found[2]))


class Service:
    """A running `nightlens up`, its log, and the file of its deployments."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes], deployments: Path) -> None:
        self.root, self.log, self._process, self._deployments = root, root / "up.log", process, deployments

    def plan_night(self, parameters: Parameters) -> datetime:
        """Gives the deployment these parameters and the cron line of a minute to come, by a second `up`; which minute.

        Raises RuntimeError with what that says if it fails.
        """
        while True:
            at = (datetime.now(UTC) + AHEAD + timedelta(minutes=1)).replace(second=0, microsecond=0)
            write_deployments(self._deployments, parameters, f"{at.minute} {at.hour} {at.day} {at.month} *")
            command = _up(self.root, self._deployments)
            done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"a second `up` failed with exit code {done.returncode}: {done.stderr}")
            if datetime.now(UTC) + PLANNING < at:
                return at

    def wait_until_ready(self) -> None:
        """Raises RuntimeError as wait_for_nights does."""
        self._wait_for(r"^ready ", 1)

    def wait_for_nights(self, n: int) -> None:
        """Until `up` said of so many runs of the deployment that they completed.

        Raises RuntimeError with what it says if one fails, or if `up` ends.
        """
        self._wait_for(r"^run +nightly '.*' Completed", n)

    def _wait_for(self, line: str, n: int) -> None:
        while len(re.findall(line, said := self.log.read_text(), re.MULTILINE)) < n:
            if failed := re.search(r"^run +nightly '.*' (Failed|Crashed).*", said, re.MULTILINE):
                raise RuntimeError(failed[0])
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"`up` ended with exit code {self._process.returncode}; its log ends with\n{said[-2000:]}"
                )
            time.sleep(LOOK_S)


def read_nights(root: Path) -> list[ScheduledNight]:
    """The sealed nights of a root that its `up` ran, oldest first."""
    log = root / "prefect" / "worker.log"
    folders = [folder for folder in Catalog(root).list_nights() if (folder / "night.json").is_file()]
    return [ScheduledNight.read(folder, log.read_text(errors="replace")) for folder in folders]


@contextmanager
def service(root: Path, deployments: Path) -> Iterator[Service]:
    """`nightlens up` on a root with these deployments, ready, until this is left; then it stops all that it started."""
    root.mkdir(parents=True, exist_ok=True)
    with (
        (root / "up.log").open("wb") as log,
        subprocess.Popen(_up(root, deployments), env=_environment(), stdout=log, stderr=log) as process,
    ):
        try:
            running = Service(root, process, deployments)
            running.wait_until_ready()
            yield running
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _up(root: Path, deployments: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "flows.cli", "up", "--root", str(root), "--deployments", str(deployments)]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}
