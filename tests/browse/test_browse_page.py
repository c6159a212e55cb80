"""browse in a real browser: by mouse and by keyboard, by links, beside another night, saved, in the dark and on a telephone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from browsed_root import AFTER, BEFORE, browsing, make_root, seal_large
from contrast import CONTRAST
from free_port import free_port
from reported_night import HOSTILE, N_ROWS
from storage import Catalog, open_store
from storage.write.leaving_out import write_without_images
from tasks.browse.browse_server import claimed_port

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NIGHT, OTHER = f"/nights/{AFTER}/", f"/nights/{BEFORE}/"
WIDTHS = """Promise.all([...document.querySelectorAll("#gallery img, #row-tiles img")].map((image) =>
    image.decode().then(() => image.naturalWidth)))"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with browsing(root) as address:
        yield address


@pytest.fixture
def page(browser: "Browser", address: str) -> Iterator["Page"]:
    """A page that must ask nobody but browse, and complain of nothing."""
    with browser.new_context(base_url=address, viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        heard: list[str] = []
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if _is_foreign(request.url, address) else None)
        yield page
        assert heard == []


def _is_foreign(url: str, address: str) -> bool:
    return not url.startswith(("data:", f"{address}/"))


def rows_on_screen(page: "Page") -> list[int]:
    """The rows of the cards in the page, in order; all of them have their pictures."""
    expect(page.locator("#gallery .awaited")).to_have_count(0)
    texts = page.locator("#gallery .card .told a").all_inner_texts()
    return [int(text.removeprefix("Row ")) for text in texts]


def await_pictures(page: "Page", n_pictures: int) -> None:
    """Waits until the open row has so many pictures, which come after its title."""
    expect(page.locator("#row-tiles img").nth(n_pictures - 1)).to_be_visible()


def link_of(page: "Page") -> str:
    """What the page says of itself: Playwright's `page.url` learns of a replaced address later."""
    return str(page.evaluate("location.href"))


def count(page: "Page") -> int:
    found = re.match(r"([\d,]+) of", page.locator("#count").inner_text())
    assert found
    return int(found[1].replace(",", ""))


def test_pictures_come_with_the_rows_that_are_looked_at(page: "Page") -> None:
    page.goto(NIGHT)
    assert count(page) == N_ROWS
    first = rows_on_screen(page)
    assert first[:3] == [0, 1, 2]
    assert len(first) < N_ROWS / 2  # only what is on the screen is in the page
    page.locator("#window").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    expect(page.locator(f"#gallery a[href='#row-{N_ROWS - 1}']")).to_be_visible()
    last = rows_on_screen(page)
    assert last[-1] == N_ROWS - 1
    assert len(last) < N_ROWS / 2
    assert set(page.evaluate(WIDTHS)) == {24}


def test_what_is_chosen_is_in_the_link_and_the_link_chooses_it(page: "Page", root: Path) -> None:
    page.goto(NIGHT)
    page.locator("#is-correct").select_option("0")
    page.locator("#sort").select_option("gap -1")
    chosen, order, link = count(page), rows_on_screen(page), link_of(page)
    assert "is-correct=0" in link
    page.goto("about:blank")
    page.goto(link)
    assert (count(page), rows_on_screen(page)) == (chosen, order)
    with open_store(Catalog(root).night_dir(AFTER)) as store:
        table = store.table(store.rows(correct=False))
    assert chosen == len(table)
    assert order == table.gap.abs().sort_values(ascending=False, kind="stable").index[: len(order)].tolist()


def test_a_link_opens_a_row_and_nonsense_in_it_does_no_harm(page: "Page") -> None:
    page.goto(f"{NIGHT}?label=99&sort=nothing&is-correct=<b>&from-relevance_gain=x#row-91")
    expect(page.locator("#row-title")).to_have_text("Row 91")
    await_pictures(page, 4)
    page.keyboard.press("Escape")
    assert count(page) == N_ROWS
    page.goto(f"{NIGHT}#row-5000")
    expect(page.locator("#count")).to_contain_text("Row 5000 is not in this night")


def test_the_keyboard_moves_opens_turns_and_closes(page: "Page") -> None:
    page.goto(NIGHT)
    rows_on_screen(page)
    focused = "document.activeElement.textContent"
    page.locator("#window").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == "Row 0"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "Row 1"
    page.keyboard.press("End")
    assert page.evaluate(focused) == f"Row {N_ROWS - 1}"
    rows_on_screen(page)
    assert page.evaluate(focused) == f"Row {N_ROWS - 1}"
    page.keyboard.press("Home")
    assert page.evaluate(focused) == "Row 0"
    page.keyboard.press("Enter")
    expect(page.locator("#row-title")).to_have_text("Row 0")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#row-title")).to_have_text("Row 1")
    assert link_of(page).endswith("#row-1")
    page.keyboard.press("Escape")
    expect(page.locator("#row")).to_be_hidden()


