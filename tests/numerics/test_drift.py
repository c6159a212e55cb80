"""Changes of reasons between two models: closed forms, and what is not a change."""

import numpy as np
import pytest

from tasks.numerics.worth.drift import CELLS, LEAST_ROWS, change_of, heat_of, likeness


def relevance(n: int, seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, side, side))


def test_shares_sum_to_one_and_heat_has_unit_norm():
    heat = heat_of(relevance(20, 0))
    assert heat.share.shape == heat.signed.shape == (20, CELLS, CELLS)
    np.testing.assert_allclose(heat.share.sum((1, 2)), 1)
    np.testing.assert_allclose(np.square(heat.signed).sum((1, 2)), 1)
    nothing = heat_of(np.zeros((2, 16, 16)))
    assert not nothing.share.any()
    assert not nothing.signed.any()


def test_the_same_heat_has_not_changed_whatever_its_scale():
    values = relevance(60, 1)
    before, after = heat_of(values), heat_of(values * np.linspace(0.1, 9, 60)[:, None, None])
    found = change_of(before, after)
    assert found.share == pytest.approx(0, abs=1e-12)
    assert found.energy == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(likeness(before, after), 1)


def test_all_heat_that_moves_from_a_cell_to_another_is_a_change_of_one():
    before, after = np.zeros((2, 40, 16, 16))
    before[:, 0:2, 4:6] = 1
    after[:, 10:12, 14:16] = 1
    found = change_of(heat_of(before), heat_of(after))
    assert found.share == pytest.approx(1)
    assert found.cell == (0, 2)
    # All of either lie in a point, and the points are sqrt(2) apart.
    assert found.energy == pytest.approx(2 * np.sqrt(2))
    assert found.before[0, 2] == found.after[5, 7] == pytest.approx(1)
    np.testing.assert_allclose(likeness(heat_of(before), heat_of(after)), 0)


def test_rows_that_change_places_among_themselves_have_not_changed_as_a_class():
    values = relevance(80, 2)
    before, after = heat_of(values), heat_of(values[::-1])
    found = change_of(before, after)
    assert found.share == pytest.approx(0, abs=1e-12)
    assert found.energy == pytest.approx(0, abs=1e-7)
    assert likeness(before, after).mean() < 0.2


def test_energy_grows_with_the_change():
    values = relevance(100, 3)
    marked = [values.copy() for _ in range(3)]
    for strength, each in zip((1, 4, 16), marked, strict=True):
        each[:, :2, :2] += strength
    energies = [change_of(heat_of(values), heat_of(each)).energy for each in marked]
    assert 0 < energies[0] < energies[1] < energies[2]


def test_of_too_few_rows_nothing_is_said():
    heat = heat_of(relevance(LEAST_ROWS - 1, 0))
    assert change_of(heat, heat) is None
    mask = np.zeros(LEAST_ROWS - 1, bool)
    assert len(heat.of(mask).signed) == 0
