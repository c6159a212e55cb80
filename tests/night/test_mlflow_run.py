"""Nights that are logged to MLflow: what a real server has of them, by its REST API; and what becomes of a night without one."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prefect.logging import disable_run_logger

from command import python
from flows.nightly import nightly
from foreign_server import asked, asked_json, serving
from free_port import free_port
from night_record import recorded
from night_root import fails, left_behind
from packed_night import night_to_hand_over, result_of
from places import REPOSITORY
from storage import Catalog, open_store
from tasks.config import RunConfig
from tasks.handover.mlflow_run import check_log_to, log_to_mlflow
from tasks.night.progress import Progress, listening
from tasks.night.result import NightResult, NightWarning

pytest.importorskip("mlflow", reason="MLflow's client is not installed: the extra `mlflow`")

MLFLOW = REPOSITORY / ".venv-mlflow" / "bin" / "mlflow"
needs_server = pytest.mark.skipif(not MLFLOW.exists(), reason="MLflow's server is not installed: `make mlflow`")
pytestmark = pytest.mark.usefixtures("prefect_server")
# Nothing listens at the first port.
NOBODY = "http://127.0.0.1:1"


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A tracking server with a database and files of its own, as `mlflow server` starts it."""
    port = free_port()
    command: list[object] = [MLFLOW, "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artifacts"]
    # Without the processes that it keeps for jobs of models and agents.
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    path = f"{MLFLOW.parent}:/usr/bin:/bin"
    with serving(command, port, "/health", folder / "log", PATH=path, **own) as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with mlflow_server(folder) as address:
        yield address


def runs_of(server: str, experiment: str) -> list[dict[str, Any]]:
    api = f"{server}/api/2.0/mlflow"
    found = asked_json(f"{api}/experiments/get-by-name?experiment_name={quote(experiment)}")["experiment"]
    return asked_json(f"{api}/runs/search", {"experiment_ids": [found["experiment_id"]]}).get("runs", [])


def files_of(server: str, run_id: str, path: str = "") -> dict[str, int]:
    answer = asked_json(f"{server}/api/2.0/mlflow/artifacts/list?run_id={run_id}&path={path}")
    return {file["path"]: int(file.get("file_size", 0)) for file in answer.get("files", [])}


def file_of(server: str, run_id: str, path: str) -> bytes:
    return asked(f"{server}/get-artifact?run_id={run_id}&path={path}")


def record_of(result: NightResult) -> NightResult:
    return NightResult.model_validate_json((result.store.parent / "night.json").read_text())


@pytest.fixture
def drawn(parameters: Callable[..., dict]) -> Callable[..., dict]:
    """Parameters of a small night with one row drawn, and `run` as given."""
    gallery = {"draw": True, "spotlight": [3], "per_class": 0, "mistakes": 0}
    return lambda **run: parameters(gallery=gallery, run=run)


