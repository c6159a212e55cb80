"""The night as a run of an MLflow tracking server: its numbers, settings, pictures and report, for those who have MLflow open.

The experiment is nightlens/<dataset>, the run has the night's id for its name and in the tag nightlens.night, by which a night
that is logged again finds its run. Written by MLflow's own client, the extra `mlflow`. The store stays where it is: a tag says
where that is.

A server that is away when a night begins refuses the night, before any work; one that is away at its end is a warning of the
night and no more.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prefect import task
from prefect.logging import get_run_logger

from storage import open_store
from storage.file.catalog import REPORT_NAME
from storage.nights.night_records import NIGHT_RECORD
from storage.nights.training_record import read_history
from tasks.config import RunConfig
from tasks.handover.late_warning import add_late_warning
from tasks.night.result import NightResult, NightWarning
from tasks.pages.page import escape

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

__all__ = ["check_log_to", "log_to_mlflow"]

NIGHT_TAG = "nightlens.night"
# Seconds for an answer, and how often a request is repeated, before the night and at its end.
PATIENCE_BEFORE, PATIENCE_AFTER = (10, 0), (30, 3)
# What a server takes of parameters at once.
BATCH = 100
EXTRA = "log_to: mlflow needs mlflow, which is not installed: pip install 'nightlens[mlflow]'"


def check_log_to(run: RunConfig) -> None:
    """Raises ValueError, before any work, if the night could not be logged: the extra is missing, no server is named or what is
    named is none; OSError if the server does not answer as MLflow does.
    """
    if not run.log_to:
        return
    with _client(run.mlflow_uri, PATIENCE_BEFORE) as client:
        try:
            client.search_experiments(max_results=1)
        except _failures() as error:
            came = _reason(error)
            raise OSError(
                f"expected an MLflow server at {_shown(client.tracking_uri)}, got {came}; start it, or leave run.log_to out"
            ) from None


@task(name="log to mlflow")
def log_to_mlflow(result: NightResult, uri: str | None) -> NightResult:
    """Logs the night, whose record, pictures and report are written; the result, with a warning more if that failed.

    uri: of the server; None: MLFLOW_TRACKING_URI.
    """
    with _client(uri, PATIENCE_AFTER) as client:
        try:
            run_id = _log(client, result)
        # Where a server keeps its files, in S3 or elsewhere, their clients raise errors of their own; the night is sealed.
        except Exception as error:  # noqa: BLE001
            message = (
                f"not logged to MLflow at {_shown(client.tracking_uri)}, or not all of it: "
                f"{_reason(error)}; the night itself is whole in {result.store.parent}"
            )
            return add_late_warning(result, NightWarning(kind="not-logged", message=message))
        get_run_logger().info("logged to MLflow at %s as run %s", _shown(client.tracking_uri), run_id)
    return result


@contextmanager
def _client(uri: str | None, patience: tuple[int, int]) -> "Iterator[MlflowClient]":
    """A client that gives up as `patience` says, tells its makers nothing and prints nothing.

    MLflow takes that from the environment; what is set there already stays as it is.
    """
    seconds, retries = patience
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ |= missing
    try:
        try:
            import mlflow
        except ModuleNotFoundError as error:
            raise ValueError(EXTRA) from error
        yield mlflow.MlflowClient(_address(uri or (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else "")))
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _address(uri: str) -> str:
    if not uri:
        raise ValueError(
            "log_to: mlflow needs a server: set run.mlflow_uri to its address, such as http://127.0.0.1:5000, or the "
            "variable MLFLOW_TRACKING_URI"
        )
    if urlsplit(uri).scheme not in ("http", "https"):
        raise ValueError(
            f"expected the address of an MLflow server, such as http://127.0.0.1:5000, got {_shown(uri)!r}"
        )
    return uri


def _failures() -> tuple[type[Exception], ...]:
    """What a server that is away or refuses raises; the errors of requests are OSErrors."""
    from mlflow.exceptions import MlflowException

    return MlflowException, OSError, ImportError


def _shown(text: str) -> str:
    """An address, or a text with some, without users' names and passwords, whatever letters are in those."""
    return re.sub(r"(?<=://)\S*@", "", text)


