"""The pages `worth` and `strategies`: no number without its controls, a reason where there is none, and foreign names inert."""

import re
from pathlib import Path

import numpy as np
import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, write_parts
from hostile_texts import NASTY, unescape
from storage import open_store, seal_store
from tasks.pages.page import Page, drawing
from tasks.pages.worth.drift_page import drift_page
from tasks.pages.worth.strategies_page import strategies_page
from tasks.pages.worth.worth_page import worth_page
from tasks.worth.assessment import Assessment, StrategyNotes
from tasks.worth.controls_table import CONTROLS, Sample, measure_controls
from tasks.worth.drift.drift_floor import ClassChange
from tasks.worth.drift.night_drift import DriftFloor, NightDrift
from tasks.worth.known.known_answers import Canary, Graft
from tasks.worth.known.sanity import Sanity

N_ROWS = 128
METHODS = ("Integrated Gradients", "Grad-CAM", "HiResCAM")
HOSTILE = [NASTY["script"], NASTY["pipe"], NASTY["image"]]
TOO_FEW = "too few rows: 12, 50 are needed"


def controls(n: int = 24):
    """Of a linear model, whose exact attribution the first method is; the others are noise."""
    rng = np.random.default_rng(0)
    weights, images = rng.normal(size=(2, 12, 12, 1)), rng.random((n, 12, 12, 1)).astype(np.float32)
    targets = np.arange(n) % 2
    exact = (weights[targets] * images).sum(axis=-1)
    relevance = {METHODS[0]: exact} | {name: rng.normal(size=exact.shape) for name in METHODS[1:]}
    sample = Sample(images, np.zeros_like(images), targets, relevance, rng)
    return measure_controls(lambda x, t: np.einsum("nyxc,nyxc->n", x, weights[t]), sample)


def clusters() -> dict[str, np.ndarray]:
    """Two strategies of class 0 and one of class 2."""
    rng = np.random.default_rng(3)
    of_row = rng.integers(-1, 3, N_ROWS)
    region = np.zeros((3, 8, 6), bool)
    region[:, 2, 3] = True
    return {
        "clusters/name": np.array(["0a", "0b", "2a"], dtype=object),
        "clusters/class": np.array([0, 0, 2]),
        "clusters/n_rows": np.bincount(of_row[of_row >= 0], minlength=3),
        "clusters/share_wrong": np.array([0.5, 0.0, 0.125]),
        "clusters/transplant_score": np.array([0.25, 0.0, 0.75]),
        "clusters/transplant_control": np.array([0.125, 0.0, 0.0625]),
        "clusters/region_share": np.array([0.02, 0.5, 0.03]),
        "clusters/region": region,
        "clusters/mean_heat": rng.normal(size=(3, 8, 6)),
        "clusters/medoid_row": rng.choice(N_ROWS, (3, 4)),
        "clusters/of_row": of_row,
    }


