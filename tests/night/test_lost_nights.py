"""Nights that could not say themselves how they ended: killed for real, or failed before they began. Somebody writes their page.

What becomes of them under a worker: test_recovery.py; what `up` does: test_up.py.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Crashed, Failed, Running

from command import python, running
from environment import clean_environment
from flows.nightly import nightly
from flows.service.runs.lost_pages import LostPages
from real_prefect import Record
from small_night import small_night
from storage import Catalog
from storage.file.disk.lock import locked
from storage.nights.night_entries import begin_run, working_on
from storage.nights.night_marks import mark, marked_runs
from tasks import running_night
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord
from tasks.night.outage import upload
from tasks.pages import lost_nights
from tasks.pages.lost_nights import speak_for_lost_nights
from waiting import wait_until

pytestmark = pytest.mark.usefixtures("prefect_server")
NIGHT = "20261124T020000Z-ab12cd"
# Its first stage waits to be killed.
RUN_A_NIGHT = """
import json, sys, time
from flows import nightly as module
module.ingest = lambda *_: time.sleep(600)
module.nightly(**json.loads(sys.argv[1]))
"""


@pytest.fixture
def record(prefect_server: str) -> Iterator[Record]:
    with get_client(sync_client=True) as client:
        yield Record(client)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def environment(api: str, tmp_path: Path) -> dict[str, str]:
    return clean_environment(PREFECT_API_URL=api, PREFECT_HOME=str(tmp_path / "home"), CUDA_VISIBLE_DEVICES="-1")


def a_run(client: SyncPrefectClient, state: State[Any], *, flow: str = "nightly", **parameters: Any) -> UUID:
    """A run in that state, of which nobody has said a word."""
    flow_id = client.create_flow_from_name(flow)
    made = client.request(
        "POST", "/flow_runs/", json={"flow_id": str(flow_id), "name": f"a {flow}", "parameters": parameters}
    )
    run = UUID(made.json()["id"])
    for each in (Running(), state):
        client.set_flow_run_state(run, each, force=True)
    return run


def events_of(client: SyncPrefectClient, run: UUID) -> list[dict[str, Any]]:
    asked = {"filter": {"event": {"name": ["nightlens.night.failed"]}}, "limit": 50}
    found = client.request("POST", "/events/filter", json=asked).json()["events"]
    return [event for event in found if event["payload"]["flow_run_id"] == str(run)]


def marked(root: Path, run: UUID | str, **more: Any) -> Path:
    """What a night leaves that was killed while it explained."""
    catalog = Catalog(root)
    with working_on(catalog, NIGHT):
        mark(catalog, NIGHT, {"flow_run_id": str(run), "stage": "explain", "stage_seconds": {"ingest": 2.5}, **more})
    return root / ".running" / f"{NIGHT}.json"


@pytest.mark.slow
def test_a_night_that_is_killed_before_its_first_part_has_one_page_whoever_looks(
    prefect_server: str, few_digits: Dataset, small_model: ModelRecord, record: Record, root: Path, tmp_path: Path
) -> None:
    parameters = small_night(root, small_model.path, few_digits.directory)
    known = environment(prefect_server, tmp_path)
    with running("-c", RUN_A_NIGHT, json.dumps(parameters), environment=known, stderr=subprocess.DEVNULL) as process:
        (left,) = wait_until(lambda: list((root / ".running").glob("*.json")), 120, "the night has begun")
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    about = json.loads(left.read_text())
    run = UUID(about["flow_run_id"])
    assert (about["pid"], record.pages_of_night(run)) == (process.pid, [])
    command = ("-P", "-m", "tasks.pages.lost_nights", root)
    with running(*command, environment=known) as one, running(*command, environment=known) as other:
        said = [line for each in (one, other) for line in each.communicate(timeout=120)[0].splitlines()]
    ended = {one.returncode, other.returncode}  # one that came while the other was at it left it to it
    assert ended in ({0}, {0, lost_nights.BUSY})
    gone = f"killed: its process {process.pid} on {os.uname().nodename} is gone"
    assert said == [f"{left.stem} failed in {about['stage']}: {gone}"]
    (page,) = record.pages_of_night(run)
    assert page.startswith(f"# Failed in {about['stage']}: killed: its process {process.pid} on ")
    assert "Nothing was explained yet" in page and "none yet" in page
    assert not left.exists()
    (event,) = wait_until(lambda: events_of(record.client, run), 60, "its event")
    assert event["payload"]["verdict"] == f"failed in {about['stage']}: {gone}"
    assert event["resource"]["prefect.resource.id"] == f"nightlens.night.{left.stem}"
    assert speak_for_lost_nights(Catalog(root), record.client) == []


@pytest.mark.slow
def test_the_next_night_speaks_for_runs_that_failed_before_they_began(
    few_digits: Dataset, small_model: ModelRecord, record: Record, root: Path
) -> None:
    parameters = small_night(root, small_model.path, few_digits.directory)
    refused: State = nightly(**parameters | {"explanation": {"part_rows": "many"}}, return_state=True)
    nowhere = parameters | {"run": parameters["run"] | {"runner": "dask", "dask_address": "tcp://127.0.0.1:9"}}
    missed: State = nightly(**nowhere, return_state=True)
    assert refused.is_failed() and missed.is_failed()
    before = [UUID(str(state.state_details.flow_run_id)) for state in (refused, missed)]
    assert [record.pages_of_night(run) for run in before] == [[], []]
    result = nightly(**parameters)
    for run, reason in zip(before, ("part\\_rows", "Dask"), strict=True):
        (page,) = record.pages_of_night(run)
        assert page.startswith("# Failed in begin: ")
        assert reason in page or reason.lower() in page
        wait_until(lambda run=run: len(events_of(record.client, run)) == 1, 60, "its event")
    assert len(record.pages_of_night(UUID(result.flow_run_id))) == 1
    assert events_of(record.client, UUID(result.flow_run_id)) == []
    assert list((root / ".running").iterdir()) == []


@pytest.mark.slow
def test_a_night_that_fails_by_itself_writes_its_own_page_and_no_other(
    few_digits: Dataset, small_model: ModelRecord, record: Record, root: Path
) -> None:
    parameters = small_night(root, small_model.path, few_digits.directory, grad_cam={"layer": "no such layer"})
    state: State = nightly(**parameters, return_state=True)
    run = UUID(str(state.state_details.flow_run_id))
    assert speak_for_lost_nights(Catalog(root), record.client, [run]) == []
    assert len(record.pages_of_night(run)) == 1
    assert list((root / ".running").iterdir()) == []


def test_a_night_that_was_killed_says_what_the_server_knows_and_how_it_goes_on(record: Record, root: Path) -> None:
    run = a_run(record.client, Crashed(message="exit code -9\nof <b>its</b> process"))
    left = marked(root, run)
    plan = {"digest": "d", "start": 0, "stop": 1, "part_rows": 1, "model_sha256": ""}
    begin_run(Catalog(root), NIGHT, parameters={}, plan=plan)
    (said,) = speak_for_lost_nights(Catalog(root), record.client)
    assert said.endswith("is gone; exit code -9 of <b>its</b> process")
    (page,) = record.pages_of_night(run)
    assert "<b>" not in page.replace("\\<b", "")
    assert f"nightlens run --resume --night {NIGHT}" in page
    assert not left.exists()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"stage_seconds": {"a": 1' + "0" * 400 + "}}",
        '{"stage": "\\ud800", "host": "\\u202e' + "x" * 3_000_000 + '"}',
        json.dumps({"stage_seconds": {f"stage {k}": 1.0 for k in range(5_000)}}),
        json.dumps({"stage": "<img src=x onerror=alert(1)>\n# a heading"}),
    ],
    ids=["deep", "endless number", "no letters and too many", "many stages", "markup"],
)
def test_an_odd_mark_is_a_page_as_any_other(text: str, record: Record, root: Path) -> None:
    """It stands in nobody's way: the next one is spoken for, too."""
    run = a_run(record.client, Crashed(message="gone"))
    marked(root, run).rename(root / ".running" / "20261125T020000Z-ab12cd.json")
    marked(root, "").write_text(text)
    first, second = speak_for_lost_nights(Catalog(root), record.client)
    assert first.startswith(f"{NIGHT} failed in ") and len(first) < 1_000
    assert second.startswith("20261125T020000Z-ab12cd failed in explain: ")
    assert list((root / ".running").glob("*.json")) == []