def test_a_row_is_seen_beside_the_same_row_of_another_night(page: "Page") -> None:
    page.goto(f"{NIGHT}#row-7")
    expect(page.locator("#beside-choice")).to_be_visible()
    page.locator("#beside").select_option(BEFORE)
    expect(page.locator("#beside-told")).to_contain_text(BEFORE)
    assert page.locator("#beside-tiles img").count() >= 3
    page.keyboard.press("Escape")
    page.goto(f"{NIGHT}?beside={BEFORE}#row-8")
    expect(page.locator("#beside-told")).to_contain_text(BEFORE)


def test_the_python_that_is_shown_loads_what_is_shown(page: "Page") -> None:
    page.goto(f"{NIGHT}?is-correct=0&label=1&from-relevance_gain=0&sort=gap+-1")
    shown, code = rows_on_screen(page), page.locator("#selection-code").inner_text()
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["table"].index[: len(shown)].tolist() == shown
    assert len(found["table"]) == count(page)
    assert len(found["values"]) == min(10, count(page))


@pytest.mark.parametrize("chosen", [{}, {"is-cluster": "1"}, {"sort": "row -1"}, {"to-relevance_gain": "0.05"}])
def test_the_python_of_every_kind_of_filter(page: "Page", chosen: dict[str, str]) -> None:
    page.goto(f"{NIGHT}?{'&'.join(f'{name}={value}'.replace(' ', '+') for name, value in chosen.items())}")
    found: dict[str, Any] = {}
    exec(page.locator("#selection-code").inner_text(), found)
    assert len(found["table"]) == count(page) > 0
    if chosen.get("sort"):
        assert found["table"].index[0] == rows_on_screen(page)[0]


@pytest.mark.parametrize("direction", ["1", "-1"])
@pytest.mark.parametrize("column", ["cluster", "label", "correct", "score", "gap", "likeness"])
def test_the_python_has_the_order_that_is_shown(page: "Page", column: str, direction: str) -> None:
    page.goto(NIGHT)
    values = page.locator("#sort option").evaluate_all("(options) => options.map((option) => option.value)")
    if f"{column} {direction}" not in values:
        pytest.skip(f"this night has no {column}")
    page.locator("#sort").select_option(f"{column} {direction}")
    shown, found = rows_on_screen(page), dict[str, Any]()
    exec(page.locator("#selection-code").inner_text(), found)
    assert found["table"].index[: len(shown)].tolist() == shown


def test_every_number_has_a_range_and_an_order(page: "Page", root: Path) -> None:
    page.goto(NIGHT)
    page.get_by_text("More filters").click()
    with open_store(Catalog(root).night_dir(AFTER)) as store:
        table = store.table()
    for name in ("confidence", "gap", "quadrature_error", "n_gradients", "score", "cam_max"):
        middle = float(table[name].median())
        page.locator(f"#from-{name}").fill(repr(middle))
        page.locator(f"#from-{name}").press("Tab")
        found: dict[str, Any] = {}
        exec(page.locator("#selection-code").inner_text(), found)
        assert 0 < count(page) == len(found["table"]) < N_ROWS, name
        page.get_by_role("button", name="Show all rows").click()
        expect(page.locator("#count")).to_contain_text(f"{N_ROWS} of {N_ROWS}")


def test_back_shows_what_the_link_says(page: "Page") -> None:
    page.goto(f"{NIGHT}?is-correct=0")
    wrong = count(page)
    rows_on_screen(page)
    page.locator("#gallery .card .told a").first.click()
    expect(page.locator("#row")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#row")).to_be_hidden()
    page.locator("#is-correct").select_option("1")
    assert count(page) == N_ROWS - wrong
    page.go_back()
    expect(page.locator("#count")).to_contain_text(f"{wrong} of {N_ROWS}")
    assert "is-correct=0" in link_of(page)


def test_keys_of_the_browser_and_of_a_field_stay_theirs(page: "Page") -> None:
    page.goto(f"{NIGHT}#row-7")
    expect(page.locator("#beside-choice")).to_be_visible()
    page.locator("#beside").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#row-title")).to_have_text("Row 7")
    page.keyboard.press("Escape")
    rows_on_screen(page)
    link = page.locator("#gallery a[href='#row-0']")
    link.focus()
    # A real one would have the browser scroll, and the focus then goes from a row that is out of sight to the grid.
    is_left_alone = """(link, isHeld) => link.dispatchEvent(
        new KeyboardEvent("keydown", { key: "End", ctrlKey: isHeld, bubbles: true, cancelable: true }))"""
    assert link.evaluate(is_left_alone, True)
    assert page.evaluate("document.activeElement.textContent") == "Row 0"
    assert not link.evaluate(is_left_alone, False)
    assert page.evaluate("document.activeElement.textContent") == f"Row {N_ROWS - 1}"


def test_a_focus_that_is_scrolled_away_stays_in_the_grid(page: "Page") -> None:
    page.goto(NIGHT)
    rows_on_screen(page)
    page.locator("#gallery a[href='#row-0']").focus()
    page.locator("#window").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    expect(page.locator(f"#gallery a[href='#row-{N_ROWS - 1}']")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "window"


def test_a_selection_is_saved(page: "Page", tmp_path: Path) -> None:
    page.goto(f"{NIGHT}?is-correct=0")
    n_rows = count(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save their numbers as Parquet").click()
    table = pd.read_parquet(download.value.path())
    assert len(table) == n_rows
    assert not table["correct"].any()
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("as PNG")).click()
    assert download.value.suggested_filename.endswith(".png")
    assert link_of(page).endswith("?is-correct=0")


def test_the_means_come_when_somebody_comes_to_them(page: "Page") -> None:
    page.goto(NIGHT)
    assert page.locator("#means li").count() == 0
    page.locator("#classes").scroll_into_view_if_needed()
    expect(page.locator("#means li")).to_have_count(3)
    expect(page.locator("#means-told")).to_have_text("")


def test_two_nights_are_chosen_and_compared(page: "Page") -> None:
    page.goto("/")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name=re.compile("Predictions that changed"))).to_be_visible(timeout=60_000)
    page.get_by_role("link", name="all nights").click()
    expect(page.get_by_role("button", name="Compare")).to_be_visible()
    page.get_by_role("link", name=re.compile("23 November 2026")).click()
    expect(page.locator("#rows-title")).to_be_visible()


