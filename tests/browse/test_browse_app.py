"""What browse answers over HTTP: the nights, a night's page, pictures as the store has them; and one line for what is wrong."""

import io
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browsed_root import AFTER, BEFORE, BEGUN, browsing, make_root
from file_server import served
from places import DATA
from reported_night import HOSTILE, N_ROWS, seal_example
from storage import Catalog, open_store
from tasks.browse import comparisons as comparisons_module
from tasks.browse.browse_server import claimed_port
from tasks.browse.comparisons import Comparisons
from tasks.browse.shown_nights import MOST_OPEN, ShownNights
from tasks.report.picture_strips import draw_rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[httpx.Client]:
    with browsing(root) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> str:
    """What a page says is wrong."""
    assert answer.status_code == status, answer.text
    found = re.search(r'<p role="status">(.*?)</p>', answer.text, re.S)
    assert found
    return found[1]


def test_the_list_has_every_night_and_only_sealed_ones_can_be_opened(client: httpx.Client) -> None:
    text = client.get("/").text
    assert [night for night in (AFTER, BEFORE, BEGUN) if f'href="/nights/{night}/"' in text] == [AFTER, BEFORE]
    assert BEGUN in text
    assert "sealed with warnings" in text


def test_a_night_is_the_report_without_a_picture_of_a_row(client: httpx.Client) -> None:
    answer = client.get(f"/nights/{AFTER}")
    assert answer.status_code == 307
    text = client.get(f"/nights/{AFTER}/").text
    assert "What the explanations are worth" in text
    assert '"pictures": []' in text
    assert "connect-src 'self'" in text
    assert client.get(f"/nights/{AFTER}/").headers["content-security-policy"] == "frame-ancestors 'none'"


def test_pictures_are_those_of_the_store_in_any_order_and_size(client: httpx.Client, root: Path) -> None:
    rows = [159, 3, 64, 3]
    answer = client.get(f"/nights/{AFTER}/pictures", params={"rows": ",".join(map(str, rows)), "size": 16}).json()
    with open_store(Catalog(root).night_dir(AFTER)) as store:
        drawn = draw_rows(store, [(row, "") for row in (3, 64, 159)], np.inf, 16)
        wrong = (~store.values("correct", [3, 64, 159])).tolist()
        names = store.values("label_name", [3, 64, 159]).tolist()
    assert [entry["row"] for entry in answer["rows"]] == [3, 64, 159]
    for entry, own, is_wrong, name in zip(answer["rows"], drawn, wrong, names, strict=True):
        assert entry["image"] == own.image
        assert {group: heat["source"] for group, heat in entry["true"].items()} == {
            group: heat.source for group, heat in own.true.items()
        }
        assert bool(entry["predicted"]) == is_wrong
        assert entry["told"].startswith(f"{name}, taken for" if is_wrong else f"{name}, rightly")


@pytest.mark.parametrize(
    ("rows", "size", "status", "said"),
    [
        ("1,x", "64", 400, "expected row numbers with commas between, got 'x'"),
        ("-1", "64", 400, "expected row numbers with commas between, got '-1'"),
        ("٣", "64", 400, "expected row numbers"),
        (",".join(map(str, range(101))), "64", 400, "expected at most 100 rows at a time, got 101"),
        ("1", "0", 400, "expected a size in pixels from 1 to 1024, got '0'"),
        ("1", "1e3", 400, "expected a size in pixels"),
        ("160", "64", 404, "160"),
    ],
)
def test_wrong_rows_are_one_line_for_the_page_that_asked(
    client: httpx.Client, rows: str, size: str, status: int, said: str
) -> None:
    answer = client.get(f"/nights/{AFTER}/pictures", params={"rows": rows, "size": size})
    assert answer.status_code == status
    assert said in answer.json()["problem"]
    assert "\n" not in answer.json()["problem"]


@pytest.mark.parametrize("night", ["20260101T000000Z-ffffff", "..%2f..%2fetc", "%2e%2e", "a%0ab"])
def test_a_night_that_is_not_there_is_refused(client: httpx.Client, night: str) -> None:
    answer = client.get(f"/nights/{night}/")
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text


