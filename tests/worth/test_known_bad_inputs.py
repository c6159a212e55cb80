"""Known answers of what is too little or too plain to measure: each says why there is no number, and nothing fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from contracts import unit_contract
from tasks.config import AlertConfig, DatasetConfig, ExplanationConfig, GradCamConfig, IntegratedGradientsConfig
from tasks.datasets import prepare
from tasks.models.registry import read_record
from tasks.parts.plan import Plan, make_plan
from tasks.worth.assessment import Assessment
from tasks.worth.known.known_answers import measure_canary, measure_graft
from tasks.worth.known.sanity import measure_sanity
from tasks.worth.worth_warnings import find_worth_warnings
from tasks.worth.worth_words import known_checks

SHAPE = (8, 8, 1)
MakePlan = Callable[..., Plan]


def network(n_classes: int, kernel: Any = "glorot_uniform") -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(3, 3, activation="relu", kernel_initializer=kernel),
            layers.Flatten(),
            layers.Dense(n_classes, activation="softmax", kernel_initializer=kernel),
        ]
    )


@pytest.fixture
def plan_of(tmp_path: Path) -> MakePlan:
    """Makes the plan of a night of so many images with those labels, by a network with those weights."""

    def make(n: int = 60, n_classes: int = 3, kernel: Any = "glorot_uniform", bright: bool = True) -> Plan:
        x = np.random.default_rng(0).integers(0, 256, (n, *SHAPE)) if bright else np.zeros((n, *SHAPE))
        x, y = x.astype(np.uint8), np.arange(n) % n_classes
        np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        dataset = prepare(DatasetConfig(source=str(tmp_path / "images.npz")), tmp_path, SHAPE)
        network(max(2, n_classes), kernel).save(tmp_path / "model.keras")
        model = read_record(tmp_path / "model.keras")
        return make_plan(
            tmp_path, dataset, model, unit_contract(model, dataset), ExplanationConfig(batch_size=64),
            IntegratedGradientsConfig(), GradCamConfig(), "0:",
        )  # fmt: skip

    return make


def rows(n: int, value: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, black baselines and targets; of one value, or random."""
    images = np.random.default_rng(1).random((n, *SHAPE)) if value is None else np.full((n, *SHAPE), value)
    return images.astype(np.float32), np.zeros((n, *SHAPE), np.float32), np.arange(n) % 2


def said_of(**found: Any) -> str:
    """What people read of it; as JSON it is the same again, without NaN, and nothing is warned of."""
    assessment = Assessment(**found)
    text = json.dumps(assessment.model_dump(mode="json"), allow_nan=False)
    assert Assessment.model_validate_json(text) == assessment
    assert list(find_worth_warnings(assessment, AlertConfig(sanity=0, canary=1))) == []
    (check,) = known_checks(assessment)
    assert "nan" not in check.came
    return check.came


def test_images_that_are_the_baseline_have_no_sanity(plan_of: MakePlan) -> None:
    found = measure_sanity(plan_of(), *rows(20, 0.0))
    assert said_of(sanity=found) == "too few rows: defined in 0 of 20, 8 are needed"


def test_fewer_rows_than_are_needed_have_no_sanity(plan_of: MakePlan) -> None:
    assert said_of(sanity=measure_sanity(plan_of(), *rows(7))) == "too few rows: defined in 7 of 7, 8 are needed"


def test_a_network_of_equal_weights_has_no_sanity(plan_of: MakePlan) -> None:
    assert said_of(sanity=measure_sanity(plan_of(kernel="ones"), *rows(20))).startswith("not defined: no weight")


def test_eight_rows_are_enough_for_sanity(plan_of: MakePlan) -> None:
    found = measure_sanity(plan_of(), *rows(8))
    assert (found.n_rows, len(found.medians), found.note) == (8, 3, "")
    assert all(-1 <= median <= 1 for median in found.medians)


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_graft_is_known_on_few_rows_and_on_constant_images(plan_of: MakePlan, n: int, value: float) -> None:
    found = measure_graft(plan_of(), *rows(n, value))
    assert found.error < 1e-6


def test_a_graft_on_a_network_that_says_nothing_of_images_is_known(plan_of: MakePlan) -> None:
    assert measure_graft(plan_of(kernel="zeros"), *rows(8)).error < 1e-6


def test_images_of_a_pixel_have_no_room_for_a_graft(plan_of: MakePlan) -> None:
    images = np.zeros((8, 1, 1, 1), np.float32)
    found = measure_graft(plan_of(), images, images, np.zeros(8, np.int64))
    assert (found.error, found.note) == (None, "not defined: the images have no room for a mark")


def test_without_logits_there_is_no_graft(plan_of: MakePlan) -> None:
    plan = plan_of()
    found = measure_graft(
        plan.model_copy(update={"contract": plan.contract.model_copy(update={"logits": ""})}), *rows(8)
    )
    assert said_of(graft=found) == "not defined: the model's logits are not known, to which a graft is added"


def test_of_a_few_images_no_canary_is_trained(plan_of: MakePlan) -> None:
    assert said_of(canary=measure_canary(plan_of(n=7))) == "too few images: 7 for training and 7 to explain"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_classes", "said"),
    [(1, "of the objects the network knew 100%, and 100% may be chance"), (2, "of the objects the network knew")],
    ids=["one class", "black"],
)
def test_canaries_that_cannot_know_the_object_have_no_contrast(plan_of: MakePlan, n_classes: int, said: str) -> None:
    """On black images all that an explanation can be of is the mark, for both networks."""
    found = measure_canary(plan_of(n_classes=n_classes, bright=False))
    assert said_of(canary=found).startswith(f"not defined: {said}")
    assert (found.mark, found.object) == ({}, {})
