"""Nights as a user runs them, in a process of their own, and what they took: seconds by stage, memory, size.

Nothing here imports TensorFlow: a child that starts out of a large process would count that one's memory as its own.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

__all__ = ["NightFigures", "run_night"]

LOOK_S = 0.2
ENDED = re.compile(r"stage (\S+) ends after [\d.]+ s")
PART = re.compile(r"rows (\d+) to (\d+): [\d.]+ images/s")
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class NightFigures:
    """result: of the flow, as `nightlens run --json-logs` prints it. stages: seconds by stage, publish among them.

    wall: seconds of the whole command; start: those before and after the stages (Python, Prefect's server, TensorFlow).
    part_seconds: of all parts together. peak_flow: most bytes that the flow's process had resident at any time, by the kernel's
    own account; peak_all: of it and all its descendants together, as seen every LOOK_S.
    """

    result: dict[str, Any]
    stages: dict[str, float]
    wall: float
    part_seconds: float
    peak_flow: int
    peak_all: int

    @property
    def n_rows(self) -> int:
        return int(self.result["n_rows"])

    @property
    def start(self) -> float:
        return self.wall - sum(self.stages.values())


class _Watch(threading.Thread):
    """Looks at a process and its descendants until it ends."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._process, self.peak_flow, self.peak_all = psutil.Process(pid), 0, 0
        self.start()

    def run(self) -> None:
        while self._look():
            time.sleep(LOOK_S)

    def _look(self) -> bool:
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            if found is None:  # it has ended and is not waited for yet
                return False
            self.peak_flow = int(found[1]) * 1024
            processes = [self._process, *self._process.children(recursive=True)]
        except (psutil.NoSuchProcess, OSError):
            return False
        self.peak_all = max(self.peak_all, sum(map(_resident, processes)))
        return True


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def run_night(parameters: dict[str, dict[str, Any]]) -> NightFigures:
    """Runs the night with these parameters of the flow, by `nightlens run --config`, and waits for it.

    Raises RuntimeError with the end of its log if it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        config, out, log = (Path(name) / file for file in ("night.yaml", "out", "log"))
        config.write_text(yaml.safe_dump(parameters))
        command = [sys.executable, "-m", "flows.cli", "run", "--config", str(config), "--json-logs"]
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        began = time.monotonic()
        with out.open("w") as stdout, log.open("w") as stderr:
            child = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=os.environ | {"PYTHONPATH": path})
            watch = _Watch(child.pid)
            code = child.wait()
        wall = time.monotonic() - began
        watch.join()
        lines = log.read_text().splitlines()
        if code:
            raise RuntimeError(f"the night failed with exit code {code}; its log ends with\n" + "\n".join(lines[-5:]))
        result = json.loads(out.read_text().splitlines()[-1])
    records = [json.loads(line) for line in lines if line.startswith("{")]
    return NightFigures(
        result=result,
        stages=_stages(records),
        wall=wall,
        part_seconds=_part_seconds(records),
        peak_flow=watch.peak_flow,
        peak_all=watch.peak_all,
    )


def _stages(records: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each stage, from the log: the record of a night is written before it publishes."""
    found = ((ENDED.match(str(record.get("message"))), record) for record in records)
    return {match[1]: float(record["seconds"]) for match, record in found if match}


def _part_seconds(records: list[dict[str, Any]]) -> float:
    found = ((PART.match(str(record.get("message"))), record) for record in records)
    return sum((int(match[2]) - int(match[1]) + 1) / record["images_per_s"] for match, record in found if match)
