"""What the server has recorded of a run. It takes task runs as events, after the fact; a run is over before its record is."""

import time
from typing import Any

from flows.server.api import ServerError

__all__ = ["flush", "wait_until_recorded"]

RECORD_TIMEOUT_S = 30.0
FLUSH_TIMEOUT_S = 30.0


def wait_until_recorded(flow_run_id: Any) -> None:
    """Returns when our own server has recorded every task run of a flow run in its final state.

    Task runs reach the server as events, about 70 a second, after the fact. Their log lines come by another way and
    at once, so they say which task runs to wait for.
    Raises ServerError if the record stops growing before it is whole.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    flush()
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    recorded: set[Any] = set()
    changed = time.monotonic()
    with get_client(sync_client=True) as client:
        expected = _logged_task_runs(client, flow_run_id)
        while True:
            runs = _pages(lambda **page: client.read_task_runs(flow_run_filter=this_run, **page))
            final = {run.id for run in runs if run.state is not None and run.state.is_final()}
            if len(final) == len(runs) and expected <= final and final == recorded:
                return
            if final != recorded:
                recorded, changed = final, time.monotonic()
            elif time.monotonic() - changed > RECORD_TIMEOUT_S:
                n_expected = len(expected | {run.id for run in runs})
                raise ServerError(
                    f"the Prefect server recorded the end of {len(final)} of {n_expected} task runs and no more within "
                    f"{RECORD_TIMEOUT_S:g} s; the night's files are whole; see prefect/server.log under the root"
                )
            time.sleep(0.5)


def flush() -> None:
    """Hands this process's pending events and logs to the server, while it is there."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=FLUSH_TIMEOUT_S)
    APILogWorker.drain_all(timeout=FLUSH_TIMEOUT_S)


def _logged_task_runs(client: Any, flow_run_id: Any) -> set[Any]:
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    this_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    logs = _pages(lambda **page: client.read_logs(log_filter=this_run, **page))
    return {log.task_run_id for log in logs if log.task_run_id}


def _pages(read: Any) -> list[Any]:
    found: list[Any] = []
    while page := read(limit=200, offset=len(found)):
        found += page
    return found
