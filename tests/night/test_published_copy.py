"""A finished night at an address, on a real local S3: all of it, the point last, what is there not sent again, a warning else."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from command import nightlens
from environment import clean_environment
from local_s3 import local_s3, s3_environment
from packed_night import NIGHT, night_to_hand_over, result_of
from places import REPOSITORY
from storage import StoreCorrupt, StoreError, StoreNotFound, open_store
from tasks.config import RunConfig
from tasks.handover.published_copy import check_address, copy_night, publish_copy
from tasks.night.result import NightWarning
from waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_run_logger")
WAIT_S = 60.0
PLACE = f"prefix/nights/{NIGHT}"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with local_s3("nights") as client:
        yield client


@pytest.fixture
def bucket(client: Any) -> Iterator[Any]:
    """The client, its bucket empty."""
    yield client
    for thing in client.list_objects_v2(Bucket="nights").get("Contents", []):
        client.delete_object(Bucket="nights", Key=thing["Key"])


@pytest.fixture(params=["single", "virtual"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return night_to_hand_over(tmp_path / "root", layout=request.param)


def there(bucket: Any) -> dict[str, bytes]:
    """What is at the address, by its key, in the order in which it came."""
    found = bucket.list_objects_v2(Bucket="nights").get("Contents", [])
    return {
        thing["Key"]: bucket.get_object(Bucket="nights", Key=thing["Key"])["Body"].read()
        for thing in sorted(found, key=lambda thing: thing["LastModified"])
    }


def own_files(folder: Path) -> dict[str, bytes]:
    left = ("pinned", "report.html.0123abcd.tmp")
    return {
        f"{PLACE}/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in left
    }


def test_a_night_is_there_whole_and_opens_by_its_address(folder: Path, bucket: Any) -> None:
    heard: list[tuple[str, int, int]] = []
    copied = copy_night(folder, "s3://nights/prefix", progress=lambda *report: heard.append(report))
    assert there(bucket) == own_files(folder) | {"prefix/latest": f"nights/{NIGHT}\n".encode()}
    assert (copied.n_files, copied.n_sent) == (len(own_files(folder)),) * 2
    assert copied.bytes == copied.bytes_sent == sum(map(len, own_files(folder).values()))
    names = [name for name, _, _ in heard]
    assert names[-2:] == ["attributions.h5", "night.json"]
    assert heard[-1][1:] == (copied.bytes, copied.bytes)
    for address in ("s3://nights/prefix", f"s3://nights/{PLACE}"):
        with open_store(address) as store, open_store(folder) as here:
            assert (store.attributions([3, 149]) == here.attributions([3, 149])).all()
            assert "sealed" in store._repr_html_()


def test_what_is_there_and_equal_is_not_sent_again_and_what_differs_is(folder: Path, bucket: Any) -> None:
    copy_night(folder, "s3://nights/prefix/", is_latest=False)
    assert "prefix/latest" not in there(bucket)
    assert copy_night(folder, "s3://nights/prefix").n_sent == 0
    key = f"{PLACE}/report.html"
    was = there(bucket)[key]
    bucket.put_object(Bucket="nights", Key=key, Body=was[:-1] + b"!")
    bucket.delete_object(Bucket="nights", Key=f"{PLACE}/gallery/row-000001-grad-cam.png")
    assert copy_night(folder, "s3://nights/prefix").n_sent == 3, (
        "the two, and night.json, which is taken away meanwhile"
    )
    assert there(bucket) == own_files(folder) | {"prefix/latest": f"nights/{NIGHT}\n".encode()}


def test_a_copy_that_is_killed_looks_unfinished_and_goes_on(folder: Path, bucket: Any, tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from tasks.handover.published_copy import copy_night

def progress(name, done, total):
    if name == "attributions.h5.sha256":
        print("halfway", flush=True)
        time.sleep(600)

copy_night(Path(sys.argv[1]), "s3://nights/prefix", progress=progress)
"""
    command = [sys.executable, "-c", code, str(folder)]
    environment = s3_environment(clean_environment())
    with subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: process.poll() is not None, WAIT_S, "the process ends")
    left = there(bucket)
    assert f"{PLACE}/attributions.h5.sha256" in left
    assert not left.keys() & {f"{PLACE}/attributions.h5", f"{PLACE}/night.json", "prefix/latest"}
    with pytest.raises(StoreNotFound):
        open_store("s3://nights/prefix")
    copied = copy_night(folder, "s3://nights/prefix")
    assert copied.n_sent == copied.n_files - len(left)
    assert there(bucket) == own_files(folder) | {"prefix/latest": f"nights/{NIGHT}\n".encode()}


@pytest.fixture
def spoiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """S3 gets other first bytes than were sent."""
    import s3fs

    def spoil(system: Any, here: str, place: str, **_: Any) -> None:
        system.pipe_file(place, b"\0" + Path(here).read_bytes()[1:])

    # An instance has methods of its own, from when it was made.
    s3fs.S3FileSystem.clear_instance_cache()
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "put_file", spoil)
        yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("spoiling")
