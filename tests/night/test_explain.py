"""A part holds what the model and the methods say of its rows, is computed once, and is refused where it is not finite."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from command import printed_by_python
from engine_calls import watch_traces
from storage import check_part
from tasks.config import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig
from tasks.datasets import Dataset, mean_image, read_rows
from tasks.models.registry import load_model, read_record
from tasks.numerics.endpoint import Endpoint
from tasks.numerics.integrated_gradients import Attributions
from tasks.parts import compute
from tasks.parts.compute import PartReport, compute_part
from tasks.parts.explained_rows import baselines_for, explain_rows, explainer_for
from tasks.parts.plan import Plan

MakePlan = Callable[..., Plan]
pytestmark = pytest.mark.usefixtures("no_run_logger")


@pytest.fixture
def plan(make_small_plan: MakePlan, tmp_path: Path) -> Plan:
    return make_small_plan(tmp_path)


# Two logical CPUs stand in for two GPUs: this process has no other devices.
ON_TWO_DEVICES = """
import sys
from concurrent.futures import ThreadPoolExecutor
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
from tasks.datasets import read_rows
from tasks.parts import explained_rows
from tasks.parts.plan import Plan
names = ["/device:CPU:0", "/device:CPU:1"]
explained_rows.places = lambda: names
plan = Plan.model_validate_json(sys.argv[1])
def explain(ends):
    arrays = explained_rows.explain_rows(plan, *read_rows(plan.dataset, "test", *ends), first_row=ends[0])
    return arrays["integrated_gradients/attribution"]
with ThreadPoolExecutor(2) as pool:
    np.save(sys.argv[2], np.concatenate(list(pool.map(explain, plan.ranges()))))
for name in names:
    explainer = explained_rows.explainer_for(plan, name)
    buffers = explainer.engine._buffers
    held = [weight.value for weight in explainer.network.weights] + [buffers._f, buffers._fine]
    print(len(held) > 2 and {tensor.device.split("task:0")[1] for tensor in held} == {name})
