"""What the report says of worth and strategies: the cards, the bars, the column of names; and of nights that have none."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from example_clusters import CELLS, NAMES
from example_store import CLASS_NAMES
from example_worth import NO_CLUSTERS, example_controls
from places import REPOSITORY
from report_elements import Elements, assert_asks_nothing, page_data, words
from reported_night import CONFIGURATION, HOSTILE, N_ROWS, seal_assessed, seal_example, write
from storage import AttributionStore, open_store
from storage.draw.figures import RED_GREEN, render
from tasks.pages.figures.strategy_figures import strategies_sheet
from tasks.report.sections.strategy_cards import outline_of, strategy_section
from tasks.report.sections.worth_section import worth_section
from tasks.worth.assessment import Assessment, recorded_assessment
from tasks.worth.strategies.strategy_pictures import strategy_pictures

NOT_MEASURED = "What the explanations are worth was not measured on this night."


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_assessed(tmp_path_factory.mktemp("assessed"))


@pytest.fixture
def store(path: Path):
    with open_store(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def html(path: Path) -> str:
    return write(path).read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    """The section of that id; empty if there is none."""
    found = re.search(rf'<section id="{name}".*?</section>', html, re.S)
    return found.group() if found else ""


# Rows.


def test_the_column_of_strategies_names_that_of_every_row(html: str, store: AttributionStore) -> None:
    column = next(column for column in page_data(html)["columns"] if column["name"] == "cluster")
    numbers = np.frombuffer(base64.b64decode(column["numbers"]), "<u2")
    assert column["names"] == ["", *NAMES]
    assert [column["names"][number] for number in numbers] == store.table()["cluster"].tolist()
    assert (column["shown"], column["dtype"], column["zero"]) == (True, "u2", "none")


def test_names_of_class_ten_come_after_those_of_class_two(tmp_path: Path) -> None:
    html = write(seal_assessed(tmp_path, clusters=["10a", "2b", "2a"])).read_text()
    column = next(column for column in page_data(html)["columns"] if column["name"] == "cluster")
    assert column["names"] == ["", "2a", "2b", "10a"]


def test_relevance_gain_has_a_range_and_is_not_ordered_by_its_size(html: str) -> None:
    columns = {column["name"]: column for column in page_data(html)["columns"]}
    assert [name for name, column in columns.items() if column["has_range"]] == ["relevance_gain"]
    assert [name for name, column in columns.items() if column["by_size"]] == ["gap"]


# Strategies.


def test_every_strategy_has_a_card_and_every_other_class_the_reason(html: str) -> None:
    text = words(section(html, "strategies"))
    for told in (
        "3 strategies of 2 classes.",
        "88% of images that are called something else become cat when a region of 2.1% of the pixels is pasted",
        "0a mean heat",
        "become the class 12% control 6% region 12.5% of the pixels rows 19, 25.0% wrong",
        "0b a shortcut? mean heat",
        "become the class 88% control 3% region 2.1% of the pixels rows 19, 50.0% wrong",
        "2a mean heat",
        "become the class no region control – region – rows 54, 12.5% wrong",
        f"dog {NO_CLUSTERS}",
    ):
        assert told in text, told
    assert text.count("a shortcut?") == 1


def test_the_class_with_the_highest_score_comes_first(store: AttributionStore) -> None:
    found = strategy_section(store, recorded_assessment(store))
    assert found is not None
    assert [(each.name, [card.name for card in each.cards]) for each in found.classes] == [
        ("cat", ["0a", "0b"]),
        ("naïve 猫", ["2a"]),
    ]


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_a_card_has_its_heat_its_medoids_and_the_images_its_region_changed(store: AttributionStore) -> None:
    found = strategy_section(store, recorded_assessment(store))
    assert found is not None
    card = found.classes[0].cards[1]
    medoids = store.column("clusters/medoid_row")[1][:3]
    members, hosts = store.rows(cluster="0b")[:2], store.rows(prediction="dog")[:2]
    assert [(image.member, image.row) for image in card.images] == [
        *((None, row) for row in medoids),
        *zip(members, hosts, strict=True),
    ]
    for image in card.images[:3]:
        np.testing.assert_array_equal(pixels(image.source), store.image[image.row])
    for image in card.images[3:]:
        expected = store.image[image.row].copy()
        expected[18:21, :4] = store.image[image.member][18:21, :4]  # cell (6, 0) of 8 by 6 in 24 by 24 pixels
        np.testing.assert_array_equal(pixels(image.source), expected)
    heat = store.column("clusters/mean_heat")[1]
    colours = RED_GREEN(np.rint((heat / np.abs(heat).max() / 2 + 0.5) * 100) / 100)[..., :3] * 255
    assert pixels(card.heat).shape == (*CELLS, 3)
    np.testing.assert_allclose(pixels(card.heat), colours, atol=1)


def test_an_outline_is_the_border_of_the_region() -> None:
    one = np.zeros((2, 3), bool)
    one[1, 2] = True
    assert set(re.findall(r"M[^M]+", outline_of(one, (5, 6)))) == {"M4 2H6", "M4 5H6", "M4 2V5", "M6 2V5"}
    two = one.copy()
    two[1, 1] = True
    assert set(re.findall(r"M[^M]+", outline_of(two, (5, 6)))) == {
        *("M2 2H4", "M4 2H6", "M2 5H4", "M4 5H6", "M2 2V5", "M6 2V5")
    }
    assert outline_of(np.zeros((2, 3), bool), (5, 6)) == ""


def test_the_page_draws_what_the_report_has(store: AttributionStore) -> None:
    seen = strategy_pictures(store, 1, [(8, 2)])
    assert (len(seen.typical), len(seen.pasted), seen.region.sum()) == (3, 1, 12)
    sheet = render(strategies_sheet(store, NAMES, recorded_assessment(store).strategies.pasted))  # type: ignore[union-attr]
    magenta = (np.abs(sheet.astype(int) - [204, 0, 204]) < 3).all(axis=-1)
    assert magenta.any(), "regions are outlined"


def test_strategies_without_room_are_counted(store: AttributionStore) -> None:
    found = recorded_assessment(store)
    everything = strategy_section(store, found)
    assert everything is not None and everything.n_left_out == 0
    room = sum(card.n_bytes for card in everything.classes[0].cards)
    for budget, kept in ((room, ["0a", "0b"]), (room - 1, ["0a"]), (0, [])):
        some = strategy_section(store, found, budget)
        assert some is not None
        assert [card.name for each in some.classes for card in each.cards] == kept
        assert some.n_left_out == 3 - len(kept)


# Worth.


def test_the_worth_is_said_beside_its_controls(html: str) -> None:
    text = words(section(html, "worth"))
    for told in (
        "Keeping the pixels that Integrated Gradients puts first, and not the others, is worth +0.400 of the score",
        "permuted within the object (control) +0.200 ± 0.020",
        "the image itself (control) −0.200 ± 0.020",
        "the image itself (control) not defined",
        "random networks rank correlation +0.03, -0.02, +0.01",
        "graft off by 2e-07",
        "canary networks",
        "Relevance gain of every row",
    ):
        assert told in text, told


def test_bars_end_where_the_numbers_say(store: AttributionStore) -> None:
    found = worth_section(store, Assessment(controls=example_controls()))
    assert found is not None
    gain, fidelity = found.bars
    # From -0.24, where the lowest interval begins, to 0.44, where the highest ends.
    scale = 392 / 0.68
    first, *_, last = gain.lines
    assert gain.zero == pytest.approx(4 + 0.24 * scale, abs=0.01)
    assert first.bar == pytest.approx((gain.zero, gain.zero + 0.4 * scale), abs=0.02)
    assert first.whisker == pytest.approx((gain.zero + 0.36 * scale, 396), abs=0.02)
    assert last.bar == pytest.approx((4 + 0.04 * scale, gain.zero), abs=0.02)
    assert [line.is_control for line in gain.lines] == [False, True, True, True]
    assert (fidelity.lines[-1].bar, fidelity.lines[-1].whisker, fidelity.lines[-1].text) == (None, None, "not defined")


# Nights without.


def test_a_night_in_which_no_strategies_were_found_says_why(tmp_path: Path) -> None:
    html = write(seal_assessed(tmp_path, clusters=[])).read_text()
    text = words(section(html, "strategies"))
    assert "No strategies were found, or looked for." in text
    assert [f"{name} {NO_CLUSTERS}" in text for name in ("cat", "dog", "naïve 猫")] == [True] * 3
    assert "mean heat" not in text and "<button" not in section(html, "strategies")
    assert "cluster" not in {column["name"] for column in page_data(html)["columns"]}


def test_a_store_before_worth_has_neither_section_and_says_so(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "tests/data/schema-3.h5", tmp_path / "attributions.h5")
    html = write(tmp_path / "attributions.h5").read_text()
    assert section(html, "worth") == section(html, "strategies") == ""
    assert {a.get("href") for tag, a in Elements(html).found if tag == "a"} & {"#worth", "#strategies"} == set()
    assert NOT_MEASURED in words(section(html, "trust"))
    assert {"cluster", "relevance_gain"} & {column["name"] for column in page_data(html)["columns"]} == set()


def test_rows_of_a_night_with_another_model_are_filtered_by_what_changed(tmp_path: Path) -> None:
    before, alike = np.arange(N_ROWS) % 4 - 1, np.linspace(-1, 1, N_ROWS)
    shares = {f"drift/{name}": np.zeros((3, 8, 8)) for name in ("mean_share_before", "mean_share")}
    tables = {"drift/prediction_before": before, "drift/likeness": alike} | shares
    html = write(seal_example(tmp_path, tables=tables)).read_text()
    columns = {column["name"]: column for column in page_data(html)["columns"]}
    assert columns["likeness"]["has_range"]
    assert columns["prediction_before"]["names"] == ["", *sorted(CLASS_NAMES, key=lambda name: (len(name), name))]
    numbers = np.frombuffer(base64.b64decode(columns["likeness"]["numbers"]), "<f4")
    np.testing.assert_array_equal(np.isnan(numbers), before < 0)  # rows that the other night does not have
    np.testing.assert_array_equal(numbers[before >= 0], alike.astype(np.float32)[before >= 0])


def test_of_a_night_without_a_sample_the_rows_are_shown(tmp_path: Path) -> None:
    html = write(seal_example(tmp_path)).read_text()
    text = words(section(html, "worth"))
    assert "What explanations are worth was not measured: worth.level was not full." in text
    assert "Relevance gain of every row" in text and "control" not in text
    assert section(html, "strategies") == "" and NOT_MEASURED not in html


def test_a_night_that_wants_no_page_of_it_has_no_section(tmp_path: Path) -> None:
    configuration = CONFIGURATION | {"worth": {"level": "none"}}
    assert section(write(seal_example(tmp_path, configuration=configuration)).read_text(), "worth") == ""


@pytest.mark.parametrize(
    "recorded",
    [{"controls": {"mood": 1}}, {"tomorrow": {}}, [], "text", 7],
    ids=["other", "newer", "list", "text", "number"],
)
def test_worth_that_cannot_be_read_is_said_and_the_page_is_written(tmp_path: Path, recorded: object) -> None:
    html = write(seal_assessed(tmp_path, worth=recorded)).read_text()
    assert "What the store records of it cannot be read by this version of nightlens" in words(section(html, "worth"))
    assert "0b a shortcut?" in words(section(html, "strategies")), "the clusters are there all the same"


# Safe.


def test_the_page_asks_nothing_of_a_network(html: str) -> None:
    assert_asks_nothing(html)


def test_hostile_names_of_classes_and_strategies_stay_names(tmp_path: Path) -> None:
    html = write(seal_assessed(tmp_path, HOSTILE, HOSTILE)).read_text()
    assert html.count("<script") == html.count("</script>") == 2
    elements = Elements(html)
    assert not [attributes for _, attributes in elements.found if "onerror" in attributes]
    assert [a["data-strategy"] for tag, a in elements.found if "data-strategy" in a] == HOSTILE
    column = next(column for column in page_data(html)["columns"] if column["name"] == "cluster")
    assert set(column["names"]) == {"", *HOSTILE}
    assert HOSTILE[0][:20] in words(section(html, "strategies"))
    assert_asks_nothing(html)