def test_a_night_that_could_not_say_why_it_failed_has_its_reason_from_its_mark(record: Record, root: Path) -> None:
    run = a_run(record.client, Crashed(message="No heartbeat for 120 s"))
    marked(root, run, reason="OSError: the disk is full")
    (said,) = speak_for_lost_nights(Catalog(root), record.client)
    assert said == f"{NIGHT} failed in explain: OSError: the disk is full"


@pytest.mark.usefixtures("no_run_logger")
def test_a_night_whose_page_could_not_be_sent_leaves_its_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise httpx.ConnectError("away")

    monkeypatch.setattr(running_night, "publish_failure", lambda *_: upload("artifact night", away))
    monkeypatch.setattr(running_night, "emit_failed", lambda _: None)
    with (
        pytest.raises(OSError, match="full"),
        running_night.Night.begin(root, "", None) as night,
        night.stage("ingest"),
    ):
        raise OSError("the disk is full")
    (left,) = (root / ".running").glob("*.json")
    about = json.loads(left.read_text())
    assert (about["stage"], about["reason"]) == ("ingest", "OSError: the disk is full")


def test_a_run_that_failed_before_it_began_has_its_page_whatever_was_written_since(record: Record, root: Path) -> None:
    """A night that was killed, in this root or another, does not make it forgotten."""
    run = a_run(record.client, Failed(message="so"), run={"root": str(root)})
    marked(root, a_run(record.client, Crashed(message="gone")))
    elsewhere = Catalog(root.parent / "elsewhere")
    marked(elsewhere.root, a_run(record.client, Crashed(message="gone")))
    assert len(speak_for_lost_nights(elsewhere, record.client)) == 1
    said = speak_for_lost_nights(Catalog(root), record.client)
    assert [line for line in said if line.endswith("failed in begin: so")]
    assert len(said) == 2 and len(record.pages_of_night(run)) == 1


