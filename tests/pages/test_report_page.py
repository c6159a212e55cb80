"""The page of a night in a real browser: opened from the disk, filtered by mouse and by keyboard, linked, printed, in the dark.

Nothing of it may ask the network for anything, and nothing may be said on the console.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contrast import CONTRAST
from reported_night import CONTRACT, HOSTILE, N_ROWS, hostile_contract, seal_assessed, seal_example, write
from storage import open_store
from tasks.report import report_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OVERLAPS = """(selector) => {
    const boxes = [...document.querySelectorAll(selector)].map((node) => [node.textContent.trim(), node.getBoundingClientRect()]);
    return boxes.flatMap(([one, a], k) => boxes.slice(k + 1).filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 1 && b.top < a.bottom - 1).map(([other]) => `${one} / ${other}`));
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(seal_example(tmp_path_factory.mktemp("night")))


@pytest.fixture(scope="module")
def without_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a night without Grad-CAM, whose store has a contract."""
    return write(seal_example(tmp_path_factory.mktemp("without-maps"), grad_cam=False, contract=CONTRACT))


@pytest.fixture(scope="module")
def assessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a night with worth and strategies."""
    return write(seal_assessed(tmp_path_factory.mktemp("assessed")))


@pytest.fixture(params=["report", "without_maps", "assessed"])
def either(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Opens a file in a browser of its own; afterwards it must have asked for nothing and complained of nothing."""
    contexts, heard = [], []

    def open_it(path: Path, fragment: str = "", **settings: Any) -> "Page":
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if _asks(request.url, path) else None)
        page.goto(path.as_uri() + fragment)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert heard == []


def _asks(url: str, path: Path) -> bool:
    return not url.startswith("data:") and url.partition("#")[0] != path.as_uri()


def shown(page: "Page") -> tuple[int, int]:
    """How many rows and how many pictures the page says it shows."""
    found = re.match(r"([\d,]+) of [\d,]+ rows? shown, ([\d,]+) of them", page.locator("#count").inner_text())
    assert found
    rows, pictures = (int(number.replace(",", "")) for number in found.groups())
    return rows, pictures


def test_every_picture_loads_and_the_page_says_what_it_shows(open_page, report: Path) -> None:
    page = open_page(report)
    assert shown(page) == (N_ROWS, N_ROWS)
    widths = page.evaluate(
        "Promise.all([...document.images].map((image) => image.decode().then(() => image.naturalWidth)))"
    )
    assert len(widths) > 24 * 3
    assert set(widths) == {24}
    assert page.locator("#gallery > li").count() == 24
    assert page.locator("#numbers tbody tr").count() == 25
    assert page.title() == "digits, night of 23 November 2026, 02:00 UTC: sealed with warnings"


@pytest.mark.parametrize(
    ("choices", "query"),
    [
        ({"label": "0"}, "label == 0"),
        ({"prediction": "2"}, "prediction == 2"),
        ({"is-correct": "0"}, "label != prediction"),
        ({"is-converged": "0"}, "not converged"),
        ({"label": "1", "is-correct": "1", "is-converged": "1"}, "label == 1 and prediction == 1 and converged"),
        ({"label": "1", "prediction": "1", "is-correct": "0"}, "label != label"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_filters_change_what_is_shown_and_the_count(open_page, report: Path, choices: dict, query: str) -> None:
    page = open_page(report)
    for name, value in choices.items():
        page.select_option(f"#{name}", value)
    with open_store(report.parent) as store:
        expected = store.table().query(query).index.tolist()
    assert shown(page) == (len(expected), len(expected))
    numbers = page.locator("#numbers tbody th").all_inner_texts()
    assert numbers == [str(row) for row in expected[:25]]
    links = page.locator("#gallery .told a").all_inner_texts()
    assert links == [f"Row {row}" for row in expected[:24]]
    page.get_by_role("button", name="Show all rows").click()
    expect(page.locator("#count")).to_contain_text(f"{N_ROWS} of {N_ROWS} rows shown")


def test_without_grad_cam_a_row_has_two_pictures_and_everything_else_works(open_page, without_maps: Path) -> None:
    page = open_page(without_maps)
    assert shown(page) == (N_ROWS, N_ROWS)
    assert page.locator("#gallery > li").first.locator("img").count() == 2
    assert page.locator("#is-cam_max").count() == 0
    headers = page.locator("#numbers thead th").all_inner_texts()
    assert headers[-3:] == ["converged", "relevance gain", "pictures"]
    assert page.locator("#numbers tbody tr").first.locator("th, td").count() == len(headers)
    page.select_option("#is-correct", "0")
    with open_store(without_maps.parent) as store:
        wrong = store.rows(correct=False)
    assert shown(page)[0] == len(wrong)
    page.locator("#gallery .told a").first.click()
    page.wait_for_selector("#row[open]")
    sheet = page.get_by_role("dialog")
    assert sheet.locator("img").count() == 3, "the image, and the attributions for both classes"
    assert "Grad-CAM" not in sheet.inner_text()
    assert "store.maps" not in page.locator("#row-code").inner_text()


def test_the_model_section_shows_the_chosen_input(open_page, without_maps: Path) -> None:
    page = open_page(without_maps, "#model")
    section = page.locator("#model")
    chosen = section.locator("table.feeds tr.chosen")
    assert chosen.count() == 1 and chosen.locator("th").inner_text() == "raw (chosen)"
    assert section.get_by_role("cell", name="NO", exact=True).is_visible()


def test_the_order_is_that_of_the_numbers(open_page, report: Path) -> None:
    page = open_page(report)
    page.select_option("#sort", "confidence -1")
    with open_store(report.parent) as store:
        ranked = store.table().sort_values("confidence", ascending=False).index[:25].tolist()
    assert page.locator("#numbers tbody th").all_inner_texts() == list(map(str, ranked))
    header = page.get_by_role("columnheader", name="confidence")
    assert header.get_attribute("aria-sort") == "descending"
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.locator("#numbers tbody th").first.inner_text() != str(ranked[0])


@pytest.mark.parametrize("first", [1, -1], ids=["ascending", "descending"])
def test_relevance_gain_is_ordered_by_its_value_and_strategies_by_their_names(
    open_page, assessed: Path, first: int
) -> None:
    page = open_page(assessed)
    with open_store(assessed.parent) as store:
        table = store.table()
    page.select_option("#sort", f"relevance_gain {first}")
    expected = table.sort_values("relevance_gain", ascending=first == 1).index[:25].tolist()
    assert page.locator("#numbers tbody th").all_inner_texts() == list(map(str, expected))
    page.select_option("#sort", f"cluster {first}")
    named = table[table["cluster"] != ""].sort_values("cluster", ascending=first == 1, kind="stable")
    last = table[table["cluster"] == ""]
    expected = [*named.index, *last.index]
    assert page.locator("#numbers tbody th").all_inner_texts() == list(map(str, expected[:25]))
    for _ in range(6):
        page.get_by_role("button", name="Next rows").click()
    assert page.locator("#numbers tbody th").all_inner_texts() == list(map(str, expected[150:])), (
        "rows of none come last"
    )


@pytest.mark.parametrize(
    ("answers", "query"),
    [
        ({"is-cluster": "0b"}, "cluster == '0b'"),
        ({"is-cluster": "none"}, "cluster == ''"),
        ({"from-relevance_gain": "0.1"}, "relevance_gain >= 0.1"),
        ({"to-relevance_gain": "-0.05"}, "relevance_gain <= -0.05"),
        (
            {"is-cluster": "2a", "from-relevance_gain": "-0.2", "to-relevance_gain": "0.2", "is-correct": "right"},
            "cluster == '2a' and -0.2 <= relevance_gain <= 0.2 and correct",
        ),
    ],
    ids=["strategy", "none", "at least", "at most", "all of it"],
)
def test_rows_are_filtered_by_strategy_and_relevance_gain(open_page, assessed: Path, answers: dict, query: str) -> None:
    page = open_page(assessed)
    for name, answer in answers.items():
        if name.startswith("is-"):
            page.select_option(f"#{name}", label=answer)
        else:
            page.fill(f"#{name}", answer)
            page.keyboard.press("Enter")
    with open_store(assessed.parent) as store:
        expected = store.table().query(query).index.tolist()
    assert 0 < len(expected) < N_ROWS
    assert shown(page) == (len(expected), len(expected))
    assert page.locator("#numbers tbody th").all_inner_texts() == [str(row) for row in expected[:25]]
    assert not page.locator("#row").is_visible(), "Enter opens no row"
    page.get_by_role("button", name="Show all rows").click()
    expect(page.locator("#count")).to_contain_text(f"{N_ROWS} of {N_ROWS} rows shown")


def test_a_card_shows_the_rows_of_its_strategy_and_their_sheets_say_it(open_page, assessed: Path) -> None:
    page = open_page(assessed)
    page.select_option("#label", "1")
    with open_store(assessed.parent) as store:
        rows = store.rows(cluster="0b")
    page.get_by_role("button", name=f"show the {len(rows)} rows of strategy 0b").click()
    assert shown(page)[0] == len(rows)
    assert page.input_value("#label") == ""
    header = page.locator("#numbers thead th").all_inner_texts()
    cells = page.locator("#numbers tbody tr").first.locator("th, td").all_inner_texts()
    assert dict(zip(header, cells, strict=True))["strategy"] == "0b"
    page.locator("#gallery .told a").first.click()
    fact = page.locator("#row-facts div", has=page.locator("dt", has_text=re.compile("^strategy$")))
    assert fact.locator("dd").inner_text() == "0b"
    page.keyboard.press("Escape")
    link = page.locator("#strategies figcaption a").first
    link.click()
    expect(page.locator("#row-title")).to_have_text(f"Row {link.inner_text().removeprefix('row ')}")


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_of_a_card_or_a_chart_lies_on_anything_else(open_page, assessed: Path, width: int) -> None:
    page = open_page(assessed, viewport={"width": width, "height": 900})
    assert page.evaluate(OVERLAPS, ".strategy .tiles > figure, .strategy dl > div, .strategy > button") == []
    assert page.evaluate(OVERLAPS, "#worth svg text") == []
    outlined = page.locator(".outlined").first
    image, outline = (outlined.locator(tag).bounding_box() for tag in ("img", "svg"))
    assert outline == pytest.approx(image, abs=1)


def test_a_cell_of_the_confusion_matrix_shows_its_rows(open_page, report: Path) -> None:
    page = open_page(report)
    with open_store(report.parent) as store:
        n = int(((store.labels == 0) & (store.predictions == 1)).sum())
    cell = page.get_by_role("button", name=f"{n} of cat predicted dog: show them").first
    cell.focus()
    page.keyboard.press("Enter")
    assert shown(page)[0] == n
    assert (page.input_value("#label"), page.input_value("#prediction")) == ("0", "1")
    assert page.evaluate("document.activeElement.id") == "rows"


def test_the_keyboard_alone_reaches_and_works_everything(open_page, report: Path) -> None:
    page = open_page(report)
    reached: list[str] = []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", reached[-1]
        if reached[-1] == "is-correct":
            break
    assert {"theme", "label", "prediction", "is-correct"} <= set(reached)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#is-correct") == "0"
    with open_store(report.parent) as store:
        wrong = store.rows(correct=False)
    assert shown(page)[0] == len(wrong)
    page.locator("#gallery .told a").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("heading", name=f"Row {wrong[0]}")).to_be_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator("#row-title").inner_text() == f"Row {wrong[1]}"
    page.keyboard.press("Escape")
    assert not page.locator("#row").is_visible()
    expect(page).to_have_url(f"{report.as_uri()}#rows")
    page.locator("#gallery-pager").get_by_role("button", name="Next pictures").focus()
    page.keyboard.press("Space")
    assert page.locator("#gallery .told a").first.inner_text() == f"Row {wrong[24]}"
    assert "Next pictures" in page.evaluate("document.activeElement.textContent")
    assert page.locator("#turned").inner_text() == f"25 to {min(48, len(wrong))} of {len(wrong)} pictures"


def test_a_link_to_a_row_opens_it(open_page, report: Path) -> None:
    with open_store(report.parent) as store:
        wrong, record = int(store.rows(correct=False)[3]), store.table().loc[store.rows(correct=False)[3]]
    page = open_page(report, f"#row-{wrong}")
    sheet = page.get_by_role("dialog")
    expect(sheet.get_by_role("heading", name=f"Row {wrong}")).to_be_visible()
    text = sheet.inner_text()
    assert f"{record['label_name']}, taken for {record['prediction_name']}" in text
    assert f"{record['confidence']:.1%}".replace("%", "\u202f%") in text
    assert f'store.view("integrated_gradients")[{wrong}]' in text and f"--row {wrong}" in text
    for what in (f"for {record['label_name']} (true)", f"for {record['prediction_name']} (predicted)"):
        assert sheet.get_by_alt_text(re.compile(f"Integrated Gradients of row {wrong} {re.escape(what)}")).is_visible()
    page.evaluate("location.hash = 'row-0'")
    expect(page.locator("#row-title")).to_have_text("Row 0")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_snippet_of_a_row_is_copied_and_runs(open_page, report: Path, tmp_path: Path, monkeypatch) -> None:
    page = open_page(report, "#row-7", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    monkeypatch.chdir(tmp_path)
    exec(copied, {})
    assert (tmp_path / "row-7.png").is_file()


def test_a_link_to_a_row_that_is_not_there_says_so(open_page, report: Path) -> None:
    page = open_page(report, "#row-999")
    assert not page.locator("#row").is_visible()
    assert page.locator("#count").inner_text() == "Row 999 is not in this night, which has the rows 0 to 159"


def test_go_to_row(open_page, report: Path) -> None:
    page = open_page(report)
    page.get_by_label("go to row").fill("42")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("heading", name="Row 42")).to_be_visible()


def test_rows_without_pictures_are_found_all_the_same(open_page, report: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(report_page, "PICTURE_BYTES", 60_000)
    page = open_page(write(report.parent / "attributions.h5", out=tmp_path / "small.html"))
    rows, pictures = shown(page)
    assert rows == N_ROWS and 0 < pictures < 40
    assert (
        f"{pictures} of them have pictures, chosen class by class: spotlight (2)" in page.locator("#rows").inner_text()
    )
    page.select_option("#why", label="spotlight")
    assert shown(page) == (2, 2)
    page.get_by_role("button", name="Show all rows").click()
    without = page.locator("#numbers tbody tr", has_text="–").first.get_by_role("link")
    row = without.inner_text()
    without.click()
    assert "The pictures of this row are not in this page" in page.get_by_role("dialog").inner_text()
    assert f"--row {row}" in page.get_by_role("dialog").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(open_page, either: Path, scheme: str) -> None:
    page = open_page(either, color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []
    page.evaluate("location.hash = 'row-1'")
    page.wait_for_selector("#row[open]")
    assert page.evaluate(CONTRAST) == []


def test_colours_follow_the_system_until_the_button_is_pressed(open_page, report: Path) -> None:
    page = open_page(report, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(paper)
    assert dark != light
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(paper) == dark
    page.reload()
    assert page.evaluate(paper) == dark
    page.get_by_role("button", name="Light colours").click()
    assert page.evaluate(paper) == light


def test_print_has_paper_white_and_no_controls(open_page, report: Path) -> None:
    page = open_page(report, color_scheme="dark", viewport={"width": 720, "height": 1000})
    page.get_by_role("button", name="Light colours").click()
    page.get_by_role("button", name="Dark colours").click()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST) == []
    for control in ("#filters", "#theme", "#gallery-pager", "nav"):
        assert not page.locator(control).is_visible()
    assert page.locator("#gallery > li").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("width", [360, 400, 768, 1920])
def test_no_width_scrolls_sideways(open_page, either: Path, width: int) -> None:
    page = open_page(either, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("location.hash = 'row-1'")
    page.wait_for_selector("#row[open]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_screen_reader_finds_landmarks_headings_labels_and_names(open_page, either: Path) -> None:
    page = open_page(either)
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].filter((h) => h.checkVisibility()).map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    for name in ("true class", "predicted class", "outcome", "converged", "order"):
        assert page.get_by_role("combobox", name=name, exact=True).count() == 1, name
    assert page.get_by_role("status").first.is_visible()
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    named = {
        "button",
        "link",
        "combobox",
        "spinbutton",
        "image",
        "table",
        "columnheader",
        "rowheader",
        "region",
        "dialog",
    }
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored")
        and node.get("role", {}).get("value") in named
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    assert sum(node.get("role", {}).get("value") == "image" for node in nodes) > 24 * 2
    assert page.locator("table").count() == page.locator("table > caption").count()
    assert page.locator("th:not([scope])").count() == 0


def test_hostile_names_are_shown_and_never_run(open_page, tmp_path: Path) -> None:
    names = {"dataset_name": HOSTILE[0], "model_name": HOSTILE[1]}
    report = write(seal_example(tmp_path, HOSTILE, **names, contract=hostile_contract()))
    page = open_page(report)
    page.select_option("#label", "1")
    page.select_option("#sort", "gap -1")
    assert 0 < shown(page)[0] < N_ROWS
    assert HOSTILE[1][:40] in page.locator("#numbers tbody td").first.inner_text()
    page.locator("#gallery .told a").first.click()
    assert HOSTILE[1][:40] in page.get_by_role("dialog").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_hostile_names_of_strategies_are_shown_and_never_run(open_page, tmp_path: Path) -> None:
    page = open_page(write(seal_assessed(tmp_path, HOSTILE, HOSTILE)))
    page.locator("button[data-strategy]").nth(1).click()
    assert shown(page)[0] == int(page.locator(".strategy dd").nth(7).inner_text().partition(",")[0])
    assert HOSTILE[1][:40] in page.locator("#numbers tbody tr").first.inner_text()
    page.locator("#gallery .told a").first.click()
    assert HOSTILE[1][:40] in page.locator("#row-facts").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_what_is_injected_all_the_same_is_refused_by_the_browser(
    browser: "Browser", report: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(
        report.read_text().replace(
            "<main", "<img src=x onerror='window.hacked=1'><script>window.hacked=2</script><main", 1
        )
    )
    page = browser.new_page()
    page.goto(spoilt.as_uri())
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)") == "TypeError"
    page.close()
