"""`nightlens compare`: what it says of two stores of the same images, and that it refuses all others in one line."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from command import nightlens
from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, example_arrays
from hostile_texts import NASTY
from storage import part_path, seal_store, write_part

N_ROWS, MOVED = 128, 77
SAME = "the same model explained both"


def a_store(
    root: Path, start: int = 0, names: Sequence[str] = CLASS_NAMES, alter: Callable[[dict], None] | None = None, **about
) -> Path:
    """A sealed night of example rows from `start` on. alter: of their arrays. about: other attributes."""
    stop, arrays = start + N_ROWS, example_arrays(start, start + N_ROWS)
    if alter:
        alter(arrays)
    path = part_path(root / "parts" / DIGEST, start, stop)
    write_part(path, start, stop, arrays, digest=DIGEST, part_rows=N_ROWS)
    store = root / "nights" / ATTRIBUTES["run_id"] / "attributions.h5"
    seal_store(store, [path], class_names=names, attributes=ATTRIBUTES | about)
    return store


def turn_over(arrays: dict) -> None:
    """The reasons for one row against what they were."""
    for group, rows in (("", np.arange(N_ROWS)), ("predicted/", arrays["predicted_row"])):
        path = f"integrated_gradients/{group}attribution"
        arrays[path] = np.where((rows == MOVED)[:, None, None, None], -arrays[path], arrays[path])
    arrays["integrated_gradients/gap"] = np.where(
        np.arange(N_ROWS) == MOVED, np.float32(9), arrays["integrated_gradients/gap"]
    )


def renumbered(arrays: dict) -> None:
    """Of the rows that are called class 0 and are wrong, every one is called another wrong class."""
    wrong = arrays["predicted_row"]
    for row in wrong:
        was = arrays["prediction"][row]
        now = 3 - was - arrays["label"][row]
        arrays["prediction"][row] = now
        odds = arrays["probability"][row]
        odds[was], odds[now] = odds[now], odds[was]


def compared(*arguments: object) -> str:
    done = nightlens("compare", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout


def refused(folder: Path, before: Path, after: Path) -> str:
    """The one line with which it is refused, and nothing is written."""
    page = folder / "drift.html"
    done = nightlens("compare", before, after, "--to", page)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "nightlens: " in line
    assert not page.exists()
    assert not list(folder.glob("drift.html*"))
    return line


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return a_store(tmp_path / "one")


def test_stores_that_are_the_same_have_not_changed(store: Path) -> None:
    said = compared(store, store.parent)
    assert SAME in said
    assert f"{N_ROWS} rows, of which 0 changed their prediction" in said
    assert "reasons of the others: cosine 1.000 in the mean" in said
    moved = re.findall(r"^\S.{19} +\d+ +(\d\.\d{3}) +- +\d,\d +(\d\.\d{3})$", said, re.M)
    assert len(moved) == len(CLASS_NAMES) and set(moved) == {("0.000", "0.000")}


def test_the_row_whose_reasons_moved_is_named_on_the_screen_and_on_the_page(store: Path, tmp_path: Path) -> None:
    other = a_store(tmp_path / "other" / "root", alter=turn_over, model_sha256="beef", model_name="<b>other</b>")
    page = tmp_path / "drift.html"
    said = compared(store, other, "--to", page, "--rows", 3)
    assert SAME not in said
    assert f"{N_ROWS} rows, of which 0 changed their prediction" in said
    rows = re.search(r"^moved most: rows (.*)$", said, re.M).group(1).split(", ")
    assert (rows[0], len(rows)) == (str(MOVED), 3)
    html = page.read_text(encoding="utf-8")
    assert f"{', '.join(f'row {row}' for row in rows)}." in html
    assert "&lt;b&gt;other&lt;/b&gt;" in html and "<b>other" not in html
    assert html.count("data:image/png;base64,") == 1 + len(CLASS_NAMES)
    assert "src=" not in re.sub(r'src="data:image/png;base64,[A-Za-z0-9+/=]+"', "", html)


def test_changed_predictions_are_counted_by_what_became_of_them(store: Path, tmp_path: Path) -> None:
    said = compared(store, a_store(tmp_path / "other", alter=renumbered, model_sha256="beef"))
    arrays, after = example_arrays(0, N_ROWS), example_arrays(0, N_ROWS)
    renumbered(after)
    changed = np.flatnonzero(arrays["prediction"] != after["prediction"])
    assert f"of which {len(changed)} changed their prediction" in said
    pairs = [(arrays["prediction"][row], after["prediction"][row]) for row in changed]
    for was, now in set(pairs):
        assert re.search(rf"^ +{pairs.count((was, now))}  {CLASS_NAMES[was]} -> {CLASS_NAMES[now]}$", said, re.M)


def one_pixel_off(arrays: dict) -> None:
    arrays["image"][-1, -1, -1, -1] ^= 1


def test_other_images_are_refused_with_both_fingerprints(store: Path, tmp_path: Path) -> None:
    line = refused(tmp_path, store, a_store(tmp_path / "other", alter=one_pixel_off, dataset_sha256="0ddba11"))
    assert "same images" in line and "5e1f" in line and "0ddba11" in line


def test_other_images_of_another_split_are_refused(store: Path, tmp_path: Path) -> None:
    line = refused(tmp_path, store, a_store(tmp_path / "other", alter=one_pixel_off, dataset_split="validation"))
    assert "split test of" in line and "split validation of" in line


def test_the_same_images_of_a_dataset_with_other_training_images_are_compared(store: Path, tmp_path: Path) -> None:
    assert f"{N_ROWS} rows, of which 0" in compared(store, a_store(tmp_path / "other", dataset_sha256="0ddba11"))


def test_another_score_is_said_for_the_model_is_not_all_that_differs(store: Path, tmp_path: Path) -> None:
    other = a_store(tmp_path / "other", configuration={"explanation": {"score": "logit"}})
    assert "they explain another score, or from another baseline" in compared(store, other)
    assert "another score" not in compared(store, store.parent)


def test_other_classes_are_refused(store: Path, tmp_path: Path) -> None:
    line = refused(tmp_path, store, a_store(tmp_path / "other", names=["cat", "dog", "owl"]))
    assert "expected the same classes" in line and "owl" in line


def test_stores_without_a_row_in_common_are_refused(store: Path, tmp_path: Path) -> None:
    line = refused(tmp_path, store, a_store(tmp_path / "other", start=N_ROWS))
    assert f"0 to {N_ROWS - 1} and {N_ROWS} to {2 * N_ROWS - 1}" in line


def test_a_store_that_is_not_there_is_refused(store: Path, tmp_path: Path) -> None:
    assert "nowhere" in refused(tmp_path, store, tmp_path / "nowhere")


def test_rows_that_both_have_are_compared_and_classes_of_few_say_so(store: Path, tmp_path: Path) -> None:
    other = a_store(tmp_path / "other", start=N_ROWS - 20)
    said = compared(store, other)
    assert "20 rows, of which" in said
    assert len(re.findall(r"too few rows: \d+ called it by both, 30 are needed", said)) == len(CLASS_NAMES)


def test_names_of_classes_are_inert_on_the_page(tmp_path: Path) -> None:
    names = [NASTY["script"], NASTY["entity"], '"><img src=x onerror=alert(1)>']
    stores = [a_store(tmp_path / root, names=names) for root in ("one", "other")]
    page = tmp_path / "drift.html"
    compared(*stores, "--to", page)
    html = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in html and "&amp;lt;b&amp;gt;" in html
    assert not re.search(r"<script|<img src=x", html)
