"""The deployments of prefect.yaml, held to their flows before anything is sent, and put on the server for one root.

Prefect's own `deploy` ignores keys that it does not know and looks at no parameter. Here every key, cron, time zone and
parameter is refused by name if it is wrong. prefect.yaml names no folder; what the server gets has the root of
`nightlens up` in it. What a person paused or switched on in the UI stays so, everything else is as the file says.

Run as a program it deploys a file to the API that is configured: flows are imported for their parameters, and TensorFlow
with them, which need not stay in memory.
"""

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.parameters import BadParameters, read_yaml, refusal
from flows.service.heartbeat import WORK_POOL

__all__ = ["DEPLOYMENT_FILE", "Deployment", "check_parameters", "load_flow", "put_on_server", "read_deployments"]

REPOSITORY = Path(__file__).parents[2]
DEPLOYMENT_FILE = REPOSITORY / "prefect.yaml"


class _Exact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkPool(_Exact):
    name: str = Field(pattern=f"^{WORK_POOL}$")
    job_variables: dict[str, Any] = {}


class ConcurrencyLimit(_Exact):
    limit: int = Field(ge=1)
    collision_strategy: ConcurrencyLimitStrategy


class Schedule(CronSchedule):
    """Prefect's cron line, which is exact too, in a time zone that must be said; active: at first."""

    timezone: str = Field(min_length=1)
    active: bool = True

    def to_prefect(self) -> CronSchedule:
        return CronSchedule(**self.model_dump(exclude={"active"}))


class Deployment(_Exact):
    """One deployment as prefect.yaml has it."""

    name: str = Field(min_length=1)
    entrypoint: str = Field(pattern=r"^flows/\w+\.py:\w+$")
    description: str = Field(min_length=1)
    tags: list[str] = []
    work_pool: WorkPool
    concurrency_limit: ConcurrencyLimit
    paused: bool = False
    schedules: list[Schedule] = []
    parameters: dict[str, dict[str, Any]] = {}


class _File(_Exact):
    name: Literal["nightlens"]
    prefect_version: str = Field(alias="prefect-version")
    deployments: list[Deployment] = Field(min_length=1)


def read_deployments(path: Path) -> list[Deployment]:
    """The deployments of a file with the form of prefect.yaml.

    Raises BadParameters, a line for each key, cron or time zone that is wrong.
    """
    given = read_yaml(path, "expected deployments")
    try:
        return _File.model_validate(given).deployments
    except ValidationError as error:
        raise BadParameters([f"{path}: {_where(found, given)}: {_what(found)}" for found in error.errors()]) from None


def load_flow(deployment: Deployment) -> Flow[..., Any]:
    """The flow of an entry point such as flows/nightly.py:nightly, imported as a module of our package."""
    file, _, name = deployment.entrypoint.partition(":")
    try:
        found = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    except (ModuleNotFoundError, AttributeError):
        raise BadParameters([f"{deployment.name}: no flow {deployment.entrypoint} in {REPOSITORY}"]) from None
    return found


def check_parameters(deployment: Deployment, flow: Flow[..., Any], root: Path) -> dict[str, dict[str, Any]]:
    """The deployment's parameters with the root in the group that has one.

    Raises BadParameters, a line for each parameter that the flow would refuse; those that it asks for may be missing.
    """
    name, expected = f"{flow.name}/{deployment.name}", inspect.signature(flow.fn).parameters
    bad = [
        f"{name}: {key}: no such parameter; expected {', '.join(expected)}"
        for key in deployment.parameters
        if key not in expected
    ]
    parameters = {}
    for key, parameter in expected.items():
        values = deployment.parameters.get(key, {})
        if "root" in parameter.annotation.model_fields:
            if "root" in values:
                bad.append(f"{name}: {key}.root: leave it out, it is the --root of `nightlens up`")
            values = values | {"root": str(root)}
        if values:
            parameters[key] = values
            try:
                parameter.annotation.model_validate(values)
            except ValidationError as error:
                bad += [f"{name}: {'.'.join(map(str, (key, *e['loc'])))}: {_what(e)}" for e in error.errors()]
    if bad:
        raise BadParameters(bad)
    return parameters


def put_on_server(client: SyncPrefectClient, deployment: Deployment, flow: Flow[..., Any], root: Path) -> str:
    """Makes the deployment on the server, or brings it up to date, and returns its full name."""
    parameters = check_parameters(deployment, flow, root)
    full_name = f"{flow.name}/{deployment.name}"
    try:
        before = client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        before = None
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=deployment.name,
        description=deployment.description,
        tags=deployment.tags,
        entrypoint=deployment.entrypoint,
        parameters=parameters,
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        work_pool_name=deployment.work_pool.name,
        job_variables=deployment.work_pool.job_variables,
        schedules=[
            DeploymentScheduleCreate(schedule=schedule.to_prefect(), active=_is_active(schedule, before))
            for schedule in deployment.schedules
        ],
        paused=before.paused if before else deployment.paused,
        concurrency_limit=deployment.concurrency_limit.limit,
        concurrency_options=ConcurrencyOptions(collision_strategy=deployment.concurrency_limit.collision_strategy),
        # As Prefect's own `deploy` does: entry points are found from here.
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}],
    )
    return full_name


def _is_active(schedule: Schedule, before: DeploymentResponse | None) -> bool:
    """As somebody left the same schedule on the server, else as the file says."""
    known = [found.active for found in (before.schedules if before else []) if found.schedule == schedule.to_prefect()]
    return known[0] if known else schedule.active


def _where(found: Any, given: Any) -> str:
    """The place of an error, deployments by their name rather than their number."""
    place = [str(part) for part in found["loc"]]
    if len(place) > 1 and place[0] == "deployments":
        named = given["deployments"][int(place[1])]
        place[:2] = [str(named.get("name", f"deployment {place[1]}")) if isinstance(named, dict) else place[1]]
    return ".".join(place) or "the file"


def _what(found: Any) -> str:
    return "no such key" if found["type"] == "extra_forbidden" else refusal(found)


def main(path: Path, root: Path) -> int:
    """Deploys a file and prints, as JSON, the names of its deployments or what is wrong with it."""
    from flows.terminal.progress_bars import quiet_tensorflow

    try:
        deployments = read_deployments(path)
        with quiet_tensorflow():
            flows = [load_flow(deployment) for deployment in deployments]
        for deployment, flow in zip(deployments, flows, strict=True):
            check_parameters(deployment, flow, root)
    except BadParameters as error:
        print(json.dumps({"wrong": error.lines}))
        return 2
    with get_client(sync_client=True) as client:
        names = [put_on_server(client, *pair, root) for pair in zip(deployments, flows, strict=True)]
    print(json.dumps({"deployed": names}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
