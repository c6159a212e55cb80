"""Strategies in a store: sealed, listed, read by name, verified; and drafts, in which they are looked for."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, flip_byte, joined_arrays, seal, write_parts
from storage import StoreCorrupt, open_store, seal_store, verify_store
from storage.file.added_tables import CLUSTERS
from storage.file.schema_listing import ONLY_WITH_CLUSTERS, ONLY_WITH_DRIFT
from storage.write.draft import drafted

ROWS = range(100, 228)
NAMES = ["0a", "0b", "2a"]


def clusters() -> dict[str, np.ndarray]:
    """Three clusters over the example's rows; of_row and n_rows agree."""
    rng = np.random.default_rng(3)
    of_row = rng.integers(-1, 3, len(ROWS))
    return {
        "clusters/name": np.array(NAMES, dtype=object),
        "clusters/class": np.array([0, 0, 2]),
        "clusters/n_rows": np.bincount(of_row[of_row >= 0], minlength=3),
        "clusters/share_wrong": rng.random(3),
        "clusters/transplant_score": np.array([0.75, 0.0, 0.25]),
        "clusters/transplant_control": rng.random(3),
        "clusters/region_share": rng.random(3),
        "clusters/region": rng.random((3, 8, 6)) < 0.2,
        "clusters/mean_heat": rng.normal(size=(3, 8, 6)),
        "clusters/medoid_row": rng.choice(ROWS, (3, 4)),
        "clusters/of_row": of_row,
    }


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path / "parts" / "d1935c", ROWS.start, ROWS.stop)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "night" / "attributions.h5"


@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_clusters_are_read_as_they_were_sealed(parts, path, layout):
    tables = clusters()
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=tables, layout=layout)
    assert verify_store(path) == ()
    with open_store(path) as store:
        for name, values in tables.items():
            if name != "clusters/name":
                np.testing.assert_array_equal(store.column(name), values.astype(store.column(name).dtype))
        table = store.clusters()
        assert table["name"].tolist() == NAMES
        assert table["class_name"].tolist() == [CLASS_NAMES[0], CLASS_NAMES[0], CLASS_NAMES[2]]
        assert table["transplant_score"].tolist() == [0.75, 0.0, 0.25]
        for number, name in enumerate(NAMES):
            chosen = store.row_numbers[tables["clusters/of_row"] == number]
            np.testing.assert_array_equal(store.rows(cluster=name), chosen)
            np.testing.assert_array_equal(store.rows(cluster=number), chosen)
        named = store.table()["cluster"]
        assert named[ROWS.start] == [*NAMES, ""][tables["clusters/of_row"][0]]
        with pytest.raises(ValueError, match=r"unknown cluster '9z'; the clusters are \{0: '0a', 1: '0b', 2: '2a'\}"):
            store.rows(cluster="9z")


def test_a_store_without_clusters_says_so(parts, path):
    seal(path, parts)
    with open_store(path) as store:
        assert store.clusters().empty
        assert (store.table()["cluster"] == "").all()
        with pytest.raises(ValueError, match="nothing of it was found, or looked for"):
            store.rows(cluster="0a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("clusters/region"), "missing: .'clusters/region'."),
        (lambda t: t.update({"clusters/mood": np.zeros(3)}), "unknown: .'clusters/mood'."),
        (lambda t: t.update({"clusters/share_wrong": np.array([0, np.nan, 1])}), "share_wrong: expected finite"),
        (lambda t: t.update({"clusters/n_rows": np.array([1.0, 2, 3])}), "n_rows: expected int64, got float64"),
        (lambda t: t.update({"clusters/of_row": np.zeros(5, int)}), "of_row: expected 128 along row, got 5"),
        (lambda t: t.update({"clusters/region": np.zeros((3, 8, 7), bool)}), "along clusters/cell_x, got"),
        (lambda t: t.update({"clusters/region": np.zeros((3, 8), bool)}), "region: expected the axes"),
        (lambda t: t.update({"clusters/class": np.array([0, 0, 2**80], dtype=object)}), "class: expected int64"),
    ],
)
def test_tables_that_must_not_be_sealed_leave_nothing(parts, path, change, message):
    tables = clusters()
    change(tables)
    with pytest.raises(ValueError, match=message):
        seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=tables)
    assert not path.parent.exists() or not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda f: f["clusters/of_row"].__setitem__(0, 3), "not in -1..2"),
        (lambda f: f["clusters/n_rows"].__setitem__(1, 999), "as of_row says, got 999"),
        (lambda f: f["clusters/mean_heat"].__setitem__((0, 0, 0), np.nan), "not finite"),
        (lambda f: f.__delitem__("clusters/region"), "the dataset is missing"),
        (lambda f: f["clusters"].create_dataset("more", data=np.zeros(2)), "clusters/more"),
    ],
)
def test_verify_names_what_is_wrong_with_clusters(parts, path, spoil, finding):
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=clusters())
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        spoil(file)
    assert any(finding in str(each) for each in verify_store(path) if each.check != "sha256")


