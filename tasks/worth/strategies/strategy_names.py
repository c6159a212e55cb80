"""A strategy keeps its name from night to night: clusters of the same class are matched by their mean heat."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from storage import AttributionStore
from tasks.worth.strategies.class_strategies import Strategies, Strategy, letters

__all__ = ["named_as_before"]

LEAST_LIKENESS = 0.5  # cosine of mean heats


def named_as_before(found: Strategies, earlier: AttributionStore | None) -> Strategies:
    """The strategies with the names of those of an earlier night that are alike; others get letters that it did not use."""
    if earlier is None or not earlier.has_clusters:
        return found
    classes, heat = earlier.column("clusters/class"), earlier.column("clusters/mean_heat")
    renamed = list[Strategy]()
    for prediction in dict.fromkeys(each.prediction for each in found.found):
        own = [each for each in found.found if each.prediction == prediction]
        before = np.flatnonzero(classes == prediction)
        names = [earlier.cluster_names[number] for number in before]
        renamed += _renamed(own, heat[before], names, prediction)
    return replace(found, found=tuple(renamed))


def _renamed(own: Sequence[Strategy], heat: NDArray, names: Sequence[str], prediction: int) -> list[Strategy]:
    kept = dict[int, str]()
    if len(names) and heat.shape[1:] == own[0].mean_heat.shape:
        alike = _cosines(np.stack([each.mean_heat for each in own]), heat)
        for one, other in zip(*linear_sum_assignment(-alike), strict=True):
            if alike[one, other] >= LEAST_LIKENESS:
                kept[int(one)] = names[other]
    # A letter that meant another strategy last night means none tonight.
    taken = {*names}
    free = (name for k in range(len(own) + len(taken)) if (name := f"{prediction}{letters(k)}") not in taken)
    return [replace(each, name=kept[k] if k in kept else next(free)) for k, each in enumerate(own)]


def _cosines(one: NDArray, other: NDArray) -> NDArray[np.float64]:
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (one, other)]
    norms = [np.maximum(np.linalg.norm(each, axis=1), 1e-12) for each in flat]
    return flat[0] @ flat[1].T / np.outer(*norms)