def test_no_page_is_forgotten_where_there_are_many(record: Record, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_nights, "MOST_PAGES", 2)
    monkeypatch.setattr(lost_nights, "AT_ONCE", 3)
    root.mkdir()
    runs = [a_run(record.client, Failed(message="so"), run={"root": str(root)}) for _ in range(5)]
    said = [len(speak_for_lost_nights(Catalog(root), record.client)) for _ in range(4)]
    assert said == [2, 2, 1, 0]
    assert [len(record.pages_of_night(run)) for run in runs] == [1] * 5
    asked = [a_run(record.client, Failed(message="so"), run={"root": str(root)}) for _ in range(5)]
    assert len(speak_for_lost_nights(Catalog(root), record.client, asked)) == 5


@pytest.mark.parametrize("odd", ["~nobody_here/data", "a\0b", "loop/data"])
def test_a_root_that_cannot_be_is_none_of_ours(odd: str, record: Record, root: Path) -> None:
    root.mkdir()
    (root / "loop").symlink_to("loop")
    run = a_run(record.client, Failed(message="so"), run={"root": odd if odd[0] in "~a" else str(root / odd)})
    assert speak_for_lost_nights(Catalog(root), record.client) == []
    assert record.pages_of_night(run) == []


def test_a_flow_of_others_that_is_called_like_ours_is_left_alone(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nightlens-data").mkdir()
    theirs = a_run(record.client, Failed(message="ETL failed"), table="bills")
    ours = a_run(record.client, Failed(message="ours"), dataset={"source": "digits"})
    speak_for_lost_nights(Catalog(Path("nightlens-data")), record.client)
    assert [len(record.pages_of_night(run)) for run in (theirs, ours)] == [0, 1]


def test_another_process_that_is_at_it_is_left_to_it(prefect_server: str, root: Path, tmp_path: Path) -> None:
    (root / ".running").mkdir(parents=True)
    with locked(root / ".running" / "lost-nights", "writing pages of lost nights"):
        done = python("-P", "-m", "tasks.pages.lost_nights", root, environment=environment(prefect_server, tmp_path))
    assert (done.returncode, done.stdout) == (lost_nights.BUSY, "")


def test_a_night_that_runs_is_left_alone_though_the_server_takes_it_for_dead(record: Record, root: Path) -> None:
    run = a_run(record.client, Crashed(message="No heartbeat"), run={"root": str(root)})
    left = marked(root, run)
    with working_on(Catalog(root), NIGHT):
        assert speak_for_lost_nights(Catalog(root), record.client, [run]) == []
    assert left.exists() and marked_runs(Catalog(root)) == {str(run)}
    assert record.pages_of_night(run) == []


def test_what_a_person_cancelled_is_no_failure(record: Record, root: Path) -> None:
    run = a_run(record.client, Cancelled())
    left = marked(root, run)
    assert speak_for_lost_nights(Catalog(root), record.client, [run]) == []
    assert not left.exists() and record.pages_of_night(run) == []


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "",
        '{"flow_run_id": 7, "stage": 3, "stage_seconds": 1}',
        '{"stage_seconds": {"a": "x", "b": null, "c": 2}}',
    ],
)
def test_a_mark_that_cannot_be_read_is_a_night_that_was_killed_all_the_same(
    text: str, record: Record, root: Path
) -> None:
    marked(root, "").write_text(text)
    (said,) = speak_for_lost_nights(Catalog(root), record.client)
    assert said.startswith(f"{NIGHT} failed in ")
    assert speak_for_lost_nights(Catalog(root), record.client) == []


