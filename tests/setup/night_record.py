"""What the Prefect server of the tests knows of a night."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import Artifact, State, TaskRun

from waiting import wait_until


def recorded(flow_run_id: str, *, n_tasks: int) -> tuple[State, list[TaskRun], list[Artifact]]:
    """The state of a flow run, its task runs, of which so many have ended, and its artifacts.

    Task runs are recorded a little later than they end.
    """
    run = UUID(flow_run_id)
    with get_client(sync_client=True) as client:

        def tasks() -> list[TaskRun]:
            return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))

        def ended() -> bool:
            return sum(bool(task.state and task.state.is_final()) for task in tasks()) >= n_tasks

        wait_until(ended, 30, f"{n_tasks} task runs of {flow_run_id} have ended")
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])), limit=100
        )
        return client.read_flow_run(run).state, tasks(), artifacts
