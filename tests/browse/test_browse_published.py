"""browse over nights at an address: those that `run.publish_to` left in an S3, and those that a server of files lists."""

import re
import shutil
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
    assert re.search(rf"{BEGUN}.*?not whole.*?its copy was cut", text, re.S)
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


def test_where_nights_may_not_be_listed_the_latest_is_shown_and_said(files: FileServer) -> None:
    files.refused = {"/nights", "/nights/"}
    nights = ShownNights(files.address)
    assert (nights.has_list, nights.start) == (False, AFTER)
    assert re.fullmatch(r"other nights cannot be listed: http://\S+: access was refused .*", nights.note)


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
