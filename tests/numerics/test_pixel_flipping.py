"""Removal curves beside Quantus's PixelFlipping: another implementation on the same networks, rows, order, steps and fill.

Quantus scores an image after each step and not before the first, so its area is over one trapezoid less than ours; its steps are
one wide, so it is larger by their number. The relevance is without ties, for which it has no rule.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from command import program
from environment import clean_environment
from places import REPOSITORY, SETUP
from tasks.numerics.network.scores import CompiledScores, score_model
from tasks.numerics.worth.removal import area, curves, halves, relevance_gain

QUANTUS = REPOSITORY / ".venv-quantus"
pytestmark = [
    pytest.mark.slow,  # TensorFlow starts once more, for Quantus
    pytest.mark.skipif(not (QUANTUS / "installed").exists(), reason="Quantus is not installed: `make quantus`"),
]
N = 6
VERSION = "0.6.0"  # whose conventions the module's docstring says


@dataclass(frozen=True)
class Case:
    """Images of a shape, removed in so many steps to a value."""

    shape: tuple[int, int, int]
    n_steps: int
    fill: float

    def network(self) -> keras.Model:
        keras.utils.set_random_seed(5)
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input(self.shape),
                layers.Conv2D(6, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(4, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(0, 0.2)),
            ]
        )

    def rows(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(2)
        relevance = rng.permutation(N * self.shape[0] * self.shape[1]).reshape(N, *self.shape[:2]) - 200.0
        image = rng.random((N, *self.shape), dtype=np.float32)
        return {"image": image, "target": np.arange(N) % 4, "relevance": relevance}

    @property
    def fractions(self) -> np.ndarray:
        return np.arange(self.n_steps + 1) / self.n_steps


# Quantus wants the number of pixels to be divisible by the values in a step.
CASES = {
    "grey": Case((16, 12, 1), 8, 0.25),
    "halves": Case((16, 12, 1), 2, 0.0),
    "colour": Case((12, 10, 3), 12, 0.0),
    "colour on grey": Case((12, 10, 3), 6, 0.5),
}


@pytest.fixture(scope="module")
def by_quantus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("quantus")
    places: list[Path] = []
    for k, case in enumerate(CASES.values()):
        places.append(folder / str(k))
        places[-1].mkdir()
        case.network().save(places[-1] / "model.keras")
        np.savez(places[-1] / "rows.npz", fill=case.fill, n_steps=case.n_steps, **case.rows())
    here = clean_environment(path=(QUANTUS,))
    done = program(sys.executable, "-P", "-W", "ignore", SETUP / "flip_pixels.py", *places, environment=here)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["version"] == VERSION
    found = [{name: np.array(values) for name, values in each.items()} for each in said["found"]]
    return dict(zip(CASES, found, strict=True))


def arguments(case: Case):
    """What removal's functions take before the fractions: scores, images, baselines, targets, relevance."""
    compiled, rows = CompiledScores(score_model(case.network(), "probability"), 16), case.rows()

    def scores(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return compiled(images)[np.arange(len(images)), targets]

    return scores, rows["image"], np.full_like(rows["image"], case.fill), rows["target"], rows["relevance"]


@pytest.mark.parametrize("name", CASES)
def test_deletion_is_what_quantus_flips(by_quantus, name: str) -> None:
    case, found = CASES[name], by_quantus[name]
    deletion, _ = curves(*arguments(case), case.fractions)
    assert np.ptp(deletion, axis=1).min() > 1e-3, "curves that stand still compare nothing"
    np.testing.assert_allclose(deletion[:, 1:], found["curve_most_first"], rtol=1e-5, atol=1e-6)
    after_the_first = area(deletion[:, 1:], case.fractions[1:])
    np.testing.assert_allclose(after_the_first * case.n_steps, found["area_most_first"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_insertion_is_what_quantus_flips_from_the_other_end(by_quantus, name: str) -> None:
    case, found = CASES[name], by_quantus[name]
    _, insertion = curves(*arguments(case), case.fractions)
    np.testing.assert_allclose(insertion[:, -2::-1], found["curve_least_first"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_relevance_gain_is_the_difference_of_two_areas_of_quantus(by_quantus, name: str) -> None:
    """Both of its curves lack the same first trapezoid but for one end, and so the difference lacks half a step."""
    case, found = CASES[name], by_quantus[name]
    gain = relevance_gain(*curves(*arguments(case), case.fractions), case.fractions)
    first = found["curve_least_first"][:, 0] - found["curve_most_first"][:, 0]
    theirs = (found["area_least_first"] - found["area_most_first"] + first / 2) / case.n_steps
    np.testing.assert_allclose(gain, theirs, rtol=1e-5, atol=1e-6)


def test_halves_are_two_steps_of_quantus(by_quantus) -> None:
    found, ours = by_quantus["halves"], halves(*arguments(CASES["halves"]))
    drop, keep = (found[f"curve_{order}_first"][:, 0] for order in ("most", "least"))
    np.testing.assert_allclose(ours.drop, drop, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.keep, keep, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.relevance_gain, (keep - drop) / 2, rtol=1e-5, atol=1e-6)
