"""Names of strategies over nights: what is alike keeps its name, what is new gets one that was not used."""

import numpy as np
import pytest

from tasks.worth.strategies.class_strategies import Strategies, Strategy, letters
from tasks.worth.strategies.strategy_names import named_as_before


class Earlier:
    """As much of a store as is asked for: clusters of classes with names and heats."""

    has_clusters = True

    def __init__(self, classes, names, heat):
        self.cluster_names = list(names)
        self._columns = {"clusters/class": np.array(classes), "clusters/mean_heat": np.stack(heat)}

    def column(self, path):
        return self._columns[path]


def heat(k: int, noise: float = 0.0) -> np.ndarray:
    values = np.zeros((4, 4))
    values.flat[k] = 1
    return values + noise * np.random.default_rng(k).normal(size=(4, 4))


def strategy(prediction: int, k: int, name: str, noise: float = 0.0) -> Strategy:
    nothing = np.zeros(0, np.int64)
    region = np.zeros((4, 4), bool)
    return Strategy(name, prediction, nothing, nothing, heat(k, noise), region, 0.0, 0.0, 0.0, 0.0, ())


def names(found: Strategies) -> list[str]:
    return [each.name for each in found.found]


def test_alike_strategies_keep_their_names_in_whatever_order_they_come():
    earlier = Earlier([6, 6, 6, 9], ["6a", "6b", "6c", "9a"], [heat(0), heat(1), heat(2), heat(3)])
    found = Strategies((strategy(6, 2, "6a", 0.05), strategy(6, 0, "6b", 0.05), strategy(9, 3, "9a", 0.05)), {})
    assert names(named_as_before(found, earlier)) == ["6c", "6a", "9a"]


def test_a_new_strategy_gets_a_letter_that_meant_no_other():
    earlier = Earlier([6, 6], ["6a", "6c"], [heat(0), heat(1)])
    found = Strategies((strategy(6, 9, "6a"), strategy(6, 1, "6b"), strategy(6, 12, "6c")), {})
    assert names(named_as_before(found, earlier)) == ["6b", "6c", "6d"]


def test_the_same_heat_of_another_class_is_another_strategy():
    earlier = Earlier([5], ["5a"], [heat(0)])
    assert names(named_as_before(Strategies((strategy(6, 0, "6a"),), {}), earlier)) == ["6a"]


@pytest.mark.parametrize("earlier", [None, Earlier([6], ["6z"], [np.ones((2, 2))])])
def test_without_comparable_heat_names_stay(earlier):
    assert names(named_as_before(Strategies((strategy(6, 0, "6a"),), {}), earlier)) == ["6a"]


def test_letters_go_on_after_z():
    assert [letters(k) for k in (0, 25, 26, 51, 52, 701, 702)] == ["a", "z", "aa", "az", "ba", "zz", "aaa"]
