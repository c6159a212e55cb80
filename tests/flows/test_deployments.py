"""prefect.yaml against the flows it deploys, and what is refused in it: keys, parameters, crons, time zones."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.callables import parameter_schema

from documents import text_of
from flows.parameters import BadParameters
from flows.service.deployments import DEPLOYMENT_FILE, Deployment, check_parameters, load_flow, read_deployments

ROOT = Path("/srv/nights")
GIVEN: dict[str, Any] = yaml.safe_load(DEPLOYMENT_FILE.read_text())
DEPLOYMENTS = read_deployments(DEPLOYMENT_FILE)
each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment.name)


def named(name: str) -> Deployment:
    return next(deployment for deployment in DEPLOYMENTS if deployment.name == name)


def refusals(path: Path, **changed: Any) -> list[str]:
    """What is said of prefect.yaml if its first deployment, nightly/cifar10, is changed so."""
    first, *others = GIVEN["deployments"]
    path.write_text(yaml.safe_dump(GIVEN | {"deployments": [first | changed, *others]}))
    with pytest.raises(BadParameters) as refused:
        for deployment in read_deployments(path):
            check_parameters(deployment, load_flow(deployment), ROOT)
    return refused.value.lines


@each_deployment
def test_parameters_are_the_flows(deployment: Deployment) -> None:
    flow = load_flow(deployment)
    parameters = check_parameters(deployment, flow, ROOT)
    if deployment.schedules:  # nobody is there to give what is missing
        flow.validate_parameters(parameters)


@each_deployment
def test_every_run_writes_under_the_root_it_is_deployed_for(deployment: Deployment) -> None:
    parameters = check_parameters(deployment, load_flow(deployment), ROOT)
    assert [group["root"] for group in parameters.values() if "root" in group] == [str(ROOT)]


@each_deployment
def test_the_form_of_the_prefect_ui_describes_every_field(deployment: Deployment) -> None:
    schema = parameter_schema(load_flow(deployment)).model_dump_for_openapi()
    fields = [(name, field) for group in schema["definitions"].values() for name, field in group["properties"].items()]
    assert len(fields) >= 3
    assert [name for name, field in fields if not field.get("description")] == []
    assert all(group["additionalProperties"] is False for group in schema["definitions"].values())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"parameters": {"datset": {"source": "cifar10"}}},
            "nightly/cifar10: datset: no such parameter; expected dataset",
        ),
        ({"parameters": {"dataset": {"sorce": "cifar10"}}}, "nightly/cifar10: dataset.sorce: no such key"),
        ({"parameters": {"model": {"epochs": "many"}}}, "nightly/cifar10: model.epochs: input should be .*got 'many'"),
        ({"parameters": {"run": {"root": "/data"}}}, "nightly/cifar10: run.root: leave it out"),
        ({"paramters": {}}, r"cifar10\.paramters: no such key"),
        ({"schedules": [{"corn": "0 2 * * *", "timezone": "UTC"}]}, r"cifar10\.schedules\.0\.corn: no such key"),
        ({"schedules": [{"cron": "0 25 * * *", "timezone": "UTC"}]}, 'cifar10.*Invalid cron string: "0 25'),
        ({"schedules": [{"cron": "0 2 * * *", "timezone": "Mars/Base"}]}, 'cifar10.*Invalid timezone: "Mars/Base"'),
        ({"schedules": [{"cron": "0 2 * * *"}]}, r"cifar10\.schedules\.0\.timezone: field required"),
        ({"entrypoint": "flows/nightly.py:nihgtly"}, "cifar10: no flow flows/nightly.py:nihgtly"),
        ({"work_pool": {"name": "elsewhere"}}, r"cifar10\.work_pool\.name: .*got 'elsewhere'"),
        ({"concurrency_limit": {"limit": 0, "collision_strategy": "CANCEL_NEW"}}, r"concurrency_limit\.limit: .*got 0"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    lines = refusals(tmp_path / "prefect.yaml", **changed)
    assert any(re.search(said, line) for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_what_the_readme_changes_in_a_copy_is_taken(tmp_path: Path) -> None:
    (block,) = re.findall(r"^    schedules:\n(?:    .*\n)+", text_of("flows/README.md"), re.MULTILINE)
    first, *others = GIVEN["deployments"]
    path = tmp_path / "nights.yaml"
    path.write_text(yaml.safe_dump(GIVEN | {"deployments": [first | yaml.safe_load(block), *others]}))
    ours = read_deployments(path)[0]
    assert [(schedule.cron, schedule.timezone) for schedule in ours.schedules] == [("30 22 * * *", "Europe/Berlin")]
    parameters = check_parameters(ours, load_flow(ours), ROOT)
    assert parameters["dataset"]["source"] == "/data/cifar10" and parameters["model"] == {"epochs": 4, "seed": 0}


def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("deployments: [")
    with pytest.raises(BadParameters, match=r"broken\.yaml: expected YAML"):
        read_deployments(tmp_path / "broken.yaml")
    with pytest.raises(BadParameters, match=r"nowhere\.yaml: cannot be read"):
        read_deployments(tmp_path / "nowhere.yaml")


def test_what_is_deployed() -> None:
    assert [(load_flow(d).name, d.name, d.paused) for d in DEPLOYMENTS] == [
        ("nightly", "cifar10", False),
        ("nightly", "digits", True),
        ("explain", "on-demand", False),
        ("housekeeping", "weekly", False),
    ]
    (schedule,) = named("cifar10").schedules
    assert (schedule.cron, schedule.timezone) == ("0 2 * * *", "UTC")
    assert named("cifar10").parameters["dataset"]["source"] == "cifar10"
    assert [schedule.cron for schedule in named("digits").schedules] == ["30 * * * *"]
    assert named("on-demand").schedules == []


@each_deployment
def test_one_run_at_a_time(deployment: Deployment) -> None:
    limit = deployment.concurrency_limit
    assert (limit.limit, limit.collision_strategy.value) == (1, "CANCEL_NEW")
    assert deployment.tags


def test_no_absolute_path() -> None:
    text = DEPLOYMENT_FILE.read_text()
    assert "\n    pull" not in text
    assert not any(line.split(":", 1)[-1].strip().startswith(("/", "~")) for line in text.splitlines())
