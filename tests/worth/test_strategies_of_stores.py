"""Strategies of a store whose explanations are known: with their shortcut, without hosts to paste into, of too few rows."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, example_arrays
from storage import AttributionStore, open_store, part_path, seal_store, verify_store, write_part
from tasks.worth.strategies.class_strategies import Strategies, find_strategies, pooled_heat
from tasks.worth.strategies.shortcuts import find_shortcuts

SIDE, MARK = 24, (slice(3, 6), slice(18, 21))
MakeStore = Callable[..., AttributionStore]


@pytest.fixture
def store_of(tmp_path: Path) -> Iterator[MakeStore]:
    """Makes a store whose rows are called what is given, and rightly so; of the marked rows image and reasons are in the mark."""
    opened = list[AttributionStore]()

    def make(predictions: np.ndarray, marked: np.ndarray, tables=None, scale: float = 1.0) -> AttributionStore:
        n, rng = len(predictions), np.random.default_rng(0)
        arrays = example_arrays(0, n, n_wrong=0, side=SIDE)
        arrays["prediction"] = arrays["label"] = predictions
        arrays["probability"] = np.eye(3, dtype=np.float32)[predictions]
        arrays["image"] = rng.integers(0, 100, (n, SIDE, SIDE, 3), dtype=np.uint8)
        heat = rng.normal(0, 0.05, (n, SIDE, SIDE, 3))
        heat[:, 9:15, 9:15] += rng.normal(1, 0.1, (n, 1, 1, 1))
        heat[marked] *= 0.2
        heat[(marked, *MARK)] += 8
        arrays["image"][(marked, *MARK)] = 255
        own = {name: f"integrated_gradients/{name}" for name in ("attribution", "gap", "score", "score_baseline")}
        arrays[own["attribution"]] = (scale * heat).astype(np.float32)
        total = arrays[own["attribution"]].sum(axis=(1, 2, 3))
        arrays[own["gap"]] = total - (arrays[own["score"]] - arrays[own["score_baseline"]])
        folder = tmp_path / f"night{len(opened)}"
        part = part_path(folder / DIGEST, 0, n)
        write_part(part, 0, n, arrays, digest=DIGEST, part_rows=n)
        path = folder / "attributions.h5"
        seal_store(path, [part], class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=tables or {})
        opened.append(open_store(path))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def of_the_mark(images: np.ndarray) -> np.ndarray:
    """Calls an image 1 where its mark is bright, else 0."""
    return (images[(slice(None), *MARK)].mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)


def found_in(store: AttributionStore) -> Strategies:
    shares = list[float]()
    found = find_strategies(store, pooled_heat(store), of_the_mark, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    return found


def test_a_marked_strategy_makes_its_class_and_is_sealed_as_it_was_found(store_of: MakeStore) -> None:
    predictions = np.repeat([1, 0, 2], [120, 60, 20])
    marked = np.arange(200) < 60
    found = found_in(store_of(predictions, marked))
    (mark,) = (each for each in found.found if each.prediction == 1 and set(each.rows) == set(np.flatnonzero(marked)))
    assert (mark.score, mark.control, mark.share_wrong) == (1, 0, 0)
    assert mark.region_share <= 0.05
    assert all(predictions[member] == 1 != predictions[host] for member, host in mark.pasted)
    assert found.notes[2] == "too few rows: 20, 50 are needed"
    sealed = store_of(predictions, marked, found.tables(np.arange(200)))
    assert verify_store(sealed.path) == ()
    np.testing.assert_array_equal(sealed.rows(cluster=mark.name), mark.rows)
    (shortcut,) = find_shortcuts(sealed)
    assert (shortcut.name, shortcut.class_name, shortcut.score) == (mark.name, CLASS_NAMES[1], 1)
    assert find_shortcuts(sealed, 1.1) == []


def test_of_one_class_only_there_is_nothing_to_paste_into(store_of: MakeStore) -> None:
    found = found_in(store_of(np.ones(120, np.int64), np.arange(120) < 60))
    assert len(found.found) >= 2
    assert {(each.score, each.control, each.pasted) for each in found.found} == {(0, 0, ())}
    assert found.notes == {0: "no row is called it", 2: "no row is called it"}


@pytest.mark.parametrize(
    ("n", "note"), [(49, "too few rows: 49, 50 are needed"), (8, "too few rows: 8, 50 are needed")]
)
def test_of_too_few_rows_there_are_no_strategies_and_no_table(store_of: MakeStore, n: int, note: str) -> None:
    found = found_in(store_of(np.ones(n, np.int64), np.arange(n) < n // 2))
    assert found.found == ()
    assert found.notes[1] == note
    assert found.tables(np.arange(n)) == {}


def test_attributions_of_zero_form_no_clusters(store_of: MakeStore) -> None:
    found = found_in(store_of(np.ones(80, np.int64), np.arange(80) < 40, scale=0.0))
    assert found.found == ()
    assert found.notes[1] == "too few of its rows have attributions other than 0"