def test_runs_of_other_roots_and_other_flows_are_left_alone(record: Record, root: Path) -> None:
    root.mkdir()
    other = a_run(record.client, Failed(), run={"root": "/elsewhere"})
    cleaning = a_run(record.client, Failed(), flow="housekeeping")
    nonsense = a_run(record.client, Failed(message="so"), run="nonsense")
    said = speak_for_lost_nights(Catalog(root), record.client, [other, cleaning, nonsense])
    assert said == ["a nightly failed in begin: so"]
    assert [len(record.pages_of_night(run)) for run in (other, cleaning, nonsense)] == [0, 0, 1]


def test_a_night_that_was_sealed_is_no_failure_though_its_page_was_lost(record: Record, root: Path) -> None:
    """The server was away at its end, and took the run for dead."""
    run = a_run(record.client, Crashed(message="No heartbeat"), run={"root": str(root)})
    folder = Catalog(root).night_dir(NIGHT)
    folder.mkdir(parents=True)
    (folder / "night.json").write_text(json.dumps({"flow_run_id": str(run), "verdict": "sealed"}))
    assert speak_for_lost_nights(Catalog(root), record.client, [run]) == []
    assert record.pages_of_night(run) == []


def test_a_root_that_a_run_names_from_a_folder_is_that_of_this_process(
    record: Record, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server that several roots share."""
    root.mkdir()
    run = a_run(record.client, Failed(message="so"), run={"root": "data"})
    spoken_for = lambda: [said for said in speak_for_lost_nights(Catalog(root), record.client) if "so" in said]  # noqa: E731
    assert spoken_for() == []
    monkeypatch.chdir(root.parent)
    assert spoken_for() == ["a nightly failed in begin: so"]
    assert len(record.pages_of_night(run)) == 1


def test_where_there_is_no_root_nothing_is_made(record: Record, root: Path) -> None:
    assert speak_for_lost_nights(Catalog(root), record.client) == []
    assert not root.exists()


@pytest.mark.slow
def test_up_writes_pages_in_a_process_of_its_own_and_says_where_that_fails(
    prefect_server: str, record: Record, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PREFECT_API_URL": prefect_server, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    root.mkdir()
    pages = LostPages(root)
    try:
        assert pages.go_on() == []
        run = a_run(record.client, Failed(message="no such cluster"), run={"root": str(root)})
        pages.want([run])
        said: list[str] = []
        wait_until(lambda: said.extend(pages.go_on()) or said, 120, "what was written")
        assert "a nightly failed in begin: no such cluster" in said
        assert len(record.pages_of_night(run)) == 1
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
        monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
        pages.want([run])
        failed: list[str] = []
        wait_until(lambda: failed.extend(pages.go_on()) or failed, 120, "that it failed")
        assert failed[0].startswith("the pages of lost nights could not be written: httpx.ConnectError")
    finally:
        pages.stop()