def test_a_server_that_goes_is_said_and_one_that_comes_back_is_asked(browser: "Browser", root: Path) -> None:
    port = free_port()
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        with browsing(root, claimed_port(port)) as address:
            page.goto(f"{address}{NIGHT}")
            rows_on_screen(page)
        page.locator("#window").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
        expect(page.locator("#trouble")).to_contain_text("does not answer; is it still running?")
        with browsing(root, claimed_port(port)):
            page.locator("#retry").click()
            assert rows_on_screen(page)[-1] == N_ROWS - 1
            expect(page.locator("#trouble")).to_be_hidden()


def test_nothing_that_a_store_says_runs(browser: "Browser", tmp_path: Path) -> None:
    with browsing(make_root(tmp_path / "root", HOSTILE)) as address, browser.new_context(base_url=address) as context:
        page = context.new_page()
        for path in ("/", NIGHT, f"{OTHER}?beside={AFTER}#row-3", f"/compare?before={BEFORE}&after={AFTER}"):
            page.goto(path)
            page.wait_for_load_state("networkidle")
        page.goto(NIGHT)
        page.locator("#classes").scroll_into_view_if_needed()
        expect(page.locator("#means li")).to_have_count(3)
        rows_on_screen(page)
        assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_are_readable_and_accessible(browser: "Browser", address: str, width: int, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    with browser.new_context(
        base_url=address, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    ) as context:
        page = context.new_page()
        for path in ("/", NIGHT, f"{NIGHT}?beside={BEFORE}#row-3", "/nights/nowhere/", _compared(page)):
            page.goto(path)
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.evaluate(CONTRAST) == [], path
            found = axe.run(page).response["violations"]
            serious = [
                (each["id"], each["nodes"][0]["html"][:200])
                for each in found
                if each["impact"] in ("serious", "critical")
            ]
            assert serious == [], path


def _compared(page: "Page") -> str:
    """The page of two nights, once it is there."""
    path = f"/compare?before={BEFORE}&after={AFTER}"
    page.goto(path)
    expect(page.get_by_role("heading", name=re.compile("Predictions that changed"))).to_be_visible(timeout=60_000)
    return path


def test_pictures_of_large_images_are_full_in_the_open_row(browser: "Browser", tmp_path: Path) -> None:
    """Cards have them reduced to 64 pixels, the open row has all of their 96."""
    store = seal_large(tmp_path, side=96)
    with browsing(store) as address, browser.new_context(base_url=address) as context:
        page = context.new_page()
        page.goto("/")
        rows_on_screen(page)
        assert set(page.evaluate(WIDTHS)) == {64}
        page.goto(f"{link_of(page).partition('#')[0]}#row-1")
        expect(page.locator("#row-tiles img").first).to_be_visible()
        expect(page.locator("#row-tiles img").first).to_have_js_property("naturalWidth", 96)
        assert set(page.evaluate(WIDTHS)) == {64, 96}


def test_a_night_that_came_without_its_images_is_browsed(browser: "Browser", root: Path, tmp_path: Path) -> None:
    with open_store(Catalog(root).night_dir(AFTER)) as store:
        write_without_images(store, tmp_path / "attributions.h5")
    with browsing(tmp_path) as address, browser.new_context(base_url=address) as context:
        page = context.new_page()
        heard: list[str] = []
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto("/")
        expect(page.locator("#gallery .card img").first).to_be_visible()
        page.locator("#classes").scroll_into_view_if_needed()
        expect(page.locator("#means li")).to_have_count(3)
        page.goto(f"{link_of(page).partition('#')[0]}#row-7")
        expect(page.locator("#row-tiles img").first).to_be_visible()
        assert page.locator("#row-tiles [title='this store was handed over without its images']").count() > 0
        assert page.evaluate(WIDTHS)
        assert heard == []
