"""The floor of drift, what is an alarm beside it, and which stores are of the same images."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, PART_ROWS, example_arrays, write_parts
from storage import open_store, part_path, seal_store, write_part
from tasks.config import AlertConfig
from tasks.worth.drift.drift_floor import (
    LEAST_NIGHTS,
    ClassChange,
    NetworkPair,
    ReferenceFloor,
    chart_floor,
)
from tasks.worth.drift.night_drift import NO_FLOOR, DriftFloor, NightDrift, drift_tables
from tasks.worth.drift.reference_networks import floor_rows
from tasks.worth.drift.store_drift import OtherImages, compare_stores
from tasks.worth.worth_warnings import find_drift_warnings


def change(share: float) -> ClassChange:
    return ClassChange(n_rows=40, share=share, cell=(1, 2), energy=0.1)


def reference(*shares: tuple[int, int, dict[int, float]]) -> ReferenceFloor:
    """Networks of the seeds that are named, and what changed between each two of them, by class."""
    seeds = tuple(sorted({seed for a, b, _ in shares for seed in (a, b)}))
    pairs = tuple(
        NetworkPair(seeds=(a, b), changes={number: change(share) for number, share in of_class.items()})
        for a, b, of_class in shares
    )
    return ReferenceFloor(seeds=seeds, accuracies=(0.9,) * len(seeds), n_rows=360, pairs=pairs)


def night_drift(changes: dict[int, float], floor: DriftFloor) -> NightDrift:
    return NightDrift(
        compared_with="before",
        n_rows=100,
        n_changed=3,
        flows=((0, 1, 3),),
        likeness=0.4,
        moved_most=(5,),
        changes={number: change(share) for number, share in changes.items()},
        notes={},
        floor=floor,
    )


THREE = reference((7, 8, {0: 0.02, 1: 0.04}), (7, 9, {0: 0.06, 1: 0.03}), (8, 9, {0: 0.03}))
SIX = {(a, b): 0.01 * (a + b) for a, b in combinations(range(4), 2)}


def test_the_floor_of_a_class_is_its_largest_change_between_two_networks_and_at_least_the_median() -> None:
    assert THREE.shares == {0: 0.06, 1: pytest.approx(0.05)}


def test_each_network_left_out_is_judged_beside_the_others() -> None:
    four = reference(*((a, b, {0: share}) for (a, b), share in SIX.items()))
    # Without network 3: 0.05 of the pair 2, 3, beside 0.03 of the pair 1, 2.
    assert four.left_out == pytest.approx(5 / 3)
    assert THREE.left_out is None  # two networks are no floor
    apart = reference(*((a, b, {number: 0.1}) for number, (a, b) in enumerate(SIX)))
    assert apart.left_out is None


def test_a_chart_needs_enough_nights_of_a_class() -> None:
    nights = [{0: change(0.01 * k), 1: change(0.5)} for k in range(1, LEAST_NIGHTS)]
    assert chart_floor(nights) == {}
    middle = (0.01 * (LEAST_NIGHTS - 1) + 0.5) / 2
    assert chart_floor([*nights, {0: change(0.001)}]) == {0: pytest.approx(middle)}


@pytest.mark.parametrize(
    ("n_test", "n_classes", "expected"), [(360, 10, 360), (10_000, 10, 2_000), (10_000, 100, 10_000)]
)
def test_reference_networks_explain_rows_from_the_whole_split(n_test: int, n_classes: int, expected: int) -> None:
    rows = floor_rows(n_test, n_classes)
    assert len(rows) == expected
    assert (rows[0], rows[-1]) == (0, n_test - 1)
    assert (np.diff(rows) > 0).all()


FLOOR = DriftFloor(about="a floor", shares={0: 0.06, 1: 0.05})


@pytest.mark.parametrize(
    ("changes", "left_out", "setting", "named"),
    [
        ({0: 0.06, 1: 0.05}, None, 1.5, []),  # as much as chance
        ({0: 0.06 * 3.1, 1: 0.05}, None, 1.5, ["cat 3.10"]),
        ({0: 0.06 * 3.1, 1: 0.05 * 5}, None, 1.5, ["dog 5.00", "cat 3.10"]),
        ({0: 0.06 * 2.9}, 3.0, 1.5, []),  # a network as good as the others showed 3 times as much
        ({0: 0.06 * 3.1}, 3.0, 1.5, ["cat 3.10"]),
        ({0: 0.06 * 3.1}, None, 3.5, []),
        ({0: 0.06 * 99}, None, 0, []),
        ({2: 99.0}, None, 1.5, []),  # a class without a floor
    ],
)
def test_more_than_the_floor_is_an_alarm(
    changes: dict[int, float], left_out: float | None, setting: float, named: list[str]
) -> None:
    drift = night_drift(changes, FLOOR.model_copy(update={"left_out": left_out}))
    warnings = [*find_drift_warnings(drift, AlertConfig(reasons_changed=setting), CLASS_NAMES)]
    assert len(warnings) == bool(named)
    for warning in warnings:
        assert warning.kind == "reasons-changed"
        places = [warning.message.index(f"{name} times its floor") for name in named]
        assert places == sorted(places)
        assert warning.value == max(drift.ratios.values())


def test_without_a_floor_nothing_is_an_alarm_and_it_is_said() -> None:
    for floor in (DriftFloor(), DriftFloor.of_nights([{0: change(0.1)}])):
        assert [*find_drift_warnings(night_drift({0: 99.0}, floor), AlertConfig(), CLASS_NAMES)] == []
        assert NO_FLOOR in floor.about
    assert "1 so far" in DriftFloor.of_nights([{0: change(0.1)}]).about


def test_what_a_night_records_is_read_again() -> None:
    drift = night_drift({0: 0.2, 1: 0.1}, DriftFloor.of_references(THREE))
    assert NightDrift.model_validate(drift.model_dump(mode="json")) == drift
    assert NightDrift.model_validate_json(drift.model_dump_json()).ratios == drift.ratios


# Two stores.


def sealed(folder: Path, rows: range, *, sha256: str = "5e1f", one_pixel_off: bool = False) -> Path:
    parts = write_parts(folder / "parts", rows.start, rows.stop)
    if one_pixel_off:
        first = rows.stop - PART_ROWS
        arrays = example_arrays(first, rows.stop)
        arrays["image"][-1, -1, -1, -1] ^= 1
        parts[-1] = part_path(folder / "off", first, rows.stop)
        write_part(parts[-1], first, rows.stop, arrays, digest=DIGEST, part_rows=PART_ROWS)
    about = ATTRIBUTES | {"dataset_sha256": sha256, "run_id": folder.name}
    seal_store(folder / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=about)
    return folder / "attributions.h5"


def test_a_dataset_with_other_training_images_is_compared_by_its_test_images(tmp_path: Path) -> None:
    before = sealed(tmp_path / "a", range(100, 228))
    after = sealed(tmp_path / "b", range(100, 228), sha256="0ther")
    with open_store(before) as one, open_store(after) as other:
        found = compare_stores(one, other)
    assert len(found.rows) == len(found.stayed) == 128
    np.testing.assert_allclose(found.likeness, 1, rtol=1e-6)


def test_the_table_of_drift_has_each_row_at_its_place(tmp_path: Path) -> None:
    before, after = sealed(tmp_path / "a", range(100, 164)), sealed(tmp_path / "b", range(100, 228))
    with open_store(before) as one, open_store(after) as other:
        tables = drift_tables(compare_stores(one, other), other.row_numbers, len(CLASS_NAMES))
        np.testing.assert_array_equal(tables["drift/prediction_before"][:64], one.predictions)
    assert (tables["drift/prediction_before"][64:] == -1).all()
    assert (tables["drift/likeness"][64:] == 0).all()


@pytest.mark.parametrize("rows", [range(100, 228), range(300, 428)], ids=["other images", "other rows"])
def test_stores_of_other_images_are_refused_with_what_they_are(tmp_path: Path, rows: range) -> None:
    before = sealed(tmp_path / "a", range(100, 228))
    after = sealed(tmp_path / "b", rows, sha256="0ther", one_pixel_off=rows.start == 100)
    expected = (
        "5e1f in .*a.attributions.h5, .*0ther in .*b.attributions.h5" if rows.start == 100 else "100 to 227 and 300 to"
    )
    with open_store(before) as one, open_store(after) as other, pytest.raises(OtherImages, match=expected):
        compare_stores(one, other)
