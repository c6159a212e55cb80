"""browse over nights at an address: those that `run.publish_to` left in an S3, and those that a server of files lists."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from browsed_root import AFTER, BEFORE, BEGUN, browsing, make_root
from file_server import FileServer, served
from local_s3 import local_s3
from storage import Catalog, StoreNotFound, StoreUnreachable
from tasks.browse import published_nights
from tasks.browse.places import PublishedRoot
from tasks.browse.shown_nights import ShownNights

PREFIX = "team/published"
ADDRESS = f"s3://lens/{PREFIX}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root as it is published: its last night was cut before its night.json."""
    root = make_root(tmp_path_factory.mktemp("root"))
    cut = Catalog(root).night_dir(BEGUN)
    (cut / "attributions.h5.partial").rename(cut / "gallery.png")
    (root / "latest").write_text(f"nights/{AFTER}\n")
    return root


@pytest.fixture(scope="module")
def bucket(root: Path) -> Iterator[Any]:
    with local_s3("lens") as client:
        send(client, root, root)
        yield client


def send(client: Any, root: Path, folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "lens", f"{PREFIX}/{file.relative_to(root)}")


@pytest.fixture(scope="module")
def client(bucket: Any) -> Iterator[httpx.Client]:
    with browsing(ADDRESS) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture
def files(root: Path) -> Iterator[FileServer]:
    with served(root) as server:
        yield server


def test_the_list_has_every_night_of_the_address(client: httpx.Client) -> None:
    text = client.get("/").text
    assert [night for night in (BEGUN, AFTER, BEFORE) if f'href="/nights/{night}/"' in text] == [AFTER, BEFORE]
    assert re.search(rf"{BEGUN}.*?not whole.*?the copy was cut", text, re.S)
    assert re.findall(r"<small>(\S+), latest</small>", text) == [AFTER]
    assert f"of {ADDRESS}, the newest first" in text
    assert text.count("sealed with warnings") == 2


def test_a_night_there_is_the_night_that_was_published(client: httpx.Client, root: Path) -> None:
    asked = {"rows": "0,7,90", "size": 64}
    with browsing(root) as address:
        expected = httpx.get(f"{address}/nights/{AFTER}/pictures", params=asked, timeout=60).json()
    assert client.get(f"/nights/{AFTER}/pictures", params=asked).json() == expected
    page = client.get(f"/nights/{AFTER}/").text
    assert "accuracy fell" in page
    assert 'href="/"' in page


def test_nights_there_are_seen_beside_each_other(client: httpx.Client) -> None:
    assert [each["id"] for each in client.get("/others", params={"night": AFTER}).json()] == [BEFORE]
    deadline = time.monotonic() + 180
    while "being read" in (text := client.get("/compare", params={"before": BEFORE, "after": AFTER}).text):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Predictions that changed" in text


def test_a_night_that_is_published_later_is_in_the_list(
    client: httpx.Client, bucket: Any, root: Path, tmp_path: Path
) -> None:
    later = "20261125T020000Z-dddddd"
    shutil.copytree(Catalog(root).night_dir(AFTER), tmp_path / "nights" / later)
    assert client.get(f"/nights/{later}/").status_code == 404
    send(bucket, tmp_path, tmp_path)
    assert f'href="/nights/{later}/"' in client.get("/").text
    assert client.get(f"/nights/{later}/").status_code == 200


@pytest.mark.parametrize("below", [f"nights/{AFTER}", f"nights/{AFTER}/", f"nights/{AFTER}/attributions.h5"])
def test_a_night_at_an_address_brings_the_others(bucket: Any, below: str) -> None:
    nights = ShownNights(f"{ADDRESS}/{below}")
    assert (nights.start, nights.shown, nights.root) == (AFTER, ADDRESS, None)
    assert {AFTER, BEFORE} < {line.id for line in nights.lines()}


def test_a_prefix_without_nights_is_one_line(bucket: Any) -> None:
    with pytest.raises(StoreNotFound, match=r"s3://lens/elsewhere: no store was found"):
        ShownNights("s3://lens/elsewhere")


def test_a_server_of_files_that_lists_them_is_a_root_too(files: FileServer) -> None:
    nights = ShownNights(files.address)
    assert [(line.id, line.state) for line in nights.lines()] == [
        (BEGUN, "not whole"),
        (AFTER, "sealed"),
        (BEFORE, "sealed"),
    ]
    assert nights.open(BEFORE).rows([3], 64)["rows"][0]["row"] == 3


@pytest.mark.parametrize("status", [400, 403, 405, 503])
@pytest.mark.parametrize("below", ["", f"/nights/{AFTER}/attributions.h5"])
def test_where_nights_may_not_be_listed_the_one_is_shown_and_said(files: FileServer, below: str, status: int) -> None:
    files.refused, files.refusal = {"/nights", "/nights/"}, status
    nights = ShownNights(files.address + below)
    assert (nights.has_list, nights.start) == (False, AFTER)
    assert re.fullmatch(
        r"other nights cannot be listed: http://\S+: (access was refused|cannot be reached) .*", nights.note
    )
    assert nights.open(AFTER).rows([3], 64)["rows"][0]["row"] == 3


def test_a_latest_that_moves_does_not_change_what_was_opened(root: Path, tmp_path: Path) -> None:
    """The store that has given its id is the one that is shown."""
    copied = shutil.copytree(root, tmp_path / "root")
    with served(copied) as server:
        server.refused = {"/nights", "/nights/"}
        nights = ShownNights(server.address)
        (copied / "latest").write_text(f"nights/{BEFORE}\n")
        assert nights.open(nights.start).store.attributes["run_id"] == AFTER


