"""`precision: auto`, and nights in tf32: what is chosen is exact enough and faster, and a night says and allows what it costs.

A night in tf32 is one on a stand-in for a GPU, see tests/setup/tensor_cores.py.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from command import nightlens
from flows.nightly import nightly
from small_night import small_night
from storage import open_store
from tasks import explain as explain_verb
from tasks.audit import compare
from tasks.config import AuditConfig, DatasetConfig, ExplanationConfig, IntegratedGradientsConfig
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord, read_record
from tasks.numerics.network.precision import Precision
from tasks.numerics.references import missing_references
from tasks.parts import plan as planning
from tasks.parts import precision_choice
from tasks.parts.compute import compute_part
from tasks.parts.methods import METHODS
from tasks.parts.plan import Plan
from tasks.parts.precision_choice import FILE, fastest_within
from tasks.recompute import other_device, recompute_rows
from tasks.seal import seal
from tensor_cores import H200, pretend_gpus, save_network

MakePlan = Callable[..., Plan]
needs_references = pytest.mark.skipif(bool(missing_references()), reason="needs the extra 'reference'")
pytestmark = pytest.mark.usefixtures("no_run_logger")
LOOSE = IntegratedGradientsConfig(error_tolerance=5.0)  # a tenth of which bfloat16 keeps on these networks


def explaining(precision: str) -> ExplanationConfig:
    return ExplanationConfig.model_validate({"part_rows": 8, "batch_size": 64, "precision": precision})


def sealed(plan: Plan) -> Path:
    for start, stop in plan.ranges():
        compute_part(plan, start, stop)
    configuration = {
        "dataset": DatasetConfig(),
        "explanation": plan.explanation,
        "integrated_gradients": plan.integrated_gradients,
        "grad_cam": plan.grad_cam,
    }
    return seal.fn(plan, "20261123T020000Z-ab12cd", "2026-11-23T02:00:00+00:00", "", configuration)


def never(_: Precision) -> float:
    raise AssertionError("time is asked for only where a precision is exact enough")


@pytest.mark.parametrize(
    ("errors", "seconds", "precision", "reason"),
    [
        ({}, {}, "float32", ""),
        ({"bfloat16": 0.07}, {}, "float32", "bfloat16 is off by 7.00%, allowed 2.00%"),
        ({"bfloat16": 0.02}, {}, "float32", "bfloat16 is off by 2.00%, allowed 2.00%"),
        ({"bfloat16": float("nan")}, {}, "float32", "bfloat16 is off by nan%, allowed 2.00%"),
        (
            {"bfloat16": 0.019},
            {"float32": 2.0, "bfloat16": 1.0},
            "bfloat16",
            "bfloat16 is off by 1.90%, allowed 2.00%, and takes 0.50 of the time",
        ),
        (
            {"bfloat16": 0.019},
            {"float32": 2.0, "bfloat16": 1.82},
            "float32",
            "bfloat16 is off by 1.90%, allowed 2.00%, and takes 0.91 of the time",
        ),
        (
            {"tf32": 0.001, "bfloat16": 0.01},
            {"float32": 4.0, "tf32": 2.0, "bfloat16": 1.0},
            "bfloat16",
            "tf32 is off by 0.10%, allowed 2.00%, and takes 0.50 of the time; "
            "bfloat16 is off by 1.00%, allowed 2.00%, and takes 0.25 of the time",
        ),
        (
            {"tf32": 0.001, "bfloat16": 0.3},
            {"float32": 4.0, "tf32": 2.0},
            "tf32",
            "bfloat16 is off by 30.00%, allowed 2.00%; tf32 is off by 0.10%, allowed 2.00%, and takes 0.50 of the time",
        ),
    ],
    ids=["none", "inexact", "at the bound", "no number", "fast", "hardly faster", "the fastest", "the exact one"],
)
def test_the_fastest_that_is_exact_enough(
    errors: dict[Precision, float], seconds: Mapping[Precision, float], precision: str, reason: str
) -> None:
    choice = fastest_within(errors, 0.02, seconds.__getitem__ if seconds else never)
    assert (choice.precision, choice.reason) == (precision, reason)


def test_auto_is_float32_where_the_others_are_too_inexact(make_small_plan: MakePlan, tmp_path: Path) -> None:
    """The small network's bfloat16 is off by more than 2 %, a tenth of the error tolerance."""
    plan = make_small_plan(tmp_path, explanation=explaining("auto"))
    assert plan.precision == "float32" == plan.settings().precision
    before, _, off = plan.precision_reason.partition("bfloat16 is off by ")
    assert before == "CPU has no tf32; " and off.endswith("%, allowed 2.00%")
    assert 2 < float(off.partition("%")[0]) < 50
    assert plan.digest == make_small_plan(tmp_path, explanation=explaining("float32")).digest


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[Precision, float]:
    """Seconds by precision, to be changed, in place of what this machine takes."""
    seconds: dict[Precision, float] = {"float32": 1.0, "tf32": 0.4, "bfloat16": 0.5}
    monkeypatch.setattr(precision_choice, "_stopwatch", lambda *_: seconds.__getitem__)
    return seconds


