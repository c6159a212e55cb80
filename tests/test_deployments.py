"""prefect.yaml against the flow it deploys: entry points exist, parameters are the flow's, nothing is of one machine."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

REPOSITORY = Path(__file__).parents[1]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]


def check_parameters(deployment: dict[str, Any]) -> None:
    """Raises if the flow would refuse the deployment's parameters."""
    path, _, name = deployment["entrypoint"].partition(":")
    spec = importlib.util.spec_from_file_location("deployed", REPOSITORY / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    signature = inspect.signature(getattr(module, name).fn)
    for key, value in deployment.get("parameters", {}).items():
        if key not in signature.parameters:
            raise KeyError(f"{deployment['name']}: the flow has no parameter {key!r}")
        signature.parameters[key].annotation.model_validate(value)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_parameters_are_the_flows(deployment: dict[str, Any]) -> None:
    check_parameters(deployment)


def test_a_misspelt_parameter_is_refused() -> None:
    with pytest.raises(KeyError, match="datset"):
        check_parameters({**DEPLOYMENTS[0], "parameters": {"datset": {"source": "cifar10"}}})


def test_a_misspelt_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="sorce"):
        check_parameters({**DEPLOYMENTS[0], "parameters": {"dataset": {"sorce": "cifar10"}}})


def test_the_nightly_run_is_cifar10_at_two() -> None:
    nightly = next(deployment for deployment in DEPLOYMENTS if deployment["name"] == "cifar10")
    assert nightly["parameters"]["dataset"]["source"] == "cifar10"
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC"}]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_one_night_at_a_time(deployment: dict[str, Any]) -> None:
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert deployment["description"]


def test_no_absolute_path() -> None:
    text = (REPOSITORY / "prefect.yaml").read_text()
    assert "\n    pull" not in text
    assert not any(line.split(":", 1)[-1].strip().startswith(("/", "~")) for line in text.splitlines())