def test_another_sites_name_is_not_answered_to(client: httpx.Client) -> None:
    """A page of a foreign site whose name it lets point here (DNS rebinding) must read nothing."""
    answer = client.get("/", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.text) == (400, "Invalid host header")
    assert "access-control-allow-origin" not in client.get("/").headers


def test_what_a_page_of_another_site_asks_for_by_itself_is_refused(client: httpx.Client) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    form = {"rows": "1", "to": "png"}
    assert (
        client.post(f"/nights/{AFTER}/save", data=form, headers=foreign | {"Sec-Fetch-Mode": "navigate"}).status_code
        == 403
    )
    assert client.get("/compare", headers=foreign | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get(f"/nights/{AFTER}/", headers=foreign | {"Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_the_means_are_computed_once_and_are_those_of_the_report(client: httpx.Client) -> None:
    text = client.get(f"/nights/{AFTER}/means").text
    assert text.count("<li>") == 3
    assert text == client.get(f"/nights/{AFTER}/means").text


def test_a_selection_is_saved_as_parquet_and_as_png(client: httpx.Client, root: Path) -> None:
    rows = [9, 3, 150]
    answer = client.post(f"/nights/{AFTER}/save", data={"rows": "9,3,150", "to": "parquet"})
    assert answer.headers["content-disposition"].endswith(f"{AFTER}-3-rows.parquet")
    with open_store(Catalog(root).night_dir(AFTER)) as store:
        expected = store.table(sorted(rows))
    pd.testing.assert_frame_equal(
        pd.read_parquet(io.BytesIO(answer.content)).set_index("row"), expected, check_dtype=False
    )
    picture = Image.open(io.BytesIO(client.post(f"/nights/{AFTER}/save", data={"rows": "9,3", "to": "png"}).content))
    assert picture.format == "PNG"
    assert min(picture.size) > 300


@pytest.mark.parametrize("form", [{"rows": "", "to": "png"}, {"rows": "1", "to": "exe"}, {"rows": "1;2", "to": "png"}])
def test_nothing_else_is_saved(client: httpx.Client, form: dict[str, str]) -> None:
    answer = client.post(f"/nights/{AFTER}/save", data=form)
    assert answer.status_code == 400
    assert "expected" in answer.json()["problem"]


def test_others_are_the_nights_on_the_same_images(client: httpx.Client) -> None:
    assert [night["id"] for night in client.get("/others", params={"night": AFTER}).json()] == [BEFORE]


def test_two_nights_are_compared_in_the_background(client: httpx.Client) -> None:
    deadline = time.monotonic() + 180
    while "being read" in (text := client.get("/compare", params={"before": BEFORE, "after": AFTER}).text):
        assert 'http-equiv="refresh"' in text
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Predictions that changed: 0" in text
    assert f'href="/nights/{BEFORE}/"' in text
    assert "/nights/nowhere" not in text
    assert problem(client.get("/compare", params={"before": BEFORE, "after": "nowhere"}), 404)


def test_nights_on_other_images_are_not_compared_and_the_pages_live_on(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    folder = Catalog(root).night_dir(BEGUN)
    seal_example(folder, run_id=BEGUN, dataset_sha256="other", names=["x", "y", "z"])
    with browsing(root) as address, httpx.Client(base_url=address, timeout=60) as client:
        deadline = time.monotonic() + 180
        asked = {"before": BEFORE, "after": BEGUN}
        while (answer := client.get("/compare", params=asked)).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "\n" not in problem(answer, 400).strip()
        assert client.get(f"/nights/{BEFORE}/").status_code == 200


def test_names_and_notes_are_text(tmp_path: Path) -> None:
    with (
        browsing(make_root(tmp_path / "root", HOSTILE)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for path in (f"/nights/{AFTER}/", f"/nights/{AFTER}/means", "/nights/%3Cscript%3Ealert(1)/"):
            text = client.get(path).text
            assert "<script>window" not in text
            assert "<script>alert" not in text
            assert "<img src=x" not in text


@pytest.mark.parametrize("store", sorted(DATA.glob("schema-*.h5")), ids=lambda path: path.stem)
def test_stores_of_every_schema_are_shown(store: Path) -> None:
    with browsing(store) as address, httpx.Client(base_url=address, follow_redirects=True, timeout=60) as client:
        answer = client.get("/")
        assert answer.status_code == 200
        row = re.search(r'"start": (\d+)', answer.text)
        assert row
        pictures = client.get(f"{answer.url.path}pictures", params={"rows": row[1], "size": 64})
        assert pictures.json()["rows"][0]["image"].startswith("data:image/webp")


def test_a_damaged_store_is_one_line_and_the_others_live_on(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    (Catalog(root).night_dir(AFTER) / "attributions.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(3000))
    with browsing(root) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert "attributions.h5" in problem(client.get(f"/nights/{AFTER}/"), 400)
        assert client.get(f"/nights/{BEFORE}/").status_code == 200
        assert client.get("/").status_code == 200
        assert client.get("/others", params={"night": BEFORE}).json() == []


def test_an_address_that_stops_answering_is_said_and_it_comes_back(root: Path) -> None:
    with served(Catalog(root).night_dir(AFTER)) as server:
        place = f"{server.address}/attributions.h5"
        with browsing(place) as address, httpx.Client(base_url=address, follow_redirects=True, timeout=60) as client:
            page = client.get("/").url.path
            server.status = 500
            # What was fetched before is still there; these rows were not.
            answers = [client.get(f"{page}pictures", params={"rows": row, "size": 64}) for row in range(0, N_ROWS, 20)]
            refused = [answer for answer in answers if answer.status_code == 503]
            server.status = 200
            assert refused
            assert all("http" in answer.json()["problem"] for answer in refused)
            for row in range(0, N_ROWS, 20):
                assert client.get(f"{page}pictures", params={"rows": row, "size": 64}).status_code == 200


def test_few_stores_are_open_at_a_time(tmp_path: Path) -> None:
    root = tmp_path / "root"
    ids = [f"2026112{k}T020000Z-aaaaaa" for k in range(MOST_OPEN + 2)]
    for night_id in ids:
        folder = Catalog(root).night_dir(night_id)
        folder.mkdir(parents=True)
        seal_example(folder, run_id=night_id)
    nights = ShownNights(str(root))
    first = nights.open(ids[0])
    assert nights.open(ids[0]) is first
    for night_id in ids[1:]:
        nights.open(night_id)
    assert len(nights._open) == MOST_OPEN
    assert first.store.values("label", 0) is not None  # still open for whoever reads it
    assert nights.open(ids[0]) is not first


def test_a_night_that_was_written_anew_is_opened_anew(tmp_path: Path) -> None:
    nights = ShownNights(str(make_root(tmp_path / "root")))
    before = nights.open(AFTER)
    (Catalog(tmp_path / "root").night_dir(AFTER) / "night.json").write_text('{"verdict": "sealed", "n_rows": 160}')
    assert nights.open(AFTER) is not before


@pytest.mark.parametrize("below", ["", f"nights/{AFTER}", f"nights/{AFTER}/attributions.h5"])
def test_a_store_within_a_root_brings_its_other_nights(root: Path, below: str) -> None:
    for place in (str(root / below), (root / below).as_uri()):
        nights = ShownNights(place)
        assert nights.root == root.resolve()
        assert nights.start == (AFTER if below else "")


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"--port {port}: it is taken by another program; give another one, or 0"):
            claimed_port(port)


def flip_chunk(store: Path, dataset: str, number: int) -> None:
    with h5py.File(store) as file:
        chunk = file[dataset].id.get_chunk_info(number)
    data = bytearray(store.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    store.write_bytes(data)


def test_a_damaged_chunk_costs_its_own_rows_alone(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    store = Catalog(root).night_dir(AFTER) / "attributions.h5"
    flip_chunk(store, "integrated_gradients/attribution", 0)
    with browsing(root) as address, httpx.Client(base_url=address, timeout=60) as client:
        answer = client.get(f"/nights/{AFTER}/pictures", params={"rows": ",".join(map(str, range(100))), "size": 64})
    entries = answer.json()["rows"]
    assert [entry["row"] for entry in entries] == list(range(100))
    assert "problem" in entries[0] and "rows" in entries[0]["problem"]
    assert "problem" not in entries[99] and entries[99]["image"]


@pytest.mark.parametrize(("run_id", "asked"), [("team/run 1#", "store"), ("run-1", "run-1")])
def test_a_store_by_itself_is_asked_for_by_an_id_that_fits_an_address(tmp_path: Path, run_id: str, asked: str) -> None:
    store = seal_example(tmp_path, run_id=run_id)
    with browsing(store) as address, httpx.Client(base_url=address, follow_redirects=True, timeout=60) as client:
        answer = client.get("/")
        assert answer.status_code == 200
        assert answer.url.path == f"/nights/{asked}/"


def test_a_night_is_asked_for_by_its_folder_whatever_its_store_says(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    copied = "20261124T030000Z-dddddd"
    shutil.copytree(Catalog(root).night_dir(AFTER), Catalog(root).night_dir(copied))
    shutil.copytree(Catalog(root).night_dir(AFTER), Catalog(root).nights / "a copy")
    with browsing(root) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert f'"night": "{copied}"' in client.get(f"/nights/{copied}/").text
        assert 'href="/nights/a' not in client.get("/").text
        deadline = time.monotonic() + 180
        asked = {"before": BEFORE, "after": copied}
        while "being read" in (text := client.get("/compare", params=asked).text):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert f"/nights/{copied}/?beside={BEFORE}#row-" in text


def test_the_record_of_a_night_is_read_at_its_address(root: Path) -> None:
    with (
        served(Catalog(root).night_dir(AFTER)) as server,
        browsing(f"{server.address}/attributions.h5") as address,
    ):
        text = httpx.get(address, follow_redirects=True, timeout=60).text
    assert "never finished" not in text
    assert "accuracy fell" in text


def test_a_record_that_cannot_be_read_is_said_and_the_rows_are_shown(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    (Catalog(root).night_dir(AFTER) / "night.json").write_text("{")
    with browsing(root) as address, httpx.Client(base_url=address, timeout=60) as client:
        answer = client.get(f"/nights/{AFTER}/")
        assert answer.status_code == 200
        assert "with a record that cannot be read" in answer.text


def test_comparisons_make_room_and_begin_anew_where_a_night_is_another(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    nights = ShownNights(str(root))
    comparisons = Comparisons(nights)
    first = comparisons.of(BEFORE, AFTER)
    first.page.result(60)
    assert comparisons.of(BEFORE, AFTER) is first
    (Catalog(root).night_dir(AFTER) / "night.json").write_text('{"verdict": "sealed", "n_rows": 160, "accuracy": 1}')
    anew = comparisons.of(BEFORE, AFTER)
    assert anew is not first
    anew.page.result(60)
    comparisons.close()


def test_no_more_comparisons_wait_than_a_few(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(comparisons_module, "compare_stores", lambda *_: goes_on.wait(60) and 1 / 0)
    comparisons = Comparisons(ShownNights(str(root)))
    pairs = [(BEFORE, AFTER), (AFTER, BEFORE), (BEFORE, BEFORE), (AFTER, AFTER)]
    waiting = [comparisons.of(*pair) for pair in pairs]
    assert [comparisons.of(*pair) for pair in pairs] == waiting
    comparisons._kept["x", "y"] = comparisons._kept.pop(pairs[0])
    with pytest.raises(ValueError, match="4 comparisons are being made; come back when one of them is done"):
        comparisons.of(*pairs[0])
    goes_on.set()
    comparisons.close()


def test_a_night_that_was_pruned_is_let_go(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    nights = ShownNights(str(root))
    store = nights.open(AFTER).store
    shutil.rmtree(Catalog(root).night_dir(AFTER))
    nights.open(BEFORE)
    assert AFTER not in nights._open
    assert not store.is_closed  # by whoever still reads it
