"""Reference networks: the recipe of the night's model with other seeds, explained, and compared two by two."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from storage.read.row_means import block_rows
from tasks.datasets.prepared_rows import read_chosen
from tasks.models.loading import load_own_model
from tasks.models.registry import ModelRecord
from tasks.numerics.explainer import Explainer, in_float32
from tasks.numerics.worth.drift import Heat, change_of, heat_of
from tasks.parts.explained_rows import baselines_for
from tasks.parts.plan import Plan
from tasks.worth.drift.drift_floor import ClassChange, NetworkPair, ReferenceFloor

__all__ = ["floor_rows", "measure_floor"]

LEAST_ROWS, ROWS_A_CLASS = 2_000, 200


def floor_rows(n_test: int, n_classes: int) -> NDArray[np.int64]:
    """The rows of the test split that reference networks explain: evenly spread, enough for every class, or all of them."""
    n_rows = min(n_test, max(LEAST_ROWS, ROWS_A_CLASS * n_classes))
    return np.unique(np.linspace(0, n_test - 1, n_rows).astype(np.int64))


def measure_floor(
    plan: Plan, records: Iterable[ModelRecord], seeds: Sequence[int], on_progress: Callable[[float], object]
) -> ReferenceFloor:
    """The floor among these networks, each with its seed, explained by the plan's settings for what they predict."""
    rows = floor_rows(plan.dataset.n_test, plan.dataset.n_classes)
    seen, accuracies = list[tuple[NDArray[np.int64], Heat]](), list[float]()
    explainer: Explainer | None = None
    for k, record in enumerate(records):

        def of_all(share: float, n_done: int = k) -> None:
            on_progress((n_done + share) / len(seeds))

        # One recipe, one architecture: compiled once, for the weights of each.
        network = load_own_model(record.path, record.code)
        if explainer is None:
            explainer = Explainer(network, replace(in_float32(plan.settings()), layer=""))
        explainer.network.set_weights(network.get_weights())
        explainer.forget()
        predictions, labels, heat = _explained(plan, explainer, rows, of_all)
        seen.append((predictions, heat))
        accuracies.append(float((predictions == labels).mean()))
    return ReferenceFloor(
        seeds=tuple(seeds),
        accuracies=tuple(accuracies),
        n_rows=len(rows),
        pairs=tuple(
            NetworkPair(seeds=(seeds[a], seeds[b]), changes=_changes(seen[a], seen[b]))
            for a, b in combinations(range(len(seen)), 2)
        ),
    )


def _explained(
    plan: Plan, explainer: Explainer, rows: NDArray[np.int64], on_progress: Callable[[float], object]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Heat]:
    """Predictions, labels and heat of these rows of the test split."""
    step = block_rows(plan.dataset.shape, 16)
    found = list[tuple[NDArray, NDArray, Heat]]()
    for start in range(0, len(rows), step):
        pixels, labels = read_chosen(plan.dataset, "test", rows[start : start + step])
        images = pixels.astype(np.float32) / 255
        predictions = explainer.all_scores(images).argmax(axis=1)
        attributions = explainer.integrated_gradients(images, baselines_for(plan, images), predictions).attribution
        found.append((predictions, labels, heat_of(attributions.sum(axis=-1))))
        on_progress(min(1.0, (start + step) / len(rows)))
    predictions, labels, heats = zip(*found, strict=True)
    heat = Heat(np.concatenate([h.signed for h in heats]), np.concatenate([h.share for h in heats]))
    return np.concatenate(predictions), np.concatenate(labels), heat


def _changes(one: tuple[NDArray, Heat], other: tuple[NDArray, Heat]) -> dict[int, ClassChange]:
    """Of each class, over the rows that both call it, where these are enough."""
    found = dict[int, ClassChange]()
    for number in np.unique(one[0]):
        chosen = np.flatnonzero((one[0] == number) & (other[0] == number))
        change = change_of(one[1].of(chosen), other[1].of(chosen))
        if change is not None:
            found[int(number)] = ClassChange.of(change)
    return found
