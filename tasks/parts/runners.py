"""Runners: where parts are computed. Threads of this process (the default), processes of a local Dask cluster, or the workers
of a Dask scheduler that is there already.

A runner is Prefect's, chosen by `run.runner` and entered for as long as parts run. With Dask a part may be computed twice, when
a worker is lost that had it: a part is one file that is renamed into its place, so that changes nothing.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect.futures import PrefectWrappedFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.config import RunConfig

__all__ = ["check_runner", "open_runner", "outcome_of", "report_rows"]

Hear = Callable[[int, int], None]

_hearing: ContextVar[Hear | None] = ContextVar("hearing", default=None)


def check_runner(run: RunConfig, root: Path | None = None) -> None:
    """Raises before any work if the parts could not be computed: ValueError if Dask is not installed; OSError within 15 s if the
    scheduler is not there, has no workers, or has workers of other versions or, given a root, that do not see it.
    """
    if run.runner == "dask":
        cluster = _dask()
        if run.dask_address:
            with cluster.connected(run.dask_address) as client:
                cluster.check_versions(client)
                if root:
                    cluster.check_shared(client, root)


@contextmanager
def open_runner(run: RunConfig, root: Path, needed: list[Path], topic: str, hear: Hear) -> Iterator[TaskRunner]:
    """The runner, ready for parts. needed: what every worker must see besides the root.

    hear: called with the first row of a part in work and how many of its rows are explained, whenever `report_rows(topic, ...)`
    is where the part is computed.
    Raises as `check_runner` does.
    """
    if run.runner == "threads":
        from tasks.numerics.network.device import places  # TensorFlow, which who checks a runner alone does not need

        token = _hearing.set(hear)
        try:
            with ThreadPoolTaskRunner[Any](max_workers=max(run.n_workers, len(places()))) as threads:
                yield threads
        finally:
            _hearing.reset(token)
    else:
        check_runner(run)
        cluster = _dask()
        with cluster.runner(run.dask_address, run.n_workers) as dask:
            dask.client.subscribe_topic(topic, lambda event: hear(*event[1]))
            with cluster.set_up(dask.client, root, needed):
                yield dask


def report_rows(topic: str, start: int, done: int) -> None:
    """Reports to whoever opened the runner, from wherever this is, that `done` rows of the part from `start` are explained."""
    if hear := _hearing.get():
        hear(start, done)
    elif "distributed" in sys.modules:
        _dask().send(topic, [start, done])


def outcome_of(future: PrefectWrappedFuture) -> object:
    """What a part that is done gave: its report, or the exception that ended it, also where the worker itself was lost."""
    try:
        return future.wrapped_future.exception() or future.result(raise_on_failure=False)
    except CancelledError as error:
        return error  # the scheduler is gone


def _dask() -> Any:
    try:
        return importlib.import_module("tasks.parts.cluster")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("dask", "distributed", "prefect_dask"):
            raise
        raise ValueError(
            f"runner dask needs {error.name}, which is not installed; pip install 'nightlens[dask]', or use runner threads"
        ) from error