def _reason(error: Exception) -> str:
    """In one line, in which addresses are as they may be shown: libraries quote them with the password."""
    return " ".join(_shown(f"{type(error).__name__}: {error}").split())[:300]


def _log(client: "MlflowClient", result: NightResult) -> str:
    """Everything of the night; the id of its run, which fails where that fails."""
    with open_store(result.store) as store:
        about, history = store.attributes, read_history(store)
    began = int(datetime.fromisoformat(str(about["created_utc"])).timestamp() * 1000)
    run_id = _run(client, f"nightlens/{about['dataset_name']}", result, began).info.run_id
    try:
        _fill(client, run_id, result, about, history)
    except BaseException:
        # Said where that is possible: nobody works on it any more.
        with suppress(Exception):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _fill(
    client: "MlflowClient",
    run_id: str,
    result: NightResult,
    about: Mapping[str, Any],
    history: Mapping[str, list[float]],
) -> None:
    from mlflow.entities import Param, RunTag

    tags = {
        name: str(about[name]) for name in ("dataset_sha256", "model_name", "model_sha256", "git_commit") if about[name]
    }
    tags |= {
        "verdict": result.verdict,
        "store": str(result.store),
        "device": result.device,
        "precision": result.precision,
    }
    # Of numbers that were logged before, by an attempt that ended early, MLflow shows those of now.
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=_metrics(result, history, now),
        tags=[
            RunTag("mlflow.note.content", escape(result.verdict)),
            *(RunTag(f"nightlens.{name}", value[:5000]) for name, value in tags.items()),
        ],
    )
    params = [Param(name, value) for name, value in _flat(about["configuration"]).items()]
    for first in range(0, len(params), BATCH):
        client.log_batch(run_id, params=params[first : first + BATCH])
    folder = result.store.parent
    for name in (NIGHT_RECORD, REPORT_NAME):
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    if result.gallery.is_dir():
        client.log_artifacts(run_id, str(result.gallery), "gallery")


def _run(client: "MlflowClient", experiment: str, result: NightResult, began: int) -> "Run":
    """The night's run: a new one, or that of an earlier attempt."""
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    runs = client.search_runs([experiment_id], f"tags.`{NIGHT_TAG}` = '{result.night_id}'", max_results=1)
    if runs:
        return runs[0]
    tags = {NIGHT_TAG: result.night_id, "mlflow.source.name": "nightlens"}
    return client.create_run(experiment_id, start_time=began, tags=tags, run_name=result.night_id)


def _metrics(result: NightResult, history: Mapping[str, list[float]], now: int) -> "list[Metric]":
    """The night's numbers at step 0, and its training curves by epoch. now: in milliseconds."""
    from mlflow.entities import Metric

    numbers: dict[str, Any] = {
        name: getattr(result, name)
        for name in (
            "accuracy",
            "accuracy_change",
            "converged_share",
            "worst_gap",
            "gradients_per_image",
            "relevance_gain",
            "n_rows",
            "store_bytes",
        )
    }
    numbers |= {f"empty_maps/{_key(title)}": n for title, n in result.zero_maps.items()}
    numbers |= {f"relevance_gain/{_key(title)}": gain for title, gain in result.worth.items()}
    numbers |= {f"seconds/{stage}": seconds for stage, seconds in result.stage_seconds.items()}
    numbers["n_warnings"] = len(result.warnings)
    found = [Metric(name, float(value), now, 0) for name, value in numbers.items() if value is not None]
    curves = ((f"training/{name}", values) for name, values in history.items())
    return found + [Metric(name, float(v), now, epoch) for name, values in curves for epoch, v in enumerate(values)]


def _key(title: str) -> str:
    """A name as MLflow takes it."""
    return "".join(letter if letter.isalnum() or letter in "-. " else "_" for letter in title)


def _flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Every setting by its path, dataset.source and so on; what was resolved from them stays in the store."""
    if not isinstance(settings, Mapping):
        return {prefix: str(settings)}
    names = [name for name in settings if prefix or name != "resolved"]
    return {
        path: value for name in names for path, value in _flat(settings[name], f"{prefix}.{name}".lstrip(".")).items()
    }