@pytest.mark.parametrize("name", ["week12.h5", "attributions.h5", "bare"])
def test_a_store_that_lies_in_a_folder_called_nights_is_itself(bucket: Any, root: Path, name: str) -> None:
    store = Catalog(root).night_dir(AFTER) / "attributions.h5"
    bucket.upload_file(str(store), "lens", f"flat/nights/{name}")
    nights = ShownNights(f"s3://lens/flat/nights/{name}")
    assert (nights.has_list, nights.start) == (False, AFTER)


def test_what_is_no_night_is_not_listed(bucket: Any, root: Path) -> None:
    for key in ("odd/nights/", "odd/nights/README.md", "odd/nights/docs/index.html"):
        bucket.put_object(Bucket="lens", Key=key, Body=b"")
    with pytest.raises(StoreNotFound, match="no store was found"):
        ShownNights("s3://lens/odd")
    record = Catalog(root).night_dir(AFTER) / "night.json"
    bucket.upload_file(str(record), "lens", f"odd/nights/{AFTER}/night.json")
    assert [line.id for line in ShownNights("s3://lens/odd").lines()] == [AFTER]


@pytest.mark.parametrize("prefix", ["a[1]", "x*", "a b", "50%25", "ü"])
def test_a_prefix_of_any_letters_is_listed_and_opened(bucket: Any, root: Path, prefix: str) -> None:
    for name in ("night.json", "attributions.h5"):
        file = Catalog(root).night_dir(AFTER) / name
        bucket.upload_file(str(file), "lens", f"{prefix}/nights/{AFTER}/{name}")
    nights = ShownNights(f"s3://lens/{prefix}")
    assert [(line.id, line.state) for line in nights.lines()] == [(AFTER, "sealed")]
    assert nights.open(AFTER).rows([3], 64)["rows"][0]["row"] == 3


def test_a_night_that_is_sent_anew_is_read_anew(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_nights, "RECORD_KEPT_S", 0.0)
    monkeypatch.setattr(published_nights, "STAMP_KEPT_S", 0.0)
    copied = shutil.copytree(root, tmp_path / "root")
    folder = Catalog(copied).night_dir(AFTER)
    with served(copied) as server:
        nights = ShownNights(server.address)
        before = nights.open(AFTER)
        assert nights.open(AFTER) is before
        (folder / "night.json").rename(folder / "kept.json")
        assert [line.state for line in nights.lines() if line.id == AFTER] == ["not whole"]
        shutil.copy(Catalog(copied).night_dir(BEFORE) / "attributions.h5", folder)
        (folder / "night.json").write_text('{"n_rows": 1, "accuracy": 0.125, "verdict": "sealed"}')
        assert [(line.accuracy, line.warnings) for line in nights.lines() if line.id == AFTER] == [(0.125, ())]
        assert nights.open(AFTER).store.attributes["run_id"] == BEFORE


def test_a_record_that_cannot_be_had_now_is_no_damage(files: FileServer) -> None:
    files.refused, files.refusal = {f"/nights/{AFTER}/night.json"}, 503
    nights = ShownNights(files.address)
    line = nights.lines()[1]
    assert (line.id, line.state, line.can_open) == (AFTER, "not read", True)
    assert "cannot be reached" in line.note
    files.refused = set()
    assert nights.lines()[1].state == "sealed"


def test_a_night_that_is_slow_to_open_holds_up_nobody_else(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nights, begun, goes_on = ShownNights(ADDRESS), threading.Event(), threading.Event()
    open_one = PublishedRoot.open

    def slow(place: PublishedRoot, night_id: str) -> Any:
        if night_id == BEFORE:
            begun.set()
            assert goes_on.wait(120)
        return open_one(place, night_id)

    monkeypatch.setattr(PublishedRoot, "open", slow)
    waiting = threading.Thread(target=nights.open, args=(BEFORE,))
    waiting.start()
    assert begun.wait(60)
    assert nights.open(AFTER).id == AFTER
    goes_on.set()
    waiting.join(60)
    assert not waiting.is_alive()
    assert set(nights._open) == {AFTER, BEFORE}


def test_an_address_that_stops_answering_is_a_line_on_the_list_and_it_comes_back(files: FileServer) -> None:
    with browsing(files.address) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get("/").status_code == 200
        files.status = 500
        answer = client.get("/")
        assert answer.status_code == 503
        assert "cannot be reached" in answer.text
        files.status = 200
        assert client.get("/").status_code == 200


def test_an_address_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(StoreUnreachable, match=r"http://127.0.0.1:9: cannot be reached"):
        ShownNights("http://127.0.0.1:9")


def test_a_record_that_cannot_be_read_is_said_and_the_night_is_shown(root: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(root, tmp_path / "root")
    (Catalog(copied).night_dir(BEFORE) / "night.json").write_text('{"n_rows": "many"}')
    with served(copied) as server:
        nights = ShownNights(server.address)
        line = nights.lines()[-1]
        assert (line.id, line.state, line.can_open) == (BEFORE, "damaged", True)
        assert "n_rows cannot be 'many'" in line.note
        assert "cannot be read" in nights.open(BEFORE).page(home=True)


def test_secrets_of_an_address_are_not_shown(files: FileServer) -> None:
    nights = ShownNights(files.address.replace("//", "//me:secret@"))
    assert nights.has_list
    assert nights.shown == files.address