def test_every_dataset_of_the_table_is_laid_out_with_its_axes_and_texts(parts, path):
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=clusters())
    with h5py.File(path) as file:
        assert set(file["clusters"]) == {variable.name for variable in CLUSTERS.variables}
        for variable in CLUSTERS.variables:
            dataset = file[variable.path]
            assert dataset.attrs["description"].decode() == variable.description
            assert dataset.fletcher32
            if not variable.is_coordinate:
                assert [axis[0].name for axis in dataset.dims] == [f"/{scale}" for scale in variable.scales]


def test_the_table_is_what_the_listing_says(parts, path):
    from test_storage_listing import GOLDEN, listed

    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=clusters())
    with h5py.File(path) as file:
        found = listed(file, within="/clusters")
    expected = GOLDEN.read_text().partition(ONLY_WITH_CLUSTERS)[2].partition(f"\n{ONLY_WITH_DRIFT}")[0]
    assert found.partition("\n\ngroup")[2] == expected.partition("\n\ngroup")[2]


# Drafts.


def test_a_draft_is_a_store_of_the_parts_and_goes(parts):
    before = {part: part.read_bytes() for part in parts}
    with drafted(parts, "night", class_names=CLASS_NAMES, expected_rows=(ROWS.start, ROWS.stop)) as draft:
        with open_store(draft) as store:
            expected = joined_arrays(ROWS.start, ROWS.stop)
            np.testing.assert_array_equal(store.image[:], expected["image"])
            np.testing.assert_array_equal(store.predictions, expected["prediction"])
            np.testing.assert_array_equal(store.attributions(...), expected["integrated_gradients/attribution"])
            wrong = store.rows(correct=False)
            np.testing.assert_array_equal(
                store.attributions(wrong, "predicted"), expected["integrated_gradients/predicted/attribution"]
            )
        assert draft.stat().st_size < sum(len(data) for data in before.values()) / 4
    assert not draft.exists()
    assert {part: part.read_bytes() for part in parts} == before


def test_a_draft_goes_where_what_looks_at_it_fails(parts):
    with (
        pytest.raises(ZeroDivisionError),
        drafted(parts, "night", class_names=CLASS_NAMES, expected_rows=(ROWS.start, ROWS.stop)) as draft,
    ):
        raise ZeroDivisionError
    assert not draft.exists()


def test_a_damaged_part_is_named_before_anything_is_drafted(parts):
    data = parts[0].read_bytes()
    flip_byte(parts[0], len(data) // 2)
    with (
        pytest.raises(StoreCorrupt, match=parts[0].name),
        drafted(parts, "night", class_names=CLASS_NAMES, expected_rows=(ROWS.start, ROWS.stop)),
    ):
        pytest.fail("a draft of damaged parts")
    assert not list(parts[0].parent.parent.glob("*.draft.h5"))


def test_two_nights_draft_the_same_parts_beside_each_other(parts):
    expected = {"class_names": CLASS_NAMES, "expected_rows": (ROWS.start, ROWS.stop)}
    with drafted(parts, "one", **expected) as one, drafted(parts, "other", **expected) as other:
        assert one != other
        with open_store(one) as a, open_store(other) as b:
            np.testing.assert_array_equal(a.image[:], b.image[:])


def test_the_recorded_worth_is_json(parts, path):
    seal(path, parts, worth={"controls": {"n_rows": 3}})
    with open_store(path) as store:
        assert store.attributes["worth"] == {"controls": {"n_rows": 3}}
    with h5py.File(path) as file:
        assert json.loads(file.attrs["worth"]) == {"controls": {"n_rows": 3}}
