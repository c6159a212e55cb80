"""Pages of the Prefect UI: foreign names are inert in them, they stay small, and a server that fails cannot fail the night."""

import base64
import io
import logging
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.exceptions import PrefectException
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

from hostile_texts import NASTY, unescape
from tasks.night import outage
from tasks.pages import page
from tasks.pages.figures.page_figures import text_figure
from tasks.pages.page import Page, drawing, escape

LIMIT = 500_000
nasty = pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())


@nasty
def test_escaped_names_are_shown_as_they_are(name: str) -> None:
    """Nothing in them means anything to markdown or HTML inside a line, and a browser shows the very name."""
    escaped = escape(name)
    assert re.fullmatch(r"(\\[!-/:-@\[-`{-~]|[^|<>`*_\[\]{}~!\\\n\r\t\0\x1b\"$^@&#])*", escaped)
    shown = unescape(escaped)
    assert shown == re.sub(r"[\0\x1b\u202e\udce9]", "\ufffd", re.sub(r"\s", " ", name))
    assert escaped.encode()


@nasty
def test_a_name_stays_in_its_cell(name: str) -> None:
    page = Page("names", "Look for names.")
    page.table([{"class": name, name: 1.5}, {"class": "cat", name: 2}])
    lines = [line for line in page.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}


@nasty
def test_a_name_stays_in_its_heading_picture_and_code(name: str) -> None:
    page = Page("names", "Look for names.")
    page.heading(name)
    page.picture(noise(1, side=8), name)
    page.code(name)
    heading, picture, code = page.markdown().split("\n\n", 2)
    assert heading.splitlines() == [heading]
    assert heading.startswith("# ")
    assert re.fullmatch(r"!\[(\\.|[^\\\[\]\n])*\]\(data:image/png;base64,[A-Za-z0-9+/=]+\)", picture)
    assert code.count("```") == 2
    assert not re.search(r"(?<!\\)<\w", page.markdown().replace(code, ""))


@pytest.mark.parametrize(
    ("value", "cell"),
    [(0.123456789, "0.1235"), (np.float32(1e-7), "1e-07"), (1234567, "1234567"), (True, "True"), (None, "None")],
    ids=["float", "float32", "int", "bool", "none"],
)
def test_numbers_are_rounded(value: object, cell: str) -> None:
    page = Page("numbers", "Look for numbers.")
    page.table([{"value": value}])
    assert f"| {cell} |" in page.markdown()


def test_a_paragraph_is_one_line() -> None:
    """The older UI would show each line of it as a paragraph."""
    page = Page("text", "Look.")
    page.text("one\ntwo\n\nthree\nfour")
    assert page.markdown() == "one two\n\nthree four"


def test_an_empty_table_is_no_table() -> None:
    page = Page("empty", "Look.")
    page.table([])
    assert page.markdown() == ""


