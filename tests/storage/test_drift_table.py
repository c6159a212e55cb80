"""What changed since the last model, in a store: sealed, read by row, verified."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, seal, write_parts
from storage import open_store, seal_store, verify_store

ROWS = range(100, 228)
UNKNOWN = 5  # the last rows, which the other night does not have


def changes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    before, alike = rng.integers(0, 3, len(ROWS)), rng.uniform(-1, 1, len(ROWS)).astype(np.float32)
    before[-UNKNOWN:], alike[-UNKNOWN:] = -1, 0
    shares = {f"drift/{name}": rng.random((3, 8, 8), np.float32) for name in ("mean_share_before", "mean_share")}
    return {"drift/prediction_before": before, "drift/likeness": alike, **shares}


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path / "parts" / "d1935c", ROWS.start, ROWS.stop)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "night" / "attributions.h5"


@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_changes_are_read_as_they_were_sealed(parts, path, layout):
    tables = changes()
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=tables, layout=layout)
    assert verify_store(path) == ()
    with open_store(path) as store:
        for name, values in tables.items():
            np.testing.assert_array_equal(store.column(name), values)
        table = store.table()
        known = slice(None, -UNKNOWN)
        names = [CLASS_NAMES[number] for number in tables["drift/prediction_before"][known]]
        assert table["prediction_before"].tolist() == [*names, *[""] * UNKNOWN]
        np.testing.assert_array_equal(table["likeness"].to_numpy()[known], tables["drift/likeness"][known])
        assert table["likeness"][-UNKNOWN:].isna().all()
        chosen = store.row_numbers[known][tables["drift/likeness"][known] <= 0.25]
        np.testing.assert_array_equal(store.rows(max_likeness=0.25), chosen)


def test_a_store_without_changes_says_so(parts, path):
    seal(path, parts)
    with open_store(path) as store:
        assert (store.table()["prediction_before"] == "").all()
        assert store.table()["likeness"].isna().all()
        assert len(store.rows(max_likeness=1)) == 0


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda f: f["drift/prediction_before"].__setitem__(0, 3), "not in -1..2"),
        (lambda f: f["drift/prediction_before"].__setitem__(0, -2), "values below -1"),
        (lambda f: f["drift/likeness"].__setitem__(0, 1.5), "no cosine"),
        (lambda f: f["drift/likeness"].__setitem__(0, np.nan), "not finite"),
        (lambda f: f.__delitem__("drift/likeness"), "the dataset is missing"),
    ],
)
def test_verify_names_what_is_wrong_with_changes(parts, path, spoil, finding):
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=changes())
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        spoil(file)
    assert any(finding in str(each) for each in verify_store(path) if each.check != "sha256")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("drift/likeness"), "missing: .'drift/likeness'."),
        (lambda t: t.update({"drift/mean_share": np.zeros((2, 8, 8))}), "expected 3 along class, got 2"),
    ],
)
def test_what_is_no_whole_table_of_the_store_is_not_sealed(parts, path, change, message):
    tables = changes()
    change(tables)
    with pytest.raises(ValueError, match=message):
        seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=tables)
