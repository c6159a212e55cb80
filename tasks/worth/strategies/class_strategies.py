"""Strategies: for each predicted class the clusters of its explanations, and whether the region of one alone makes the class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore
from storage.read.row_means import block_rows
from tasks.numerics.worth.strategies import (
    LEAST_ROWS,
    candidate_regions,
    cluster,
    grown,
    medoids,
    pooled,
    unit,
)
from tasks.numerics.worth.transplant import PASTED, Classes, transplant
from tasks.worth.strategies.shortcuts import LARGEST_REGION

__all__ = ["N_MEDOIDS", "Strategies", "Strategy", "find_strategies", "letters", "pooled_heat"]

N_MEDOIDS, N_SHOWN = 4, 4
MOST_CLASSES = 100  # beyond, the largest are looked at
LEAST_PASTED = 8
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Strategy:
    """name: the class's number and a letter. rows: its row numbers. medoids: the most like its mean, N_MEDOIDS of them.

    mean_heat, region: (cell_y, cell_x). region_share: of the pixels. score, control: of the transplant, 0 without a region.
    pasted: row numbers (member, host) of some transplants that became the class.
    """

    name: str
    prediction: int
    rows: NDArray[np.int64]
    medoids: NDArray[np.int64]
    mean_heat: NDArray[np.float64]
    region: NDArray[np.bool_]
    region_share: float
    share_wrong: float
    score: float
    control: float
    pasted: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Strategies:
    """found: by predicted class, the largest of each first. notes: why a class has none, by its number."""

    found: tuple[Strategy, ...]
    notes: Mapping[int, str]

    def tables(self, row_numbers: NDArray[np.int64]) -> dict[str, NDArray]:
        """The table /clusters of the store by path; nothing where nothing was found."""
        if not self.found:
            return {}
        of_row = np.full(len(row_numbers), -1)
        for number, each in enumerate(self.found):
            of_row[np.searchsorted(row_numbers, each.rows)] = number
        columns: dict[str, Sequence | NDArray] = {
            "name": np.array([each.name for each in self.found], dtype=object),
            "class": [each.prediction for each in self.found],
            "n_rows": [len(each.rows) for each in self.found],
            "share_wrong": [each.share_wrong for each in self.found],
            "transplant_score": [each.score for each in self.found],
            "transplant_control": [each.control for each in self.found],
            "region_share": [each.region_share for each in self.found],
            "region": np.stack([each.region for each in self.found]),
            "mean_heat": np.stack([each.mean_heat for each in self.found]),
            "medoid_row": np.stack([each.medoids for each in self.found]),
            "of_row": of_row,
        }
        return {f"clusters/{name}": np.asarray(values) for name, values in columns.items()}


def pooled_heat(store: AttributionStore, on_progress: Callable[[float], object] = lambda share: None) -> NDArray:
    """Attributions of the predicted class, pooled, signed, of unit norm, of every row: (row, cell_y, cell_x)."""
    rows, shape = store.row_numbers, store.image_shape
    step, heat = block_rows(shape, 4), list[NDArray]()
    for start in range(0, len(rows), step):
        block = store.attributions(rows[start : start + step], "predicted")
        heat.append(unit(pooled(block.sum(axis=-1))))
        on_progress(min(1.0, (start + step) / len(rows)))
    return np.concatenate(heat)


def find_strategies(
    store: AttributionStore,
    heat: NDArray[np.float64],
    classes: Classes,
    on_progress: Callable[[float], object] = lambda share: None,
) -> Strategies:
    """The strategies of every predicted class. heat: of `pooled_heat`. classes: what the model calls images in 0..1."""
    predictions, found, notes = store.predictions, list[Strategy](), dict[int, str]()
    present, counts = np.unique(predictions, return_counts=True)
    looked_at = np.sort(present[np.argsort(-counts, kind="stable")[:MOST_CLASSES]])
    for prediction in range(len(store.class_names)):
        if prediction not in present:
            notes[prediction] = "no row is called it"
        elif prediction not in looked_at:
            notes[prediction] = f"not looked at: only the {MOST_CLASSES} classes with the most rows are"
    for k, prediction in enumerate(looked_at):
        of_class = np.flatnonzero(predictions == prediction)
        labels = _clusters(heat[of_class])
        if labels.max(initial=-1) < 0:
            enough = len(of_class) >= LEAST_ROWS
            notes[int(prediction)] = (
                "too few of its rows have attributions other than 0"
                if enough
                else f"too few rows: {len(of_class)}, {LEAST_ROWS} are needed"
            )
        for number in range(labels.max(initial=-1) + 1):
            name = f"{prediction}{letters(number)}"
            found.append(_strategy(store, heat, classes, of_class, labels == number, name))
        on_progress((k + 1) / len(looked_at))
    return Strategies(tuple(found), notes)


def _clusters(heat: NDArray[np.float64]) -> NDArray[np.int64]:
    """As of `cluster`; a class whose explanations form no clusters is one: all its rows may have the same shortcut."""
    labels, there = cluster(heat), heat.any(axis=(1, 2))
    if labels.max(initial=-1) < 0 and there.sum() >= LEAST_ROWS:
        return np.where(there, 0, -1)
    return labels


def letters(number: int) -> str:
    """a to z, aa to zz, and so on, counted from 0."""
    return (
        LETTERS[number]
        if number < len(LETTERS)
        else letters(number // len(LETTERS) - 1) + LETTERS[number % len(LETTERS)]
    )


def _strategy(
    store: AttributionStore,
    heat: NDArray[np.float64],
    classes: Classes,
    of_class: NDArray[np.int64],
    inside: NDArray[np.bool_],
    name: str,
) -> Strategy:
    """of_class: positions of the rows that are called the class. inside: which of them are in the cluster."""
    members, others = of_class[inside], of_class[~inside]
    prediction = int(store.predictions[of_class[0]])
    hosts = np.flatnonzero(store.predictions != prediction)
    choose, judge = (_drawn(store, heat, members, hosts, draw) for draw in range(2))
    cells = _region(store, classes, heat[of_class], inside, choose, prediction)
    # By other images than those by which the region was chosen.
    score, pasted = _pasted(classes, judge, cells, prediction)
    control, _ = _pasted(classes, _drawn(store, heat, others, hosts, draw=1), cells, prediction)
    likest = of_class[medoids(heat[of_class], inside, N_MEDOIDS)]
    wrong = store.labels[members] != store.predictions[members]
    return Strategy(
        name=name,
        prediction=prediction,
        rows=store.row_numbers[members],
        medoids=store.row_numbers[likest],
        mean_heat=heat[members].mean(axis=0),
        region=cells,
        region_share=float(grown(cells, store.image_shape[:2]).mean()),
        share_wrong=float(wrong.mean()),
        score=score,
        control=control,
        pasted=pasted,
    )


@dataclass(frozen=True)
class _Drawn:
    """Images in 0..1 to paste from, the first n, and into; rows: their row numbers. heat: of those to paste from."""

    images: NDArray[np.float32]
    rows: NDArray[np.int64]
    heat: NDArray[np.float64]
    n: int


def _drawn(
    store: AttributionStore, heat: NDArray[np.float64], members: NDArray[np.int64], hosts: NDArray[np.int64], draw: int
) -> _Drawn:
    """Some of each by chance, of the members twice as many. members, hosts: positions. draw: another one draws others, where
    there are enough.
    """
    rng = np.random.default_rng(0)
    some = [np.roll(rng.permutation(each), -draw * n)[:n] for each, n in ((members, 2 * PASTED), (hosts, PASTED))]
    rows = store.row_numbers[np.concatenate(some)]
    return _Drawn(store.image[rows].astype(np.float32) / 255, rows, heat[some[0]], len(some[0]))


def _region(
    store: AttributionStore,
    classes: Classes,
    heat: NDArray[np.float64],
    inside: NDArray[np.bool_],
    drawn: _Drawn,
    prediction: int,
) -> NDArray[np.bool_]:
    """The small candidate that makes the class in most images, the smallest of equals; where all are large, the first.

    heat: of the class.
    """
    candidates, shape, best = candidate_regions(heat, inside), store.image_shape[:2], -1.0
    cells = candidates[0] if candidates else np.zeros(heat.shape[1:], bool)
    small = [each for each in candidates if grown(each, shape).mean() <= LARGEST_REGION]
    for candidate in sorted(small, key=np.sum):
        score, _ = _pasted(classes, drawn, candidate, prediction)
        if score > best:
            best, cells = score, candidate
    return cells


def _pasted(
    classes: Classes, drawn: _Drawn, cells: NDArray[np.bool_], prediction: int
) -> tuple[float, tuple[tuple[int, int], ...]]:
    """Score, and row numbers of some transplants that became the class; 0 where there is nothing to paste, or into.

    Pasted is from that half of the members whose explanations lie most in the region: others may be called the class for
    another reason.
    """
    relying = np.argsort(-drawn.heat[:, cells].sum(axis=1), kind="stable")[: max(LEAST_PASTED, (drawn.n + 1) // 2)]
    hosts, region = np.arange(drawn.n, len(drawn.rows)), grown(cells, drawn.images.shape[1:3])
    rng = np.random.default_rng(prediction)
    done = transplant(classes, drawn.images, relying, hosts, region, prediction, rng)
    if done is None:
        return 0.0, ()
    changed = np.flatnonzero(done.changed)[:N_SHOWN]
    pairs = tuple((int(drawn.rows[done.members[k]]), int(drawn.rows[done.hosts[k]])) for k in changed)
    return done.score, pairs