"""


def test_of_several_gpus_each_has_the_model_and_explains_parts(small_plan: Plan, tmp_path: Path) -> None:
    printed = printed_by_python(ON_TWO_DEVICES, small_plan.model_dump_json(), tmp_path / "found.npy")
    assert printed.split() == ["True", "True"]
    expected = [contents(small_plan.part(*ends))["integrated_gradients/attribution"] for ends in small_plan.ranges()]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), np.concatenate(expected), rtol=2e-3, atol=1e-6)


def rows_of(plan: Plan, start: int, stop: int) -> dict[str, np.ndarray]:
    pixels, labels = read_rows(plan.dataset, "test", start, stop)
    return explain_rows(plan, pixels, labels, first_row=start)


def contents(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_a_part_holds_the_models_answers_for_its_own_rows(small_plan: Plan, digits: Dataset) -> None:
    model = load_model(small_plan.model.path)
    for start, stop in small_plan.ranges():
        part = contents(small_plan.part(start, stop))
        pixels, labels = read_rows(digits, "test", start, stop)
        np.testing.assert_array_equal(part["row"], np.arange(start, stop))
        np.testing.assert_array_equal(part["image"], pixels)
        np.testing.assert_array_equal(part["label"], labels)
        np.testing.assert_allclose(part["probability"], model(pixels.astype(np.float32) / 255), atol=1e-6)
        np.testing.assert_array_equal(part["prediction"], part["probability"].argmax(axis=1))


def test_the_true_class_is_explained_everywhere_and_the_predicted_one_where_it_differs(small_plan: Plan) -> None:
    """The scores tell which class was explained; wrong rows are numbered by their place in the split."""
    for start, stop in small_plan.ranges():
        part, every = contents(small_plan.part(start, stop)), np.arange(stop - start)
        wrong = np.flatnonzero(part["label"] != part["prediction"])
        assert len(wrong) > 0
        np.testing.assert_allclose(
            part["integrated_gradients/score"], part["probability"][every, part["label"]], atol=1e-6
        )
        np.testing.assert_allclose(
            part["integrated_gradients/predicted/score"], part["probability"][wrong].max(axis=1), atol=1e-6
        )
        np.testing.assert_array_equal(part["predicted_row"], start + wrong)


@pytest.mark.parametrize("group", ["", "predicted/"], ids=["true", "predicted"])
def test_the_certificate_is_the_one_of_the_attribution(small_plan: Plan, group: str) -> None:
    part = contents(small_plan.part(8, 16))
    ig = {
        name: part[f"integrated_gradients/{group}{name}"] for name in ("attribution", "gap", "score", "score_baseline")
    }
    total = ig["attribution"].sum(axis=(1, 2, 3), dtype=np.float64)
    difference = ig["score"].astype(np.float64) - ig["score_baseline"]
    np.testing.assert_allclose(ig["gap"], total - difference, atol=1e-6)
    np.testing.assert_array_equal(part[f"grad_cam/{group}cam_max"], part[f"grad_cam/{group}map"].max(axis=(1, 2)))
    assert (part[f"grad_cam/{group}map"] >= 0).all()


@pytest.mark.parametrize("bits", [2, 12])
def test_the_certificate_is_of_the_rounded_attribution(make_small_plan: MakePlan, tmp_path: Path, bits: int) -> None:
    """Both targets are rounded to the nearest, and gap and converged are judged again on what is stored."""
    tolerances = {"gap_tolerance": 0.0002, "error_tolerance": 0.2}
    full, coarse = (
        make_small_plan(tmp_path, integrated_gradients=IntegratedGradientsConfig(keep_mantissa_bits=b, **tolerances))
        for b in (None, bits)
    )
    exact, kept = rows_of(full, 0, 20), rows_of(coarse, 0, 20)
    assert len(kept["predicted_row"]) > 0
    for group in ("integrated_gradients", "integrated_gradients/predicted"):
        before, after = exact[f"{group}/attribution"], kept[f"{group}/attribution"]
        assert (before != after).any()
        assert (np.abs(after - before) <= 2.0 ** -(bits + 1) * np.abs(before)).all()
        difference = kept[f"{group}/score"].astype(np.float64) - kept[f"{group}/score_baseline"]
        gap = after.sum(axis=(1, 2, 3), dtype=np.float64) - difference
        np.testing.assert_allclose(kept[f"{group}/gap"], gap, rtol=1e-6, atol=1e-9)
        met = (np.abs(gap) <= 0.0002) & (kept[f"{group}/quadrature_error"] <= 0.2)
        np.testing.assert_array_equal(kept[f"{group}/converged"], met)
        if bits == 2:
            assert (exact[f"{group}/converged"] != kept[f"{group}/converged"]).any(), "nothing was judged anew"


def test_a_row_is_explained_the_same_in_any_part(plan: Plan) -> None:
    whole, alone = rows_of(plan, 0, 8), rows_of(plan, 5, 6)
    for name in ("attribution", "gap", "quadrature_error", "n_gradients", "converged"):
        np.testing.assert_allclose(
            whole[f"integrated_gradients/{name}"][5:6], alone[f"integrated_gradients/{name}"], atol=1e-6, err_msg=name
        )
    np.testing.assert_allclose(whole["grad_cam/map"][5:6], alone["grad_cam/map"], atol=1e-6)


def test_a_part_without_a_wrong_row_has_empty_groups(plan: Plan) -> None:
    pixels, _ = read_rows(plan.dataset, "test", 0, 4)
    images = pixels.astype(np.float32) / 255
    labels = explainer_for(plan).endpoint(images, np.zeros(4, int)).probabilities.argmax(axis=1)
    arrays = explain_rows(plan, pixels, labels, first_row=0)
    assert arrays["integrated_gradients/predicted/attribution"].shape == (0, 32, 32, 3)
    assert arrays["grad_cam/predicted/map"].shape == (0, *arrays["grad_cam/map"].shape[1:])
    assert len(arrays["predicted_row"]) == 0


def test_the_report_tells_what_the_part_holds(plan: Plan) -> None:
    report = compute_part(plan, 16, 20)
    part = contents(plan.part(16, 20))
    assert not report.reused
    assert report.seconds > 0
    assert report.n_gradients == part["integrated_gradients/n_gradients"].sum()
    assert report.n_unconverged == (part["integrated_gradients/converged"] == 0).sum()
    assert report.n_zero_maps == (part["grad_cam/cam_max"] == 0).sum()
    assert report.worst_gap == pytest.approx(np.abs(part["integrated_gradients/gap"]).max())


def test_a_whole_part_is_not_computed_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_part(plan, 0, 8)
    monkeypatch.setattr(compute, "explain_rows", lambda *_, **__: pytest.fail("computed again"))
    assert compute_part(plan, 0, 8) == PartReport(start=0, stop=8, reused=True)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "other-rows"])
def test_a_damaged_part_is_computed_again(plan: Plan, small_plan: Plan, damage: str) -> None:
    path = plan.part(0, 8)
    compute_part(plan, 0, 8)
    before = contents(path)
    if damage == "other-rows":
        path.write_bytes(small_plan.part(8, 16).read_bytes())
    elif damage == "flipped":
        with h5py.File(path) as file:
            chunk = file["integrated_gradients/attribution"].id.get_chunk_info(0)
        content = bytearray(path.read_bytes())
        content[chunk.byte_offset + chunk.size // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(path.read_bytes()[:-100] if damage == "truncated" else b"not a part")
    assert check_part(path, digest=plan.digest, start=0, stop=8)
    assert not compute_part(plan, 0, 8).reused
    assert check_part(path, digest=plan.digest, start=0, stop=8) is None
    for name, array in contents(path).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_outputs_that_are_not_finite_are_refused_with_their_rows(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of one part; its part is not written."""
    explainer = explainer_for(plan)
    answers = explainer.endpoint

    def sick(*rows: np.ndarray) -> Endpoint:
        endpoint = answers(*rows)
        endpoint.probabilities[3, 1] = np.nan
        return endpoint

    monkeypatch.setattr(explainer, "endpoint", sick)
    with pytest.raises(ValueError, match=r"model theirs gives outputs that are not finite for rows \[11\]"):
        compute_part(plan, 8, 16)
    assert not plan.part(8, 16).exists()


