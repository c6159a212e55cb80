"""Logs for collectors: every line of a real night parses, also of one that fails, and TensorFlow is quiet whoever starts it."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from command import nightlens
from empty_record import EmptyRecord
from environment import talkative_environment
from flows.terminal import json_lines
from small_night import small_night, write_settings
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord
from tasks.process.quiet import noise_patterns


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return talkative_environment(PREFECT_HOME=str(tmp_path / "home"))


@pytest.fixture
def config(tmp_path: Path, few_digits: Dataset, small_model: ModelRecord, empty_record: EmptyRecord) -> Path:
    empty_record.put(tmp_path / "data" / "prefect")
    changed = {"gallery": {"draw": True, "spotlight": [1], "per_class": 0}, "run": {"rows": "0:20"}}
    night = small_night(tmp_path / "data", small_model.path, few_digits.directory, **changed)
    return write_settings(tmp_path / "night.yaml", night)


def run(config: Path, environment: dict[str, str], *options: str) -> tuple[int, list[dict], list[dict]]:
    """The exit code of a night, and the objects on its stdout and stderr: a line that is none fails here."""
    asked = ("run", "--json-logs", "--config", config, *options)
    done = nightlens(*asked, environment=environment, cwd=config.parent)
    assert not [c for c in done.stdout + done.stderr if ord(c) < 32 and c != "\n"], "control codes"
    out, err = ([json.loads(line) for line in stream.splitlines()] for stream in (done.stdout, done.stderr))
    return done.returncode, out, err


@pytest.mark.slow
def test_every_line_of_a_night_is_json_with_what_it_belongs_to(config: Path, environment: dict[str, str]) -> None:
    """On Dask, so that lines of another process are among them."""
    pytest.importorskip("prefect_dask", reason="needs the extra 'dask'")
    code, (result,), lines = run(config, environment, "--runner", "dask", "--workers", "1")
    assert code == 0, lines[-1]
    assert result["verdict"].startswith("sealed")
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
        assert line["level"] in ("INFO", "WARNING", "ERROR"), line
    wrapped = "\n".join(line["message"] for line in lines if line["logger"] == "stderr")
    assert not wrapped, f"nobody made this a log line:\n{wrapped}"
    of_the_run = [line for line in lines if line["logger"].startswith(("prefect.flow_runs", "prefect.task_runs"))]
    assert {line["flow_run_id"] for line in of_the_run} == {result["flow_run_id"]}
    assert {
        line["night"] for line in of_the_run if "stage" in line and "rows-" not in line.get("task_run_name", "")
    } == {result["night_id"]}
    ends = {
        line["stage"]: line["seconds"] for line in lines if line["message"].startswith("stage") and "seconds" in line
    }
    assert list(ends) == [
        "ingest",
        "train",
        "contract",
        "evaluate",
        "explain",
        "assess",
        "seal",
        "audit",
        "promote",
        "publish",
    ]
    parts = [line for line in lines if line["message"].startswith("rows ")]
    assert sorted(line["rows"] for line in parts) == ["0:8", "16:20", "8:16"]
    for line in parts:
        assert line["stage"] == "explain"
        assert line["images_per_s"] > 0
        assert 0 <= line["worst_gap"] < 1
    in_worker = [line for line in lines if line.get("task_run_name", "").startswith("rows-")]
    assert len({line["task_run_id"] for line in in_worker}) == 3


@pytest.mark.slow
def test_a_failing_night_is_json_to_its_last_line(config: Path, environment: dict[str, str], tmp_path: Path) -> None:
    code, out, lines = run(config, environment, "--model", str(tmp_path / "gone.keras"))
    assert (code, out) == (2, [])
    assert (lines[-1]["level"], lines[-1]["logger"]) == ("ERROR", "nightlens")
    assert lines[-1]["message"].startswith(f"no model file at {tmp_path / 'gone.keras'}; expected auto, train")
    failed = [line for line in lines if "ModelError" in line.get("exc_info", "")]
    assert {line["level"] for line in failed} == {"ERROR"}


def test_bad_options_are_json_too(config: Path, environment: dict[str, str]) -> None:
    code, out, (line,) = run(config, environment, "--rows", "x")
    assert (code, out, line["logger"]) == (2, [], "nightlens")
    assert line["message"].startswith("--rows: rows must be A:B")


@pytest.mark.parametrize(
    ("line", "level", "logger", "message"),
    [
        ("nightlens: no such file", "ERROR", "nightlens", "no such file"),
        (
            "2026-11-25 23:50:01,123 - distributed.nanny - WARNING - Restarting worker",
            "WARNING",
            "distributed.nanny",
            "R",
        ),
        ("E0000 00:00:1795650958.760430   26984 cuda_dnn.cc:8579] no GPU", "ERROR", "cuda_dnn.cc:8579", "no GPU"),
        ("Fatal Python error: Segmentation fault", "WARNING", "stderr", "Fatal"),
        ('{"torn": ', "WARNING", "stderr", '{"torn"'),
    ],
    ids=["ours", "dask", "native", "crash", "torn"],
)
def test_what_is_no_json_is_wrapped(line: str, level: str, logger: str, message: str) -> None:
    found = json_lines.wrapped(line)
    assert (found["level"], found["logger"]) == (level, logger)
    assert found["message"].startswith(message)


def test_the_wrapper_drops_noise_and_passes_the_rest() -> None:
    given = [
        '{"message": "ours"}',
        "I0000 00:00:1.2  3 cpu_feature_guard.cc:210] this binary",
        "\x1b[31mred",
        "",
        "last words",
    ]
    command = [sys.executable, "-P", json_lines.__file__, *noise_patterns()]
    done = subprocess.run(command, input="\n".join(given), capture_output=True, text=True, check=True)
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["ours", "\x1b[31mred", "last words"]
    assert "\x1b" not in done.stdout


def test_whoever_imports_the_flow_gets_a_quiet_tensorflow(environment: dict[str, str], tmp_path: Path) -> None:
    """As under a Prefect worker, which loads the flow by itself; an error that TensorFlow writes still comes through."""
    program = (
        "import flows.nightly, tensorflow as tf\n"
        "print(float(tf.reduce_sum(tf.ones(4))))\n"
        "import os; os.write(2, b'E0000 00:00:1.2  3 file.cc:1] a real error\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "4.0\n"
    assert done.stderr == "E0000 00:00:1.2  3 file.cc:1] a real error\n"