def test_what_reads_back_as_something_else_is_refused(folder: Path, bucket: Any) -> None:
    with pytest.raises(StoreCorrupt, match=r"s3://nights/prefix/nights/.*: sent with the sha256 .*, read back as"):
        copy_night(folder, "s3://nights/prefix")
    assert f"{PLACE}/night.json" not in there(bucket)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_where_files_are_seen_while_they_are_written_they_get_their_names_when_they_are_whole(
    tmp_path: Path, scheme: str
) -> None:
    fsspec = pytest.importorskip("fsspec")
    folder = night_to_hand_over(tmp_path / "root")
    address = f"file://{tmp_path}/copy" if scheme == "file" else "memory://copy"
    copied = copy_night(folder, address)
    system, root = fsspec.core.url_to_fs(address)
    found = [path for path in system.find(root) if not path.endswith("latest")]
    assert len(found) == copied.n_files and not [path for path in found if path.endswith(".partial")]
    with open_store(f"{address}/nights/{NIGHT}") as store:
        assert len(store) == 150


# A night whose copy fails.


@pytest.mark.parametrize(
    ("address", "reason"),
    [("s3://nowhere/prefix", "s3://nowhere/prefix"), ("file:///proc/nightlens", "file:///proc/nightlens")],
    ids=["no such bucket", "no rights"],
)
def test_an_address_that_refuses_is_a_warning_of_one_line(
    bucket: Any, tmp_path: Path, address: str, reason: str
) -> None:
    result = result_of(night_to_hand_over(tmp_path / "root"))
    warned = publish_copy(result, address)
    (warning,) = warned.warnings
    assert warning.kind == "not-published" and "\n" not in warning.message
    assert warning.message.startswith(f"not whole at {reason}: ")
    assert warning.message.endswith(f"; `nightlens publish {result.store.parent} {address}` goes on with it")
    assert warned.verdict == f"sealed with warnings: {warning.message}"


def test_a_copy_that_is_whole_at_last_takes_its_warning_back(tmp_path: Path, bucket: Any) -> None:
    """By the command, as a person does it; to another address it stays, for there the copy is none."""
    folder, address = night_to_hand_over(tmp_path / "root"), "s3://late/prefix"
    publish_copy(result_of(folder).with_warning(NightWarning(kind="accuracy", message="accuracy fell")), address)
    before = (folder / "report.html").read_bytes()
    other = nightlens("publish", folder, "s3://nights/prefix", environment=s3_environment(clean_environment()))
    assert other.returncode == 0, other.stderr
    assert (folder / "report.html").read_bytes() == before
    record = json.loads((folder / "night.json").read_text())
    assert [warning["kind"] for warning in record["warnings"]] == ["accuracy", "not-published"]
    bucket.create_bucket(Bucket="late")
    done = nightlens("publish", folder, address, environment=s3_environment(clean_environment()))
    assert done.returncode == 0, done.stderr
    sent = bucket.get_object(Bucket="late", Key=f"prefix/nights/{NIGHT}/night.json")["Body"].read()
    record = json.loads(sent)
    assert [warning["kind"] for warning in record["warnings"]] == ["accuracy"]
    assert record["verdict"] == "sealed with warnings: accuracy fell"
    assert sent == (folder / "night.json").read_bytes()
    report = (folder / "report.html").read_text()
    assert "accuracy fell" in report and "not whole at" not in report


def test_a_copy_that_fails_again_leaves_its_warning(tmp_path: Path, bucket: Any) -> None:
    folder, address = night_to_hand_over(tmp_path / "root"), "s3://nowhere/prefix"
    publish_copy(result_of(folder), address)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = nightlens("publish", folder, address, environment=s3_environment(clean_environment()))
    assert (done.returncode, done.stdout) == (2, "")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert b"not-published" in before["night.json"]


def test_an_address_with_file_means_one_folder_to_all(tmp_path: Path) -> None:
    place = tmp_path / "a b#c"
    copy_night(night_to_hand_over(tmp_path / "root"), place.as_uri())
    assert (place / "latest").read_text() == f"nights/{NIGHT}\n"
    with open_store(place.as_uri()) as store:
        assert len(store) == 150
    for use in (lambda address: copy_night(tmp_path / "root" / "nights" / NIGHT, address), open_store):
        with pytest.raises(StoreError, match="expected file:///path, with three slashes; 'rel' would be a host"):
            use("file://rel/out")


