"""The parameters of a night: frozen, exact in their keys, and described wherever a person meets them."""

import inspect

import pytest
import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ValidationError

from flows.explain import explain
from flows.housekeeping import housekeeping
from flows.nightly import nightly
from places import REPOSITORY
from tasks import config
from tasks.config import ExistingModelConfig, GalleryConfig, IntegratedGradientsConfig, ModelConfig, RunConfig

MODELS: list[type[BaseModel]] = [getattr(config, name) for name in config.__all__]
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]
# What has no default has to be given.
NEEDED: dict[type[BaseModel], dict[str, str]] = {ExistingModelConfig: {"source": "model.keras"}}
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
each_field = pytest.mark.parametrize(
    ("model", "name"), FIELDS, ids=[f"{model.__name__}.{name}" for model, name in FIELDS]
)


@each_model
def test_all_settings_have_defaults(model: type[BaseModel]) -> None:
    made = model(**NEEDED.get(model, {}))
    assert made == model.model_validate(made.model_dump(mode="json"))


@each_field
def test_settings_are_frozen(model: type[BaseModel], name: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model(**NEEDED.get(model, {})), name, None)


@each_model
def test_a_misspelt_key_is_refused_by_its_name(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match=r"misspelt(?s:.)*Extra inputs are not permitted"):
        model.model_validate({"misspelt": 1} | NEEDED.get(model, {}))


@each_field
def test_every_setting_is_described(model: type[BaseModel], name: str) -> None:
    description = model.model_fields[name].description
    assert description
    assert description.endswith(".")


@each_model
def test_every_group_of_settings_has_a_docstring(model: type[BaseModel]) -> None:
    assert model.__doc__


@pytest.mark.parametrize("flow", [nightly, explain, housekeeping], ids=lambda flow: flow.name)
def test_the_form_of_the_prefect_ui_has_every_setting_with_its_description(flow: Flow) -> None:
    schema = parameter_schema(flow).model_dump()
    annotations = inspect.signature(flow.fn).parameters
    assert list(schema["properties"]) == list(annotations)
    for group, parameter in annotations.items():
        definition = schema["definitions"][parameter.annotation.__name__]
        described = {name: field.get("description") for name, field in definition["properties"].items()}
        assert described == {name: field.description for name, field in parameter.annotation.model_fields.items()}, (
            group
        )
        assert definition["additionalProperties"] is False


def test_every_model_of_settings_is_a_parameter_of_a_flow() -> None:
    signatures = [inspect.signature(flow.fn).parameters.values() for flow in (nightly, explain, housekeeping)]
    within_another = {config.FeedConfig}
    taken = {parameter.annotation for parameters in signatures for parameter in parameters}
    assert taken == set(MODELS) - within_another


@pytest.mark.parametrize("rows", ["0:64", "64:", ":64", ":", "007:8", None], ids=str)
def test_rows_are_a_range(rows: str | None) -> None:
    assert RunConfig(rows=rows).rows == rows


@pytest.mark.parametrize(
    "rows", ["64", "", "0-64", "0:64:2", "-5:", "a:b", "0: 64", "1.5:2"], ids=lambda rows: rows or "empty"
)
def test_rows_that_are_no_range_are_refused(rows: str) -> None:
    with pytest.raises(ValidationError, match="rows must be A:B with whole numbers from 0"):
        RunConfig(rows=rows)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (IntegratedGradientsConfig, {"engine": "alibi"}, "engine alibi has fixed rules only.*set rule to one of gauss"),
        (IntegratedGradientsConfig, {"n_start": 8, "n_max": 15}, r"at least twice n_start \(8\), .*got 15; try 512"),
        (IntegratedGradientsConfig, {"exponent": 1, "n_start": 8, "n_max": 16}, "one more for exponent 1, got 16"),
        (IntegratedGradientsConfig, {"gap_tolerance": 0}, "gap_tolerance(?s:.)*greater than 0"),
        (IntegratedGradientsConfig, {"rule": "simpson"}, "rule(?s:.)*'adaptive', 'gausslegendre'"),
        (ModelConfig, {"epochs": 0}, "epochs(?s:.)*greater than or equal to 1"),
        (ModelConfig, {"seed": -1}, "seed(?s:.)*greater than or equal to 0"),
        (GalleryConfig, {"spotlight": (1, -2)}, "spotlight(?s:.)*greater than or equal to 0"),
        (ExistingModelConfig, {"source": "train"}, "'train' may train a model.*run the flow `nightly`"),
        (ModelConfig, {"code": "layers.py"}, "code is given and source is 'auto'.*set source to the path of the model"),
        (RunConfig, {"n_workers": 0}, "n_workers(?s:.)*greater than or equal to 1"),
        (RunConfig, {"runner": "ray"}, "runner(?s:.)*'threads'"),
        (
            RunConfig,
            {"dask_address": "tcp://10.0.0.5:8786"},
            "dask_address is given and runner is 'threads'; set runner",
        ),
        (
            RunConfig,
            {"runner": "dask", "dask_address": "10.0.0.5"},
            "dask_address must be tcp://HOST:PORT, .*got '10.0",
        ),
        (RunConfig, {"runner": "dask", "dask_address": "tcp://me:secret@h:1"}, "dask_address must be tcp://HOST:PORT"),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_work_are_refused(model: type[BaseModel], settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model(**settings)


def test_alibi_with_a_fixed_rule_is_accepted() -> None:
    assert IntegratedGradientsConfig(engine="alibi", rule="riemann_left").engine == "alibi"


def test_the_deployment_file_holds_valid_parameters() -> None:
    path = REPOSITORY / "prefect.yaml"
    if not path.is_file():
        pytest.skip("prefect.yaml is not there")
    deployments = yaml.safe_load(path.read_text())["deployments"]
    for deployment in deployments:
        if deployment["entrypoint"].endswith(":nightly"):
            nightly.validate_parameters(deployment.get("parameters") or {})
