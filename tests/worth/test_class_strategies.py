"""Strategies of a store whose rows and whose classifier are known."""

from pathlib import Path

import numpy as np
import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, example_arrays
from storage import open_store, part_path, seal_store, write_part
from tasks.worth.strategies.class_strategies import Strategies, find_strategies, pooled_heat
from tasks.worth.strategies.shortcuts import LARGEST_REGION

N_ROWS, SIDE = 240, 24
MARK = (slice(18, 22), slice(3, 7))  # 2.8 % of the pixels
CENTRE = (slice(19, 21), slice(4, 6))  # of the mark, on which the explanations lie
DARK, BRIGHT = 40, 250


def of_the_mark(images: np.ndarray) -> np.ndarray:
    """Calls an image 1 where its mark is bright, else 0: its centre alone is not enough."""
    return (images[(slice(None), *MARK)].mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)


def strategies(folder: Path, share_marked: float) -> Strategies:
    """Of a night on dark images. Rows 1, 3, 5 and so on are called class 1, and of them that share has the mark."""
    rng = np.random.default_rng(0)
    arrays = example_arrays(0, N_ROWS, n_wrong=0, side=SIDE)
    called = np.arange(N_ROWS) % 2
    marked = (called == 1) & (rng.random(N_ROWS) < share_marked)
    arrays["image"] = rng.integers(0, DARK, arrays["image"].shape).astype(np.uint8)
    arrays["image"][(marked, *MARK)] = BRIGHT
    arrays["label"] = arrays["prediction"] = called
    arrays["probability"] = np.eye(3, dtype=np.float32)[called]
    attribution = rng.normal(0, 1, (N_ROWS, SIDE, SIDE, 3)).astype(np.float32)
    attribution[(marked, *CENTRE)] += 30
    arrays["integrated_gradients/attribution"] = attribution
    path = part_path(folder / "parts", 0, N_ROWS)
    write_part(path, 0, N_ROWS, arrays, digest=DIGEST, part_rows=N_ROWS)
    seal_store(folder / "attributions.h5", [path], class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    with open_store(folder / "attributions.h5") as store:
        return find_strategies(store, pooled_heat(store), of_the_mark)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_mark_is_found_whether_some_or_all_of_the_class_have_it(tmp_path: Path, share: float) -> None:
    found = strategies(tmp_path, share)
    best = max((each for each in found.found if each.prediction == 1), key=lambda each: each.score)
    assert best.score == 1.0
    assert best.region_share <= LARGEST_REGION
    assert len(best.rows) == pytest.approx(share * N_ROWS / 2, rel=0.1)
    assert (best.rows % 2 == 1).all()
    assert all(member % 2 == 1 and host % 2 == 0 for member, host in best.pasted)
    assert best.control == 0


def test_without_a_mark_no_region_makes_the_class(tmp_path: Path) -> None:
    found = strategies(tmp_path, 0.0)
    assert {each.prediction for each in found.found} == {0, 1}
    assert all(each.score == each.control == 0 for each in found.found if each.prediction == 1)
    assert found.notes == {2: "no row is called it"}