def test_a_night_that_is_published_afterwards_does_not_become_the_latest(tmp_path: Path) -> None:
    address, night = f"file://{tmp_path}/there", night_to_hand_over(tmp_path / "root")
    later = night.with_name("99991231T000000Z-ffffff")
    shutil.copytree(night, later)
    pointer = tmp_path / "there" / "latest"
    copy_night(night, address)
    assert pointer.read_text() == f"nights/{NIGHT}\n"
    copy_night(later, address)
    copy_night(night, address)
    assert pointer.read_text() == f"nights/{later.name}\n"


def test_a_server_that_is_away_is_a_warning(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    (warning,) = publish_copy(result_of(night_to_hand_over(tmp_path / "root")), "s3://nights/prefix").warnings
    s3fs.S3FileSystem.clear_instance_cache()
    assert "cannot be reached" in warning.message


def test_where_the_copy_is_whole_the_result_is_as_it_was(tmp_path: Path, bucket: Any) -> None:
    result = result_of(night_to_hand_over(tmp_path / "root"))
    assert publish_copy(result, "s3://nights/prefix") is result
    assert f"{PLACE}/night.json" in there(bucket)


def test_a_night_that_did_not_finish_is_not_copied(tmp_path: Path, bucket: Any) -> None:
    folder = night_to_hand_over(tmp_path / "root")
    (folder / "night.json").unlink()
    with pytest.raises(StoreNotFound, match="the night did not finish, and only whole ones are copied"):
        copy_night(folder, "s3://nights/prefix")
    assert there(bucket) == {}


# What is refused before a night begins.


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("bucket/prefix", "must be an address such as s3://bucket/prefix, got 'bucket/prefix'"),
        ("s3://", "must be an address such as s3://bucket/prefix"),
        ("s3:// nights", "must be an address such as s3://bucket/prefix"),
        ("file://tmp/nights", "must be an address such as s3://bucket/prefix"),
        ("http://[::1", r"must be an address such as s3://bucket/prefix, got 'http://\[::1'"),
        ("https://host/nights", "must be an address that can be written"),
        ("s3://key:secret@bucket/prefix", "must not carry a user, password or signature"),
        ("s3://bucket/prefix?X-Signature=secret", "must not carry a user, password or signature"),
    ],
)
def test_a_malformed_address_is_refused_by_its_setting(address: str, line: str) -> None:
    with pytest.raises(ValidationError, match=line) as refused:
        RunConfig(publish_to=address)
    assert "secret" not in refused.value.errors()[0]["msg"]


@pytest.mark.parametrize("address", ["s3://bucket", "s3://bucket/a/prefix", "gs://b/p", "file:///shared/nights"])
def test_other_addresses_are_taken(address: str) -> None:
    assert RunConfig(publish_to=address).publish_to == address


def test_packages_that_are_missing_are_said_before_a_night_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    check_address(None)
    with pytest.raises(StoreError, match="this address cannot be opened"):
        check_address("nosuch://bucket/prefix")
    for name in ("s3fs", "fsspec"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StoreError, match=r"needs packages that are missing .* pip install 'nightlens\[remote\]'"):
        check_address("s3://bucket/prefix")


# The whole flow.


def test_a_night_is_copied_at_its_end_and_its_record_is_the_last(
    prefect_server: str, bucket: Any, tmp_path: Path, small_model: Any, few_digits: Any
) -> None:
    from flows.nightly import nightly
    from small_night import small_night

    parameters = small_night(
        tmp_path / "root",
        small_model.path,
        few_digits.directory,
        run={"publish_to": "s3://nights/prefix"},
        gallery={"draw": True, "per_class": 0, "mistakes": 0},
    )
    result = nightly(**parameters)
    assert "not-published" not in [warning.kind for warning in result.warnings]
    found = there(bucket)
    place = f"prefix/nights/{result.night_id}"
    assert {f"{place}/{name}" for name in ("attributions.h5", "report.html", "run.json", "night.json")} < found.keys()
    assert found[f"{place}/night.json"] == (result.store.parent / "night.json").read_bytes()
    with open_store("s3://nights/prefix") as store:
        assert store.attributes["run_id"] == result.night_id


def test_a_night_whose_copy_fails_is_sealed_with_a_warning(
    prefect_server: str, bucket: Any, tmp_path: Path, small_model: Any, few_digits: Any
) -> None:
    from flows.nightly import nightly
    from small_night import small_night

    address = "s3://nowhere/prefix"
    drawn = {"draw": True, "per_class": 0, "mistakes": 0}
    result = nightly(
        **small_night(
            tmp_path / "root", small_model.path, few_digits.directory, run={"publish_to": address}, gallery=drawn
        )
    )
    assert "not whole at s3://nowhere/prefix" in (result.store.parent / "report.html").read_text()
    assert "not-published" in [warning.kind for warning in result.warnings]
    record = json.loads((result.store.parent / "night.json").read_text())
    assert record["verdict"] == result.verdict and "not whole at s3://nowhere/prefix" in record["verdict"]
    assert (tmp_path / "root" / "latest").resolve() == result.store.parent
