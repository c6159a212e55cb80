"""Whole nights of models as people bring them, on a real server: what is sealed is their function, or nothing is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from prefect.client.schemas.objects import State

from command import nightlens
from flows.nightly import nightly
from night_record import recorded
from small_night import small_night
from storage import open_store, verify_store
from tasks.numerics.references import missing_references
from tasks.recompute import recompute_rows
from tasks.running_night import NightResult
from trial_inputs import Trial

pytestmark = pytest.mark.usefixtures("prefect_server")
TrialOf = Callable[[str], Trial]
needs_references = pytest.mark.skipif(bool(missing_references()), reason="needs the extra 'reference'")


def night_of(trial: Trial, root: Path, **changed: Any) -> dict[str, Any]:
    """The flow's parameters: rows 0 to 19 of the trial's images."""
    return small_night(root, trial.model, trial.dataset, **changed)


def completeness(store: Any) -> np.ndarray:
    certificate = store.certificate()
    total = store.integrated_gradients[:].sum(axis=(1, 2, 3), dtype=np.float64)
    return np.abs(total - (certificate["score"] - certificate["score_baseline"]) - certificate["gap"])


@needs_references
@pytest.mark.parametrize(
    "name", ["rescaling_inside", "caffe_outside", "softmax_inside", "sigmoid_units", "binary_logit"]
)
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_a_night_explains_what_its_owner_uses_and_passes_its_audit(
    name: str, score: str, trial_of: TrialOf, tmp_path: Path
) -> None:
    trial = trial_of(name)
    result: NightResult = nightly(**night_of(trial, tmp_path, explanation={"score": score}, audit={"n_rows": 2}))
    assert result.audit == "passed"
    assert result.accuracy == pytest.approx(trial.accuracy)
    with open_store(result.store) as store:
        np.testing.assert_allclose(store.probabilities, trial.probabilities[:20], atol=1e-5)
        assert (completeness(store) < 1e-4).all()
        assert store.contract["input"]["feeds"][0]["accuracy"] > 0.8
        assert f"model is fed: {store.contract['summary']}" in repr(store)
        assert store.has_grad_cam
    assert not verify_store(result.store)
    assert not recompute_rows(result.store, 4)[1]


@needs_references
def test_a_model_without_a_map_has_integrated_gradients_alone(trial_of: TrialOf, tmp_path: Path) -> None:
    trial = trial_of("mlp")
    parameters = night_of(
        trial, tmp_path, audit={"n_rows": 2}, gallery={"draw": True, "spotlight": [3], "per_class": 0}
    )
    state: State = nightly(**parameters, return_state=True)
    result: NightResult = state.result()
    assert (result.audit, result.n_zero_maps) == ("passed", 0)
    with open_store(result.store) as store:
        assert not store.has_grad_cam
        assert "no layer with a map" in store.contract["grad_cam"]["text"]
    assert not verify_store(result.store)
    assert not recompute_rows(result.store, 20)[1]
    _, _, artifacts = recorded(result.flow_run_id, n_tasks=0)
    keys = {artifact.key for artifact in artifacts}
    assert "model" in keys and "gallery-integrated-gradients" in keys and "gallery-grad-cam" not in keys
    page = next(artifact for artifact in artifacts if artifact.key == "model")
    assert "no layer with a map" in str(page.data)


def test_grad_cam_can_be_switched_off(trial_of: TrialOf, tmp_path: Path) -> None:
    result: NightResult = nightly(**night_of(trial_of("plain"), tmp_path, grad_cam={"layer": "none"}))
    with open_store(result.store) as store:
        assert not store.has_grad_cam
        assert store.contract["grad_cam"]["text"] == "Grad-CAM is switched off (grad_cam.layer: none)"


def test_the_feed_and_the_layer_decide_the_parts(trial_of: TrialOf, tmp_path: Path) -> None:
    trial = trial_of("plain")
    digests = set()
    for model, layer in (({}, "auto"), ({"input": "signed"}, "auto"), ({}, "none")):
        result = nightly(**night_of(trial, tmp_path, model=model, grad_cam={"layer": layer}))
        with open_store(result.store) as store:
            digests.add(store.attributes["digest"])
    assert len(digests) == 3


def test_a_wrong_setting_is_a_warning_of_the_night(trial_of: TrialOf, tmp_path: Path) -> None:
    result: NightResult = nightly(**night_of(trial_of("signed_outside"), tmp_path, model={"input": "raw"}))
    kinds = {warning.kind for warning in result.warnings}
    assert "input-range" in kinds
    assert re.search(r"model.input is raw .*; signed fits far better \(accuracy", result.verdict)
    with open_store(result.store) as store:
        assert any("signed fits far better" in warning for warning in store.contract["warnings"])


def test_classes_in_another_order_are_a_warning_of_the_night(trial_of: TrialOf, tmp_path: Path) -> None:
    trial = trial_of("plain")
    arrays = dict(np.load(trial.dataset))
    moved = tmp_path / "moved.npz"
    np.savez(moved, **{k: (v + 1) % 10 if k.startswith("y") else v for k, v in arrays.items()})
    result: NightResult = nightly(**night_of(trial, tmp_path, dataset={"source": str(moved)}))
    warning = next(warning for warning in result.warnings if warning.kind == "class-order")
    assert warning.value == pytest.approx(result.accuracy) and warning.threshold == pytest.approx(trial.accuracy)
    order = re.search(r"classes \[(.*)\] in this order", warning.message)
    assert order is not None
    names = order[1].split(", ")
    again: NightResult = nightly(**night_of(trial, tmp_path, dataset={"source": str(moved), "class_order": names}))
    assert again.accuracy == pytest.approx(trial.accuracy)
    assert "class-order" not in {warning.kind for warning in again.warnings}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mc_dropout", r"no function of one image: .*\(Dropout\) draws at random"),
        ("batchnorm_training", r"no function of one image: .*\(BatchNormalization\) looks at the batch"),
    ],
)
def test_what_is_no_function_is_refused_before_anything_is_computed(
    name: str, words: str, trial_of: TrialOf, tmp_path: Path
) -> None:
    done = nightlens("run", "--root", tmp_path, "--dataset", trial_of(name).dataset, "--model", trial_of(name).model)
    assert done.returncode == 2
    refusals = [line for line in done.stderr.splitlines() if line.startswith("nightlens: ")]
    assert len(refusals) == 1 and re.search(words, refusals[0])
    assert not (tmp_path / "latest").exists() and not (tmp_path / "parts").exists()


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(trial_of: TrialOf, tmp_path: Path) -> None:
    state: State = nightly(
        **night_of(trial_of("nested_backbone"), tmp_path, grad_cam={"layer": "c9"}), return_state=True
    )
    assert state.is_failed()
    assert re.search(r"Grad-CAM layer 'c9' is not in the model; choose one of .*backbone/", state.message or "")


def test_a_night_without_a_mistake_is_computed_again(trial_of: TrialOf, tmp_path: Path) -> None:
    """Of rows none of which is misclassified there is nothing to compare for a predicted class."""
    trial = trial_of("plain")
    right = np.flatnonzero(trial.probabilities[:20].argmax(axis=1) == trial.images.y_test[:20])
    first = int(right[0])
    result: NightResult = nightly(**night_of(trial, tmp_path, run={"rows": f"{first}:{first + 1}"}))
    done = nightlens("verify", result.store.parent, "--recompute", "1")
    assert (done.returncode, done.stdout) == (0, f"{result.store}: sound, 1 rows recomputed\n")


def test_a_model_that_is_no_function_any_more_is_found_by_recomputing(trial_of: TrialOf, tmp_path: Path) -> None:
    """The contract is proved again: a recorded kind that the outputs contradict is a finding."""
    import h5py

    result: NightResult = nightly(**night_of(trial_of("plain"), tmp_path))
    result.store.chmod(0o644)
    with h5py.File(result.store, "r+") as file:
        about = file.attrs["contract"].decode()
        changed = about.replace('"kind":"probability"', '"kind":"independent"').replace(
            '"kind": "probability"', '"kind": "independent"'
        )
        assert changed != about
        file.attrs.create("contract", np.bytes_(changed))
    findings = recompute_rows(result.store, 2)[1]
    assert [(finding.check, finding.detail) for finding in findings] == [
        ("contract", "output: recorded as 'independent', now 'probability'")
    ]


def test_doctor_says_how_a_model_would_be_fed(trial_of: TrialOf, tmp_path: Path) -> None:
    trial = trial_of("caffe_outside")
    done = nightlens("doctor", "--root", tmp_path, "--dataset", trial.dataset, "--model", trial.model)
    assert done.returncode == 0, done.stderr
    for words in (
        r"model caffe_outside",
        r"is fed +.*blue first.*\(caffe\) \(auto: it explains the labels best, accuracy",
        r"outputs +probabilities that sum to 1",
        r"Grad-CAM +c1: auto: the last map larger than 1x1",
        r"✓ the same images among others",
        r"caffe +\d\.\d{4}",
    ):
        assert re.search(words, done.stdout), words
    assert not (tmp_path / "nights").exists()
    wrong = nightlens(
        "doctor", "--root", tmp_path, "--dataset", trial.dataset, "--model", trial.model, "--input", "unit"
    )
    assert "caffe fits far better" in wrong.stdout


def test_doctor_needs_a_model_to_say_how_it_is_fed(tmp_path: Path) -> None:
    done = nightlens("doctor", "--root", tmp_path, "--input", "raw")
    assert done.returncode == 2
    assert "--config and --input say how a model is fed and read, and need --model" in done.stderr


def test_a_saved_model_has_integrated_gradients_alone(trial_of: TrialOf, tmp_path: Path) -> None:
    trial = trial_of("plain")
    keras.models.load_model(trial.model).export(tmp_path / "served", verbose=False)
    theirs = Trial(**{**vars(trial), "model": tmp_path / "served"})
    result: NightResult = nightly(**night_of(theirs, tmp_path))
    assert result.accuracy == pytest.approx(trial.accuracy)
    with open_store(result.store) as store:
        assert not store.has_grad_cam
        np.testing.assert_allclose(store.probabilities, trial.probabilities[:20], atol=1e-5)
    assert not recompute_rows(result.store, 2)[1]
