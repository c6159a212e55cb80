"""Nights on Dask: real schedulers and workers, one killed in the middle, and clusters that must be refused.

The reference is the same night in threads. A worker of another version is one that finds another keras's metadata first on
its path, a worker that does not share the root is one that has an empty file system mounted there.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import UUID

import cloudpickle
import h5py
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    LogFilter,
    LogFilterFlowRunId,
)

from command import nightlens, python
from environment import clean_environment, talkative_environment
from places import REPOSITORY
from small_night import NO_GALLERY, small_night
from waiting import wait_until

pytest.importorskip("prefect_dask", reason="needs the extra 'dask'")

from dask.system import cpu_count
from distributed import Client

from flows.nightly import nightly
from storage import check_part, verify_store
from storage.file.added_tables import PARTS
from tasks import explain as explaining
from tasks.config import RunConfig
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord
from tasks.night.progress import Progress, listening
from tasks.parts.runners import check_runner
from tasks.process.quiet import noise_patterns
from tasks.running_night import NightResult

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]

# Workers do not have this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
N_ROWS, PART_ROWS = 40, 8
MakeNight = Callable[..., dict[str, Any]]


class Cluster:
    """A Dask scheduler and its workers as processes of their own, stopped at the end."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, list[subprocess.Popen[bytes]]()
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", folder / "scheduler.json")
        written = folder / "scheduler.json"
        wait_until(lambda: written.exists() and written.stat().st_size, 60, "the scheduler has an address")
        self.address: str = json.loads(written.read_text())["address"]

    def start(
        self, *arguments: object, first: tuple[str, ...] = (), path: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """`dask ...`, after a command that it is given to, and with a folder before all others on its path."""
        command = [*first, sys.executable, "-P", "-m", "dask", *map(str, arguments), "--no-dashboard"]
        places = [*([str(path)] if path else []), str(REPOSITORY)]
        talkative = talkative_environment(PYTHONPATH=os.pathsep.join(places))
        with (self.folder / f"{arguments[0]}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=talkative,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def add_worker(self, **how: Any) -> subprocess.Popen[bytes]:
        return self.start(
            "worker", self.address, "--nthreads", "1", "--host", "127.0.0.1", "--local-directory", self.folder, **how
        )

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a process with its children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        process.wait(30)

    def close(self) -> None:
        for process in reversed(self.processes):
            self.stop(process)


def n_workers(address: str) -> int:
    with Client(address, timeout=20) as client:
        return len(client.scheduler_info()["workers"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for _ in range(2):
            running.add_worker()
        wait_until(lambda: n_workers(running.address) == 2, 60, "both workers are there")
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler without workers, for those that must be refused."""
    running = Cluster(tmp_path_factory.mktemp("odd"))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def night(few_digits: Dataset, small_model: ModelRecord) -> MakeNight:
    """The flow's parameters for a night of 40 rows in five parts."""

    def make(root: Path, *, batch_size: int = 64, part_rows: int = PART_ROWS, **run: Any) -> dict[str, Any]:
        return small_night(
            root,
            small_model.path,
            few_digits.directory,
            gallery=NO_GALLERY,
            explanation={"part_rows": part_rows, "batch_size": batch_size},
            integrated_gradients={"rule": "riemann_middle", "n_steps": 64},
            run={"rows": f"0:{N_ROWS}"} | run,
        )

    return make


@pytest.fixture(scope="module")
def in_threads(night: MakeNight, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray]:
    return arrays_of(nightly(**night(tmp_path_factory.mktemp("threads"))))


def arrays_of(result: NightResult) -> dict[str, NDArray]:
    """Every dataset of a night's store, by path, read with h5py alone."""
    arrays = {}

    def take(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[name] = node[...]

    with h5py.File(result.store) as file:
        assert file.attrs["complete"] == 1
        file.visititems(take)
    return arrays


def assert_same(arrays: dict[str, NDArray], expected: dict[str, NDArray]) -> None:
    """Every row once, in order, and every number within 1e-6."""
    np.testing.assert_array_equal(arrays["row"], np.arange(N_ROWS))
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(arrays[name], array, rtol=0, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def logged(result: NightResult) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(result.flow_run_id)])), limit=200)


def test_two_processes_of_a_local_cluster_give_what_threads_give_also_in_linked_parts(
    night: MakeNight, in_threads: dict[str, NDArray], tmp_path: Path
) -> None:
    reports: list[Progress] = []
    with listening(reports.append):
        result = nightly(**night(tmp_path / "data", runner="dask", n_workers=2, layout="virtual"))
    arrays = arrays_of(result)
    assert [arrays.pop(name).shape for name in list(arrays) if name.startswith(f"{PARTS.group}/")] == [(5,)] * 6
    assert_same(arrays, in_threads)
    assert verify_store(result.store) == ()
    parts = [step for step in reports if step.unit == "parts"]
    assert (parts[-1].done, parts[-1].images) == (5, N_ROWS)
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "spawn_main" in " ".join(child.cmdline())], "workers are left behind"


def test_a_cluster_survives_a_killed_worker_and_writes_every_row_once(
    night: MakeNight, in_threads: dict[str, NDArray], cluster: Cluster, tmp_path: Path
) -> None:
    """The worker is killed once the first part is done; its nanny starts another, which TensorFlow must suit as well."""
    root, killed = tmp_path / "data", []

    def kill(progress: Progress) -> None:
        if progress.unit == "parts" and progress.done >= 1 and not killed:
            victim = worker_processes(cluster)[0]
            killed.append(victim.pid)
            victim.send_signal(signal.SIGKILL)

    with listening(kill):
        result = nightly(**night(root, runner="dask", dask_address=cluster.address))
    assert killed
    assert_same(arrays_of(result), in_threads)
    parts = sorted(root.glob("parts/*/rows-*.h5"))
    assert [path.stem for path in parts] == [f"rows-{a:06d}-{a + PART_ROWS:06d}" for a in range(0, N_ROWS, PART_ROWS)]
    for number, path in enumerate(parts):
        start = number * PART_ROWS
        assert check_part(path, digest=path.parent.name, start=start, stop=start + PART_ROWS) is None

    wait_until(
        lambda: len({log.task_run_id for log in logged(result) if "Finished" in log.message}) >= 5,
        60,
        "each part has logged that it finished",
    )
    wait_until(lambda: n_workers(cluster.address) == 2, 60, "both workers are there")
    with Client(cluster.address) as client:
        assert set(client.run(threads_of_tensorflow).values()) == {max(1, cpu_count() // 2)}
        assert set(client.run(may_use_tf32).values()) == {False}
        loaded = client.run(models_loaded)
    assert max(loaded.values()) == 1, f"a model is loaded once a process, not once a part: {loaded}"
    for process in cluster.processes[1:]:
        noise = [
            line
            for line in log_of(cluster, process).splitlines()
            for known in noise_patterns()
            if re.fullmatch(known, line)
        ]
        assert noise == []


def worker_processes(cluster: Cluster) -> list[psutil.Process]:
    """The processes that compute: children of the nannies."""
    found = []
    for nanny in cluster.processes[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [p for p in psutil.Process(nanny.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    return found


def threads_of_tensorflow() -> int:
    import tensorflow as tf

    return tf.config.threading.get_intra_op_parallelism_threads()


def may_use_tf32() -> bool:
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


def models_loaded() -> int:
    from tasks.parts.explained_rows import _explainers

    return _explainers.cache_info().misses


def test_a_failing_part_is_retried_by_its_worker_and_fails_the_night_with_its_rows(
    night: MakeNight, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands where the part of rows 8 to 15 belongs, so it cannot be renamed into its place."""
    monkeypatch.setattr(explaining.explain_part, "retry_delay_seconds", [0.0] * explaining.RETRIES)
    opened = explaining.open_runner

    def in_the_way(run: RunConfig, root: Path, needed: list[Path], *rest: Any) -> Any:
        (needed[0] / "rows-000008-000016.h5" / "in the way").mkdir(parents=True)
        return opened(run, root, needed, *rest)

    monkeypatch.setattr(explaining, "open_runner", in_the_way)
    parameters = night(tmp_path / "data", runner="dask", dask_address=cluster.address)
    state = nightly(**parameters, return_state=True)
    assert state.is_failed()
    assert "ExplanationError: 1 of 5 parts failed, rows 8 to 15; first cause (rows 8 to 15): " in str(state.message)
    assert "The others are kept" in str(state.message)
    assert len([path for path in tmp_path.glob("data/parts/*/rows-*.h5") if path.is_file()]) == 4
    with get_client(sync_client=True) as client:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        this_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))

        def counts() -> dict[str, int]:
            runs = client.read_task_runs(flow_run_filter=this_run)
            return {run.name: run.run_count for run in runs if run.state and run.state.is_final()}

        wait_until(lambda: counts().get("rows-8-to-16") == 1 + explaining.RETRIES, 30, "the part was retried")


def test_a_lost_scheduler_fails_the_night_with_its_rows_and_keeps_what_is_done(
    night: MakeNight, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lost = Cluster(tmp_path_factory.mktemp("lost"))
    try:
        lost.add_worker()
        wait_until(lambda: n_workers(lost.address) == 1, 60, "the worker is there")

        def lose(progress: Progress) -> None:
            if progress.unit == "parts" and progress.done == 1:
                lost.processes[0].send_signal(signal.SIGKILL)

        parameters = night(tmp_path / "data", runner="dask", dask_address=lost.address)
        parameters["integrated_gradients"] |= {"n_steps": 1024}
        with listening(lose):
            state = nightly(**parameters, return_state=True)
    finally:
        lost.close()
    assert state.is_failed()
    assert re.search(
        r"ExplanationError: [34] of 5 parts failed, rows .*32 to 39; first cause .*Cancelled", str(state.message)
    )
    assert list(tmp_path.glob("data/parts/*/rows-000000-000008.h5"))


# How far it is.


@pytest.mark.parametrize("runner", ["threads", "dask"])
def test_the_bar_moves_within_a_part_that_takes_long(
    night: MakeNight, cluster: Cluster, tmp_path: Path, runner: str
) -> None:
    """One part of all rows for many seconds: the artifact is read again and again, as the UI does."""
    where = {"runner": "dask", "dask_address": cluster.address} if runner == "dask" else {}
    parameters = night(tmp_path / "data", part_rows=N_ROWS, **where)
    parameters["integrated_gradients"] |= {"n_steps": 1024}
    seen: list[tuple[float, float, str]] = []
    over = threading.Event()

    def look() -> None:
        with get_client(sync_client=True) as client:
            known = {artifact.id for artifact in explanations(client)}
            while not over.wait(0.3):
                for artifact in explanations(client):
                    value = float(str(artifact.data))
                    if artifact.id not in known and (not seen or value != seen[-1][1]):
                        seen.append((time.monotonic(), value, str(artifact.description)))

    looking = threading.Thread(target=contextvars_copy(look))
    looking.start()
    try:
        result = nightly(**parameters)
    finally:
        over.set()
        looking.join()
    values = [value for _, value, _ in seen]
    assert values == sorted(values), values
    moves = [at for at, value, _ in seen if 0 < value < 100]
    assert len(moves) >= 2, values
    assert np.median(np.diff(moves)) < 5, seen
    assert "more explained in 1 parts that are in work" in seen[len(seen) // 2][2]
    with get_client(sync_client=True) as client:
        (last,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(result.flow_run_id)]),
                key=ArtifactFilterKey(any_=["explanations"]),
            )
        )
    assert last.data == 100
    assert "40 of 40 rows written in 1 of 1 parts" in str(last.description)


def contextvars_copy(function: Callable[[], None]) -> Callable[[], None]:
    """Prefect's settings of this test for another thread."""
    from contextvars import copy_context

    context = copy_context()
    return lambda: context.run(function)


def explanations(client: Any) -> list[Any]:
    return client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["explanations"])))


# Clusters that cannot be used.


def refused(address: str, message: str, root: Path | None = None) -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match=message) as caught:
        check_runner(RunConfig(runner="dask", dask_address=address), root)
    assert time.monotonic() - began < 60
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_is_not_there_is_refused_before_anything_else(tmp_path: Path) -> None:
    asked = ("run", "--runner", "dask", "--dask-address", "tcp://127.0.0.1:9")
    done = nightlens(*asked, cwd=tmp_path, environment=clean_environment(PREFECT_HOME=str(tmp_path / "home")))
    (line,) = done.stderr.splitlines()
    assert line.startswith("nightlens: expected a Dask scheduler at tcp://127.0.0.1:9, got ConnectionRefusedError")
    assert "start it with `dask scheduler`" in line
    assert done.returncode == 2
    assert not (tmp_path / "nightlens-data").exists()


@pytest.mark.parametrize("serves", ["nothing", "http"])
def test_something_else_at_the_address_is_refused(serves: str) -> None:
    with contextlib.ExitStack() as stack:
        if serves == "http":
            other: Any = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
            stack.callback(other.server_close)
            stack.callback(other.shutdown)
            threading.Thread(target=other.serve_forever, daemon=True).start()
            port = other.server_port
        else:
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        refused(
            f"tcp://127.0.0.1:{port}",
            r"expected a Dask scheduler at tcp://127.0.0.1:\d+, got (Timeout|CommClosed)Error \(",
        )


def test_a_scheduler_without_workers_is_refused(odd: Cluster) -> None:
    refused(odd.address, "expected workers at the Dask scheduler .*start them with `dask worker tcp://")


def test_a_worker_with_another_version_is_named_with_it(odd: Cluster, tmp_path: Path) -> None:
    metadata = tmp_path / "other" / "keras-3.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: keras\nVersion: 3.0.1\n")
    worker = odd.add_worker(path=tmp_path / "other")
    try:
        wait_until(lambda: n_workers(odd.address) == 1, 60, "the worker is there")
        refused(odd.address, r"^Dask worker tcp://127.0.0.1:\d+ has keras 3.0.1, expected 3\.\d+\.\d+ as here; install")
    finally:
        odd.stop(worker)
        wait_until(lambda: n_workers(odd.address) == 0, 60, "the worker is gone")


@pytest.fixture
def blind(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A root, and the command that starts another with an empty file system in the root's place."""
    root = tmp_path / "data"
    root.mkdir()
    unshare = shutil.which("unshare")
    inside = ("sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(root))
    start = (str(unshare), "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), *inside)
    if unshare is None or subprocess.run([*start, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare(1) and the right to mount")
    return root, start


def test_a_worker_that_does_not_see_the_root_says_which(odd: Cluster, blind: tuple[Path, tuple[str, ...]]) -> None:
    root, start = blind
    worker = odd.add_worker(first=start)
    try:
        wait_until(lambda: n_workers(odd.address) == 1, 60, "the worker is there")
        refused(odd.address, rf"Dask worker tcp://\S+ cannot use the root {root} \(No such file", root)
        assert list(root.iterdir()) == []
    finally:
        odd.stop(worker)


def test_a_blind_worker_that_comes_later_gets_no_part(
    night: MakeNight, cluster: Cluster, blind: tuple[Path, tuple[str, ...]], in_threads: dict[str, NDArray]
) -> None:
    """It comes when the first part is done; it must close itself rather than write where nobody finds it."""
    root, start = blind
    late: list[subprocess.Popen[bytes]] = []

    def join(progress: Progress) -> None:
        if progress.unit == "parts" and progress.done == 1 and not late:
            late.append(cluster.add_worker(first=start))
            wait_until(
                lambda: late[0].poll() is not None or "nightlens" in log_of(cluster, late[0]), 40, "the worker looked"
            )

    with listening(join):
        result = nightly(**night(root, runner="dask", dask_address=cluster.address))
    assert_same(arrays_of(result), in_threads)
    late[0].wait(60)
    assert "cannot see" in log_of(cluster, late[0])


def log_of(cluster: Cluster, process: subprocess.Popen[bytes]) -> str:
    return (cluster.folder / f"worker-{cluster.processes.index(process)}.log").read_text()


def test_dask_that_is_not_installed_is_told() -> None:
    program = (
        "import sys; sys.modules['prefect_dask'] = None\n"
        "from tasks.config import RunConfig\nfrom tasks.parts.runners import check_runner\n"
        "check_runner(RunConfig(runner='dask'))"
    )
    done = python("-c", program)
    assert "needs prefect_dask, which is not installed; pip install 'nightlens[dask]', or use" in done.stderr