def test_attributions_that_are_not_finite_are_refused_with_their_rows(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = explainer_for(plan)
    answers = explainer.integrated_gradients

    def sick(*arguments: Any, **known: Any) -> Attributions:
        attributions = answers(*arguments, **known)
        attributions.attribution[2, 0, 0, 0] = np.inf
        return attributions

    monkeypatch.setattr(explainer, "integrated_gradients", sick)
    with pytest.raises(ValueError, match="integrated_gradients/attribution.*10"):
        compute_part(plan, 8, 16)
    assert not plan.part(8, 16).exists()


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blur"])
def test_baselines_reach_the_attributions(make_small_plan: MakePlan, tmp_path: Path, baseline: str) -> None:
    rule = IntegratedGradientsConfig.model_validate({"baseline": baseline, "rule": "gausslegendre", "n_steps": 16})
    plan = make_small_plan(tmp_path, integrated_gradients=rule)
    pixels, labels = read_rows(plan.dataset, "test", 0, 3)
    images = pixels.astype(np.float32) / 255
    expected = {
        "black": np.zeros_like(images),
        "white": np.ones_like(images),
        "mean": np.broadcast_to(mean_image(plan.dataset), images.shape),
        "blur": baselines_for(plan, images),
    }[baseline]
    np.testing.assert_allclose(baselines_for(plan, images), expected, atol=1e-6)
    arrays = explain_rows(plan, pixels, labels, first_row=0)
    scores = load_model(plan.model.path)(np.asarray(expected, np.float32)).numpy()[np.arange(3), labels]
    np.testing.assert_allclose(arrays["integrated_gradients/score_baseline"], scores, atol=1e-6)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_both_engines_fill_the_same_arrays(make_small_plan: MakePlan, tmp_path: Path, score: str) -> None:
    """alibi and tf-explain instead of ours: the same datasets, within float32 of ours under the same rule."""
    for module in ("alibi", "tf_explain", "cv2"):
        pytest.importorskip(module, reason="the engines need the extra 'reference'")
    explanation = ExplanationConfig.model_validate({"part_rows": 8, "batch_size": 64, "score": score})
    ours, theirs = (
        rows_of(
            make_small_plan(
                tmp_path,
                explanation=explanation,
                integrated_gradients=IntegratedGradientsConfig.model_validate(
                    {"engine": engine, "rule": "gausslegendre", "n_steps": 20}
                ),
                grad_cam=GradCamConfig.model_validate({"engine": cam_engine}),
            ),
            0,
            6,
        )
        for engine, cam_engine in (("nightlens", "nightlens"), ("alibi", "tf-explain"))
    )
    assert ours.keys() == theirs.keys()
    assert np.abs(theirs["integrated_gradients/attribution"]).max() > 0
    for name, array in ours.items():
        assert theirs[name].dtype == array.dtype, name
        if not name.endswith("n_gradients"):
            np.testing.assert_allclose(
                theirs[name], array, atol=1e-5 * max(1, np.abs(array).max(initial=0)), err_msg=name
            )


def test_the_model_is_compiled_once_for_all_parts(make_small_plan: MakePlan, tmp_path: Path) -> None:
    """At a batch size of its own, for the process may have explained with others."""
    plan = make_small_plan(tmp_path, explanation=ExplanationConfig(part_rows=8, batch_size=48))
    traces = watch_traces(explainer_for(plan).engine)
    for start, stop in plan.ranges():
        compute_part(plan, start, stop)
    assert traces == [(None, 32, 32, 3)]


def test_another_model_under_the_same_name_is_loaded_anew(
    make_small_plan: MakePlan, small_network: Callable[..., keras.Model], tmp_path: Path
) -> None:
    path = tmp_path / "theirs.keras"
    answers = []
    for seed in (1, 2):
        small_network(seed=seed).save(path)
        answers.append(rows_of(make_small_plan(tmp_path, model=read_record(path)), 0, 2)["probability"])
    assert not np.allclose(*answers)