def noise(seed: int, side: int = 128) -> NDArray[np.uint8]:
    """A picture that no encoding makes small."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def pictures_in(markdown: str) -> list[NDArray[np.uint8]]:
    found = re.findall(r"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/=]+)", markdown)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in found]


def test_pictures_are_in_the_page_and_decode_to_what_was_given() -> None:
    flat = np.zeros((20, 30, 3), np.uint8)
    flat[:10] = (255, 0, 128)
    page = Page("gallery", "Look.")
    page.picture(flat, "row 7")
    (shown,) = pictures_in(page.markdown())
    np.testing.assert_array_equal(shown, flat)


def test_without_pictures_no_figure_is_made() -> None:
    page = Page("k", "Look.")
    page.heading("one")
    with drawing(False):
        page.figure(lambda: pytest.fail("a figure is made"), "row 7", thumbnail=True)
        page.picture(noise(7), "row 7", thumbnail=True)
    assert (page.markdown(), page.description()) == ("# one", "Look.\n\n")
    page.figure(partial(text_figure, "drawn"), "row 7")
    assert len(pictures_in(page.markdown())) == 1


@pytest.mark.parametrize("n_pictures", [5, 60])
def test_pictures_stay_under_the_limit_and_what_is_left_out_is_said(n_pictures: int) -> None:
    page = Page("gallery", "Look.")
    add_noise(page, n_pictures)
    markdown = page.markdown()
    assert len(markdown.encode()) < LIMIT
    n_shown = len(pictures_in(markdown))
    if n_pictures == 5:
        assert n_shown == 5
        assert "would not fit" not in markdown
    else:
        assert 5 < n_shown < n_pictures
        assert (
            f"{n_pictures - n_shown} more picture(s) would not fit this page; they are in the night's folder"
            in markdown
        )


def add_noise(page: Page, n_pictures: int) -> None:
    for row in range(n_pictures):
        page.picture(noise(row), f"row {row}")


def crowded_gallery() -> Page:
    page = Page("gallery", "Look.")
    for row in range(200):
        page.picture(noise(row, side=64), "<" * 300)
        page.table([{"row": row, "class": "|" * 300, "taken for": "猫" * 300}])
    return page


def long_table() -> Page:
    page = Page("evaluation", "Look.")
    add_noise(page, 60)
    page.table([{"class": f"{k} {'|' * 100}", "precision": 0.5, "images": k} for k in range(5_000)])
    return page


def long_listing() -> Page:
    page = Page("training", "Look.")
    page.code("layer\n" * 100_000)
    add_noise(page, 60)
    return page


@pytest.mark.parametrize("make", [crowded_gallery, long_table, long_listing], ids=lambda make: make.__name__)
def test_names_tables_and_texts_count_too(make) -> None:
    """A thousand classes with long names must not make a page that the UI cannot load; what is cut is said."""
    markdown = make().markdown()
    assert len(markdown.encode()) < LIMIT
    assert "would not fit this page" in markdown


# Uploading.

outside_a_run = pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow:FutureWarning")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What a page logs, outside a run."""
    monkeypatch.setattr(outage, "get_run_logger", lambda: logging.getLogger("nightlens.test"))
    return caplog


@pytest.fixture
def failing_server() -> Iterator[str]:
    """A server that answers 500 to everything."""

    class Failing(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(500)
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def page_with_a_picture() -> Page:
    page = Page("gallery-test", "Look for heat.")
    page.picture(noise(1, side=32), "row 1", thumbnail=True)
    return page


@outside_a_run
def test_a_server_that_fails_is_logged_and_does_not_raise(
    failing_server: str, logged: pytest.LogCaptureFixture
) -> None:
    with temporary_settings({PREFECT_API_URL: failing_server, PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert page_with_a_picture().publish() is False
    assert "artifact gallery-test could not be uploaded" in logged.text


@outside_a_run
def test_a_server_that_is_gone_is_logged_and_does_not_raise(
    failing_server: str, logged: pytest.LogCaptureFixture
) -> None:
    gone = re.sub(r":\d+/", ":9/", failing_server)
    with temporary_settings(
        {PREFECT_API_URL: gone, PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}
    ):
        assert page_with_a_picture().publish() is False
    assert "artifact gallery-test could not be uploaded" in logged.text


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), PrefectException("no")], ids=lambda e: type(e).__name__)
def test_an_upload_that_fails_is_logged_and_does_not_raise(
    monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(page, "create_markdown_artifact", fail)
    assert page_with_a_picture().publish() is False
    assert f"artifact gallery-test could not be uploaded: {error}" in logged.text


@pytest.mark.usefixtures("prefect_server")
def test_a_page_arrives_with_its_thumbnail_in_the_description() -> None:
    @flow
    def publishing() -> bool:
        return page_with_a_picture().publish()

    assert publishing() is True
    with get_client(sync_client=True) as client:
        (stored,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["gallery-test"])))
    assert len(pictures_in(str(stored.data))) == 1
    assert str(stored.description).startswith("Look for heat.")
    (thumbnail,) = pictures_in(str(stored.description))
    assert max(thumbnail.shape) <= page.THUMBNAIL_PIXELS
    assert str(stored.data).count("row 1") == 1