@needs_server
@pytest.mark.slow
def test_a_night_is_a_run_with_its_numbers_settings_pictures_and_report(
    server: str, drawn: Callable[..., dict], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    result = nightly(**drawn(log_to="mlflow"))
    assert "View run" not in capfd.readouterr().out
    with open_store(result.store) as store:
        about, accuracy = store.attributes, float(store.table()["correct"].mean())
    (run,) = runs_of(server, f"nightlens/{about['dataset_name']}")
    assert (run["info"]["run_name"], run["info"]["status"]) == (result.night_id, "FINISHED")
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert (metrics["n_rows"], metrics["accuracy"]) == (20, result.accuracy)
    assert metrics["converged_share"] == result.converged_share and metrics["worst_gap"] == result.worst_gap
    assert {f"seconds/{stage}" for stage in result.stage_seconds} < metrics.keys()
    settings = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert settings["run.rows"] == "0:20" and settings["explanation.part_rows"] == "8"
    assert settings["integrated_gradients.baseline"] == about["configuration"]["integrated_gradients"]["baseline"]
    assert [name for name in settings if name.startswith("resolved")] == []
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["nightlens.night"] == result.night_id and tags["nightlens.store"] == str(result.store)
    assert tags["nightlens.model_sha256"] == about["model_sha256"]
    run_id, folder = run["info"]["run_id"], result.store.parent
    assert file_of(server, run_id, "report.html") == (folder / "report.html").read_bytes()
    assert json.loads(file_of(server, run_id, "night.json"))["night_id"] == result.night_id
    pictures = {f"gallery/{path.name}": path.stat().st_size for path in result.gallery.iterdir()}
    assert "gallery/summary.png" in pictures and files_of(server, run_id, "gallery") == pictures
    assert file_of(server, run_id, "gallery/summary.png") == (result.gallery / "summary.png").read_bytes()
    assert 0 <= accuracy <= 1 and record_of(result).warnings == result.warnings

    # Logged again, as by a night that is resumed, it is the same run, with the numbers and words of now.
    with disable_run_logger():
        later = result.with_warning(NightWarning(kind="duration", message="slower than before"))
        assert log_to_mlflow.fn(later, server) == later
    (run,) = runs_of(server, f"nightlens/{about['dataset_name']}")
    assert run["info"]["run_id"] == run_id
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["n_warnings"] == len(result.warnings) + 1
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["nightlens.verdict"] == later.verdict
    assert "slower than before" in tags["mlflow.note.content"]
    fewer = result.model_copy(update={"warnings": ()})
    with disable_run_logger():
        log_to_mlflow.fn(fewer, server)
    (run,) = runs_of(server, f"nightlens/{about['dataset_name']}")
    assert {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}["n_warnings"] == 0


@needs_server
def test_files_that_the_server_keeps_elsewhere_and_cannot_be_written_are_a_warning(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an S3 that is away: its client's errors are none of MLflow's."""
    pytest.importorskip("boto3")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "dummy")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", NOBODY)
    elsewhere = {"name": "nightlens/elsewhere", "artifact_location": "s3://nowhere/x"}
    asked_json(f"{server}/api/2.0/mlflow/experiments/create", elsewhere)
    folder = night_to_hand_over(tmp_path / "root", dataset_name="elsewhere")
    with disable_run_logger():
        (warning,) = log_to_mlflow.fn(result_of(folder), server).warnings
    assert warning.kind == "not-logged"
    assert "EndpointConnectionError" in warning.message and "\n" not in warning.message
    (run,) = runs_of(server, "nightlens/elsewhere")
    assert run["info"]["status"] == "FAILED"


@needs_server
@pytest.mark.slow
def test_a_server_that_dies_meanwhile_is_a_warning_and_the_night_is_whole(
    server: str, folder: Path, drawn: Callable[..., dict], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with a copy of the other's database, for making one takes a server half a minute."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    stages: list[str] = []
    with ExitStack() as running:

        def hear(step: Progress) -> None:
            if step.stage == "seal" and step.stage not in stages:
                stages.append(step.stage)
                running.close()

        shutil.copy(folder / "mlflow.db", tmp_path)
        server = running.enter_context(mlflow_server(tmp_path))
        with listening(hear):
            result = nightly(**drawn(log_to="mlflow", mlflow_uri=server))
    assert stages == ["seal"]
    (warning,) = [warning for warning in result.warnings if warning.kind == "not-logged"]
    assert warning.message.startswith(f"not logged to MLflow at {server}, or not all of it: ")
    assert warning.message.endswith(f"; the night itself is whole in {result.store.parent}")
    assert "\n" not in warning.message and warning.message in result.verdict
    assert record_of(result) == result
    assert Catalog(root).latest() == result.store.parent
    assert "not logged to MLflow" in (result.store.parent / "report.html").read_text()
    _, _, artifacts = recorded(result.flow_run_id, n_tasks=0)
    (page,) = [str(artifact.data) for artifact in artifacts if artifact.key == "night"]
    assert "not-logged" in page


REFUSED = {
    "nobody listens": ({"mlflow_uri": NOBODY}, f"expected an MLflow server at {NOBODY}, got MlflowException: "),
    "no address": ({}, "log_to: mlflow needs a server: set run.mlflow_uri to its address"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_night_that_could_not_be_logged_is_refused_before_any_work(
    name: str, parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    given, message = REFUSED[name]
    before = left_behind(root)
    said = fails(parameters(run={"log_to": "mlflow", **given}))
    assert message in said and "\n" not in said
    assert left_behind(root) == before


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "databricks", "mlruns"])
def test_what_is_no_server_in_the_environment_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=f"expected the address of an MLflow server, .*, got '{uri}'"):
        check_log_to(RunConfig(log_to="mlflow"))


def test_another_server_is_refused(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1", "--directory", tmp_path]
    with (
        serving(command, port, "/", tmp_path / "log") as address,
        pytest.raises(OSError, match=f"expected an MLflow server at {address}, got "),
    ):
        check_log_to(RunConfig(log_to="mlflow", mlflow_uri=address))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://me:secret@127.0.0.1:1", "expected an MLflow server at http://127.0.0.1:1, got"),
        ("http://me:sec/ret?@127.0.0.1:1", "expected an MLflow server at http://127.0.0.1:1, got"),
        (
            "postgresql://me:secret@db/mlflow",
            "expected the address of an MLflow server, .*, got 'postgresql://db/mlflow'",
        ),
    ],
    ids=["plain", "odd letters", "database"],
)
def test_a_password_in_the_environment_is_not_shown(uri: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises((OSError, ValueError), match=said) as raised:
        check_log_to(RunConfig(log_to="mlflow"))
    assert "sec" not in str(raised.value) and "ret" not in str(raised.value).replace("retries", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"log_to": "mlflow", "mlflow_uri": "127.0.0.1:5000"}, "mlflow_uri must be http://HOST:PORT"),
        ({"log_to": "mlflow", "mlflow_uri": "http://me:secret@host"}, "mlflow_uri must have no password"),
        ({"mlflow_uri": NOBODY}, "mlflow_uri is given and log_to is empty"),
        ({"log_to": "wandb"}, "Input should be 'mlflow'"),
    ],
    ids=["no address", "password", "no log_to", "other program"],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig.model_validate(given)


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from tasks.config import RunConfig; from tasks.handover.mlflow_run import check_log_to\n"
        f"try: check_log_to(RunConfig(log_to='mlflow', mlflow_uri='{NOBODY}'))\n"
        "except ValueError as error: print(error)"
    )
    said = "log_to: mlflow needs mlflow, which is not installed: pip install 'nightlens[mlflow]'\n"
    assert python("-c", code).stdout == said


def test_the_client_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what an operator has set there stays in force."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    before = dict(os.environ)
    with pytest.raises(OSError, match="MLflow server"):
        check_log_to(RunConfig(log_to="mlflow", mlflow_uri=NOBODY))
    assert dict(os.environ) == before