@pytest.fixture
def store_of(tmp_path: Path):
    opened = []

    def make(names=CLASS_NAMES, tables=None):
        path = tmp_path / f"night{len(opened)}" / "attributions.h5"
        parts = write_parts(path.parent / "parts", 0, N_ROWS)
        seal_store(path, parts, class_names=names, attributes=ATTRIBUTES, tables=tables or {})
        opened.append(open_store(path))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def rows_of(page: Page, first: str) -> list[list[str]]:
    """The cells of the lines of the table whose first columns are called so."""
    lines = page.markdown().split(f"| {first} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[unescape(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# Worth.


def test_every_number_of_a_method_is_beside_that_of_each_control(store_of) -> None:
    table = controls()
    page = worth_page(store_of(), Assessment(controls=table))
    lines = rows_of(page, "explanation")
    assert [line[0] for line in lines] == [*METHODS, *CONTROLS]
    assert [line[1] for line in lines] == ["method"] * 3 + ["control"] * 3
    for line, judged in zip(lines, table.judged, strict=True):
        assert line[2:] == [
            str(judged.metrics[name]) for name in ("relevance_gain", "mu_fidelity", "insertion", "deletion")
        ]
    verdicts = {(line[0], line[1], line[2]): line[4] for line in rows_of(page, "method | control")}
    assert {key[:2] for key in verdicts} == {(method, control) for method in METHODS for control in CONTROLS}
    assert {verdicts[(METHODS[0], control, "relevance gain")] for control in CONTROLS} == {"better"}
    assert "It does better than all of these controls" in page.markdown()
    assert "Means over 24 rows" in page.markdown()


def test_what_cannot_be_said_is_said_in_its_place(store_of) -> None:
    page = worth_page(store_of(), Assessment(controls=controls(5)))
    for line in rows_of(page, "explanation"):
        assert all("too few rows: defined in" in cell for cell in line[2:])
    assert {line[4] for line in rows_of(page, "method | control")} == {"cannot tell"}
    assert not re.search(r"\bnan\b|\bNone\b", page.markdown())


def test_a_night_that_measured_nothing_has_the_gain_of_its_rows(store_of) -> None:
    store = store_of()
    page = worth_page(store, Assessment())
    assert "was not measured" in page.markdown()
    lines = {line[0]: line for line in rows_of(page, "predicted class")}
    table = store.table()
    for number, name in enumerate(CLASS_NAMES):
        gains = table[table["prediction"] == number]["relevance_gain"]
        assert lines[name][1] == str(len(gains))
        assert float(lines[name][2]) == pytest.approx(gains.mean(), abs=1e-3)


def test_known_answers_are_shown_beside_what_is_right(store_of) -> None:
    found = Assessment(
        sanity=Sanity(medians=(), n_rows=3, note="too few rows: defined in 3 of 3, 8 are needed"),
        graft=Graft(error=2e-7),
        canary=Canary(mark={METHODS[0]: 0.81}, object={METHODS[0]: 0.04}, accuracy=(1.0, 0.9)),
    )
    sanity, graft, canary = rows_of(worth_page(store_of(), found), "check")
    assert sanity[:2] == ["random networks", "too few rows: defined in 3 of 3, 8 are needed"]
    assert graft[1] == "off by 2e-07 of the largest attribution"
    assert f"{METHODS[0]} 0.81 and 0.04" in canary[1]
    assert all(right for *_, right in (sanity, graft, canary))


def test_nights_are_drawn_from_two_on(store_of) -> None:
    store, worth = store_of(), {METHODS[0]: 0.1}
    with drawing(False):
        assert "Over nights" not in worth_page(store, Assessment(), [("one", worth)]).markdown()
        assert "Over nights" in worth_page(store, Assessment(), [("one", {}), ("two", worth)]).markdown()
    assert worth_page(store, Assessment(), [("one", {}), ("two", worth)]).markdown().count("data:image") == 2


# Strategies.


def test_strategies_have_their_numbers_and_their_control_the_likeliest_shortcut_first(store_of) -> None:
    store, notes = store_of(tables=clusters()), StrategyNotes(notes={1: TOO_FEW}, pasted={"2a": ((3, 5),)})
    page = strategies_page(store, Assessment(strategies=notes))
    text = page.markdown()
    headings = [unescape(line.removeprefix("## ")) for line in text.splitlines() if line.startswith("## ")]
    assert headings == [CLASS_NAMES[2], CLASS_NAMES[0]]
    assert rows_of(page, "strategy")[0][0] == "2a"
    assert rows_of(page, "strategy")[0][2:] == ["12.5%", "3.0% of the pixels", "75%", "6%"]
    assert text.count("data:image/png;base64,") == 2
    assert rows_of(page, "class") == [[CLASS_NAMES[1], TOO_FEW]]
    assert "75% of images that are called something else become" in unescape(text)


def test_a_night_without_strategies_says_why_for_each_class(store_of) -> None:
    notes = {0: "too few of its rows have attributions other than 0", 1: TOO_FEW, 2: "no row is called it"}
    page = strategies_page(store_of(), Assessment(strategies=StrategyNotes(notes=notes, pasted={})))
    assert rows_of(page, "class") == [[CLASS_NAMES[number], note] for number, note in notes.items()]
    assert "No strategies were found" in page.markdown()
    assert "![thumbnail](data:image/png" in page.description()


def test_of_classes_with_the_same_name_none_is_left_out(store_of) -> None:
    store, notes = store_of(["cat", "cat", "dog"]), {0: TOO_FEW, 1: "no row is called it"}
    table = rows_of(worth_page(store, Assessment()), "predicted class")
    assert [line[0] for line in table] == ["cat", "cat", "dog"]
    assert sum(int(line[1]) for line in table) == N_ROWS
    page = strategies_page(store, Assessment(strategies=StrategyNotes(notes=notes, pasted={})))
    assert rows_of(page, "class") == [["cat", TOO_FEW], ["cat", "no row is called it"]]


# Foreign names.


def assert_inert(page: Page) -> None:
    text = page.markdown()
    assert not re.search(r"(?<!\\)<\w|(?<!\\)\]\(http", text)
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1, block


def test_names_of_classes_are_inert_on_all_pages(store_of, tmp_path: Path) -> None:
    changes = {"drift/prediction_before": np.full(N_ROWS, -1), "drift/likeness": np.zeros(N_ROWS)}
    shares = {f"drift/{name}": np.full((3, 8, 8), 1 / 64) for name in ("mean_share_before", "mean_share")}
    store = store_of(HOSTILE, clusters() | changes | shares)
    drift = NightDrift(
        compared_with="20261122T020000Z-ab12cd",
        n_rows=N_ROWS,
        n_changed=2,
        flows=((0, 1, 2), (2, 0, 1)),
        likeness=0.5,
        moved_most=(3, 5),
        changes={0: ClassChange(n_rows=40, share=0.1, cell=(1, 2), energy=0.2)},
        notes={1: "too few rows", 2: "too few rows"},
        floor=DriftFloor(about="a floor", shares={0: 0.05}),
    )
    found = Assessment(
        controls=controls(), drift=drift, strategies=StrategyNotes(notes={1: TOO_FEW}, pasted={"2a": ((3, 5),)})
    )
    changed = drift_page(store, drift, tmp_path)
    for page in (worth_page(store, found), strategies_page(store, found), changed):
        assert_inert(page)
    assert "| 2.00 |" in changed.markdown()  # times the floor
    assert "cannot be drawn then and now" in changed.markdown()  # the other night is gone
    shown = [line[0] for line in rows_of(strategies_page(store, found), "class")]
    assert shown == [HOSTILE[1]]