def test_what_auto_became_stays_whatever_time_says_later(
    make_small_plan: MakePlan, tmp_path: Path, timed: dict[Precision, float]
) -> None:
    settings = {"explanation": explaining("auto"), "integrated_gradients": LOOSE}
    plan = make_small_plan(tmp_path, **settings)
    assert plan.precision == "bfloat16" == plan.settings().precision
    assert plan.precision_reason.endswith(", allowed 50.00%, and takes 0.50 of the time")
    asked = make_small_plan(tmp_path, explanation=explaining("bfloat16"), integrated_gradients=LOOSE)
    assert (asked.digest, asked.precision_reason) == (plan.digest, "by configuration")
    timed["bfloat16"] = 0.95
    assert make_small_plan(tmp_path, **settings, rows="0:8") == plan.model_copy(update={"stop": 8})
    (plan.parts_folder / FILE).unlink()
    anew = make_small_plan(tmp_path, **settings)
    assert anew.precision == "float32" and anew.precision_reason.endswith("takes 0.95 of the time")


def test_what_was_chosen_before_is_not_measured_again(
    make_small_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_small_plan(tmp_path, explanation=explaining("auto"))

    def measured(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(planning, "choose_precision", measured)
    assert make_small_plan(tmp_path, explanation=explaining("auto")) == first


@pytest.mark.usefixtures("timed")
def test_auto_without_an_engine_of_ours_is_float32(make_small_plan: MakePlan, tmp_path: Path) -> None:
    rule = IntegratedGradientsConfig(engine="alibi", rule="gausslegendre")
    plan = make_small_plan(tmp_path, explanation=explaining("auto"), integrated_gradients=rule)
    assert (plan.precision, plan.precision_reason) == ("float32", "engine alibi computes in no other")


class Unnamed(keras.layers.Layer):
    """Does not say how it is built again."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.factor * inputs


def test_auto_says_which_layer_keeps_it_from_bfloat16(make_small_plan: MakePlan, tmp_path: Path) -> None:
    images = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(Unnamed(2.0)(images))
    network = keras.Model(images, keras.layers.Dense(10, activation="softmax")(x))
    plan = make_small_plan(tmp_path)
    sample = planning.read_sample(plan.dataset, 0, 4, "black")
    settings = plan.model_copy(update={"contract": plan.contract.model_copy(update={"layer": ""})}).settings()
    choice = precision_choice.choose_precision(network, settings, sample)
    assert choice.precision == "float32"
    assert choice.reason.startswith("CPU has no tf32; the model cannot be rebuilt in bfloat16: layer ")


@needs_references
@pytest.mark.usefixtures("timed")
def test_a_night_of_auto_records_what_was_asked_and_what_it_became_and_passes(
    make_small_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_small_plan(tmp_path, explanation=explaining("auto"), integrated_gradients=LOOSE)
    store = sealed(plan)
    with open_store(store) as opened:
        about: dict[str, Any] = dict(opened.attributes)
    assert (about["precision"], about["device"]) == ("bfloat16", "CPU")
    configuration = about["configuration"]
    assert configuration["explanation"]["precision"] == "auto"
    resolved = {name: configuration["resolved"][name] for name in ("precision", "precision_reason")}
    assert resolved == {"precision": "bfloat16", "precision_reason": plan.precision_reason}
    assert compare(plan, store, AuditConfig(n_rows=20), 0, METHODS).verdict == "passed"
    assert recompute_rows(store, 20)[1] == ()
    assert other_device(store) == ""


@pytest.mark.usefixtures("prefect_server")
def test_a_whole_night_of_auto_says_in_its_log_what_that_became(
    small_model: ModelRecord,
    few_digits: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explain_verb, "get_run_logger", lambda: logging.getLogger("nightlens.test"))
    parameters = small_night(tmp_path, small_model.path, few_digits.directory, explanation={"precision": "auto"})
    with caplog.at_level(logging.INFO, "nightlens.test"):
        result = nightly(**parameters)
    (said,) = (message for message in caplog.messages if message.startswith("precision "))
    assert said.startswith("precision float32 of auto: CPU has no tf32; bfloat16 is off by ")
    assert (result.precision, result.device) == ("float32", "CPU")


# A night in tf32.


@pytest.fixture
def tensor_cores(tmp_path: Path) -> ModelRecord:
    return read_record(save_network(tmp_path / "tensor-cores.keras"))


@pytest.fixture
def gpu() -> Iterator[pytest.MonkeyPatch]:
    """While it is there, TensorFlow says that it sees an H200; undo it to be on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        pretend_gpus(patch, H200)
        yield patch


@pytest.mark.usefixtures("timed", "gpu")
def test_auto_takes_tf32_where_the_device_has_it(
    make_small_plan: MakePlan, tmp_path: Path, tensor_cores: ModelRecord
) -> None:
    settings = {"model": tensor_cores, "explanation": explaining("auto"), "integrated_gradients": LOOSE}
    plan = make_small_plan(tmp_path, **settings)
    assert (plan.device, plan.precision) == ("NVIDIA H200", "tf32")
    for said in (
        r"tf32 is off by [1-9]\.\d+%, .*, and takes 0\.40 of the time",
        "; bfloat16 is off .* 0.50 of the time",
    ):
        assert re.search(said, plan.precision_reason)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@needs_references
def test_a_night_in_tf32_measures_its_error_and_passes_on_its_device_and_on_a_cpu(
    make_small_plan: MakePlan, tmp_path: Path, tensor_cores: ModelRecord, gpu: pytest.MonkeyPatch
) -> None:
    plan = make_small_plan(tmp_path, model=tensor_cores, explanation=explaining("tf32"))
    store = sealed(plan)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    with open_store(store) as opened:
        about: dict[str, Any] = dict(opened.attributes)
        in_tf32 = opened.attributions(...), opened.maps(...), opened.probabilities
    assert (about["precision"], about["device"]) == ("tf32", "NVIDIA H200")
    measured = about["precision_error"]
    for spread in (measured, *measured["maps"].values(), measured["score"], measured["probability"]):
        assert 1e-7 < spread["median"] <= spread["max"] < 0.05
    audit = compare(plan, store, AuditConfig(n_rows=20), 0, METHODS)
    assert audit.verdict == "passed"
    for row in audit.rows:  # scores are below 1, and two of them make a gap
        assert row.checks["gap"].allowed == pytest.approx(1e-3 + 4 * 2 * measured["score"]["max"])
    assert recompute_rows(store, 20)[1] == () and other_device(store) == ""
    gpu.undo()
    assert recompute_rows(store, 20)[1] == ()
    assert other_device(store) == "computed on NVIDIA H200 in tf32, recomputed on CPU in float32"
    exact = make_small_plan(tmp_path, model=tensor_cores, explanation=explaining("float32"))
    compute_part(exact, 0, 8)
    with h5py.File(exact.part(0, 8)) as part:
        in_float32 = [part[name][:] for name in ("integrated_gradients/attribution", "grad_cam/map", "probability")]
    for ours, theirs in zip(in_tf32, in_float32, strict=True):
        off = np.linalg.norm((ours[:8] - theirs).reshape(8, -1), axis=1)
        assert (off > 0).any()


def test_a_night_of_another_device_verifies_on_a_cpu_and_a_line_says_so(
    make_small_plan: MakePlan, tmp_path: Path, gpu: pytest.MonkeyPatch
) -> None:
    store = sealed(make_small_plan(tmp_path, rows="0:8"))
    gpu.undo()
    done = nightlens("verify", store, "--recompute", 2)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            f"{store}: computed on NVIDIA H200 in float32, recomputed on CPU in float32",
            f"{store}: sound, 2 rows recomputed",
        ],
    )


def test_without_its_measured_error_a_night_in_tf32_would_not_pass_on_a_cpu(
    make_small_plan: MakePlan, tmp_path: Path, tensor_cores: ModelRecord, gpu: pytest.MonkeyPatch
) -> None:
    """So it is the recorded error that is allowed, and no more; a map that was turned around is found all the same."""
    plan = make_small_plan(tmp_path, model=tensor_cores, explanation=explaining("tf32"))
    store = sealed(plan)
    gpu.undo()
    store.chmod(0o644)
    with h5py.File(store, "a") as file:
        file["grad_cam/map"][3] = file["grad_cam/map"][3][::-1]
    assert {(finding.where, finding.rows) for finding in recompute_rows(store, 20)[1]} == {("grad_cam/map", (3,))}
    with h5py.File(store, "a") as file:
        file.attrs["precision_error"] = np.bytes_(b"{}")
    where = {finding.where for finding in recompute_rows(store, 20)[1]}
    assert {"integrated_gradients/attribution", "grad_cam/map"} <= where
