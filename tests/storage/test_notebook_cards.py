"""What a notebook shows of a store and of some of its rows: the numbers are the store's, texts cannot run, damage is a sentence.

The last tests look at it in a real browser, on a light and on a dark page.
"""

import base64
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from example_store import chunk_offset, flip_byte, seal, write_parts
from file_server import served
from reported_night import HOSTILE, NIGHT, seal_example
from storage import AttributionStore, open_store
from storage.draw.figures import as_rgb, explained_picture
from storage.draw.notebook_cards import MOST_CARDS, N_STRIP

if TYPE_CHECKING:
    from playwright.sync_api import Browser

N_ROWS = 70


class Shown(HTMLParser):
    """The words of a piece of HTML, its elements, and the pixels of its pictures."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.tags, self.pictures = "", set[str](), list[np.ndarray]()
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        source = dict(attrs).get("src")
        if source is not None:
            kind, _, data = source.partition(",")
            assert kind == "data:image/png;base64"
            self.pictures.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    seal(folder / "attributions.h5", write_parts(folder / "parts", 0, N_ROWS))
    (folder / "night.json").write_text(json.dumps(NIGHT | {"n_rows": N_ROWS}))
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[AttributionStore]:
    with open_store(folder) as opened:
        yield opened


def test_a_store_shows_verdict_accuracy_certificate_and_worth(store: AttributionStore) -> None:
    text = Shown(store._repr_html_()).text
    assert "digits/test, rows 0-69, model seed-cnn, night 20261123T020000Z-ab12cd" in text
    assert "sealed with warnings: 7 of 160 rows did not converge; accuracy fell; audit passed" in text
    table = store.table()
    assert f"accuracy {table.correct.mean():.2%}" in text
    assert f"converged {table.converged.mean():.2%}" in text
    assert f"worst gap {table.gap.abs().max():.3g}" in text
    assert f"mean relevance gain {table.relevance_gain.astype(float).mean():+.3f}" in text


def test_its_strip_is_of_the_surest_mistakes(store: AttributionStore) -> None:
    table = store.table(store.rows(correct=False)).sort_values("confidence", ascending=False)
    rows = table.index[:N_STRIP]
    shown = Shown(store._repr_html_())
    assert [int(text.split()[0]) for text in shown.text.split(" row ")[1:]] == rows.tolist()
    assert len(shown.pictures) == 2 * N_STRIP
    for k, row in enumerate(rows):
        np.testing.assert_array_equal(shown.pictures[2 * k], eight_bit(as_rgb(store.image[row])))
        attribution = store.attributions(row, "predicted")
        drawn = explained_picture(store.methods[0], store.image[row], attribution)
        np.testing.assert_array_equal(shown.pictures[2 * k + 1], eight_bit(drawn))


def test_without_a_mistake_it_is_of_those_that_the_model_is_least_sure_of(tmp_path: Path) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 20, n_wrong=0))
    with open_store(tmp_path) as store:
        shown = Shown(store._repr_html_())
        assert "no mistake; the rows of which the model is least sure" in shown.text
        least = store.row_numbers[np.argsort(store.confidences, kind="stable")][:N_STRIP]
        assert [int(text.split()[0]) for text in shown.text.split(" row ")[1:]] == least.tolist()


def test_a_store_without_a_record_and_with_a_damaged_one(tmp_path: Path) -> None:
    with open_store(seal_example(tmp_path)) as store:
        assert "no verdict: there is no night.json beside the store" in Shown(store._repr_html_()).text
        (tmp_path / "night.json").write_text("{")
        text = Shown(store._repr_html_()).text
        assert "Cannot be shown: night.json cannot be read" in text
        assert "accuracy" in text and "converged" in text, "everything else is still shown"


def test_rows_show_themselves_in_their_order(store: AttributionStore) -> None:
    rows = store.rows(correct=False)[[5, 0, 2]]
    shown = Shown(store.show(rows, "predicted")._repr_html_())
    assert "3 rows, explained for the predicted class" in shown.text
    assert [int(text.split()[0]) for text in shown.text.split(" row ")[1:]] == rows.tolist()
    columns = 1 + len(store.methods)
    assert len(shown.pictures) == 3 * columns
    for k, row in enumerate(rows):
        image = store.image[row]
        for method, picture in zip(store.methods, shown.pictures[columns * k + 1 :], strict=False):
            drawn = explained_picture(method, image, store.view(method, "predicted")[row])
            np.testing.assert_array_equal(picture, eight_bit(drawn))


def test_many_rows_show_the_first_and_say_so(store: AttributionStore) -> None:
    shown = Shown(store.show(...)._repr_html_())
    assert f"the first {MOST_CARDS} of {N_ROWS} rows" in shown.text
    assert len(shown.pictures) == MOST_CARDS * (1 + len(store.methods))


def test_shown_rows_are_an_array_of_their_numbers(store: AttributionStore) -> None:
    rows = store.rows(correct=False)
    shown = store.show(rows)
    assert type(rows) is np.ndarray and rows.dtype == np.int64
    assert len(shown) == len(rows)
    np.testing.assert_array_equal(np.asarray(shown), rows, strict=True)
    np.testing.assert_array_equal(store.attributions(shown), store.attributions(rows))
    assert repr(store.show(3)) == "<1 row of 20261123T020000Z-ab12cd, explained for the true class: [3]>"
    assert Shown(store.show([])._repr_html_()).text.startswith("0 rows")
    with pytest.raises(IndexError, match="row 70 is not in this store"):
        store.show(70)
    with pytest.raises(ValueError, match="expected the target"):
        store.show(3, "both")  # type: ignore[arg-type]


def test_a_closed_store_says_so(folder: Path) -> None:
    with open_store(folder) as store:
        rows = store.show([1])
    for html in (store._repr_html_(), rows._repr_html_()):
        shown = Shown(html)
        assert "The store is closed: open it again to see its rows." in shown.text
        assert shown.pictures == []


def test_damage_is_a_sentence_and_everything_else_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "attributions.h5"
    seal(path, write_parts(tmp_path / "parts", 0, N_ROWS))
    flip_byte(path, chunk_offset(path, "integrated_gradients/attribution", 0))
    with open_store(path) as store:
        text = Shown(store.show([0])._repr_html_()).text
        assert "Cannot be shown:" in text and "integrated_gradients/attribution, rows 0" in text
        assert "accuracy" in Shown(store._repr_html_()).text


def test_texts_cannot_run(tmp_path: Path) -> None:
    path = seal_example(tmp_path, HOSTILE, model_name=HOSTILE[0], dataset_name=HOSTILE[1])
    (tmp_path / "night.json").write_text(json.dumps(NIGHT | {"n_rows": 1, "verdict": HOSTILE[1], "audit": HOSTILE[0]}))
    with open_store(path) as store:
        for html in (store._repr_html_(), store.show(range(4))._repr_html_()):
            assert Shown(html).tags <= {"div", "b", "span", "img"}


def test_the_record_of_a_store_at_an_address_is_read_there(folder: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    pytest.importorskip("aiohttp", reason="the extra `remote` is not installed")
    with served(folder.parent) as server, open_store(f"{server.address}/{folder.name}") as store:
        assert "sealed with warnings: 7 of 160 rows did not converge" in Shown(store._repr_html_()).text
        (folder / "night.json").rename(folder / "aside.json")
        try:
            assert "no verdict" in Shown(store._repr_html_()).text
        finally:
            (folder / "aside.json").rename(folder / "night.json")
        server.status = 503
        shown = Shown(store._repr_html_()).text
        assert "Cannot be shown:" in shown and "cannot be reached" in shown


def test_progress_is_called_and_written(
    store: AttributionStore, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    from storage.read import row_means

    monkeypatch.setattr(row_means, "BLOCK_BYTES", 20 * 24 * 24 * 3 * 8)
    heard: list[tuple[str, int, int]] = []
    mean = store.mean_attribution(progress=lambda *report: heard.append(report))
    assert heard == [("rows", 20, 70), ("rows", 40, 70), ("rows", 60, 70), ("rows", 70, 70)]
    np.testing.assert_array_equal(mean, store.mean_attribution())
    rows = store.rows(correct=False)[::-1]
    read = store.attributions(rows, "predicted", progress=True)
    np.testing.assert_array_equal(read, store.attributions(rows, "predicted"))
    assert capsys.readouterr().err.endswith("| 100%\n")
    store.mean_map(progress=True)
    assert "rows" in capsys.readouterr().err
    store.mean_map()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_light_and_on_a_dark_page(browser: "Browser", store: AttributionStore, scheme: str) -> None:
    back, front = ("#ffffff", "#1f1f1f") if scheme == "light" else ("#111111", "#dddddd")
    page = browser.new_page(viewport={"width": 700, "height": 900})
    heard: list[str] = []
    page.on("request", lambda request: None if request.url.startswith("data:") else heard.append(request.url))
    page.set_content(
        f'<body style="background:{back};color:{front}">{store._repr_html_()}{store.show(range(5))._repr_html_()}'
    )
    own = page.evaluate(
        """() => [...document.querySelectorAll("body *")].map((node) => getComputedStyle(node))
        .map((style) => `${style.color} ${style.backgroundColor}`)"""
    )
    shown = "rgb(31, 31, 31)" if scheme == "light" else "rgb(221, 221, 221)"
    assert set(own) == {f"{shown} rgba(0, 0, 0, 0)"}, (
        "every text has the page's own colour, and no background of its own"
    )
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert heard == []
    page.close()
