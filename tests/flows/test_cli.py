"""The command as people meet it: real processes, a real server, a small real flow in place of the night."""

import json
import re
import signal
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import psutil
import pytest

import command
from command import IMPORT_TIMES, libraries_loaded, printed_by_python, python, running
from empty_record import EmptyRecord
from environment import clean_environment
from example_store import seal, write_parts
from flows.parameters import BadParameters, read_parameters

N_PARTS = 40
UNREACHABLE = "http://127.0.0.1:9/api"

# `nightlens` with this flow as flows.nightly.nightly; PROBLEM makes it fail.
NIGHTLENS = """
import os, sys, time, types
stub = types.ModuleType("flows.nightly")
def build(name):
    if name != "nightly":
        raise AttributeError(name)
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact
    from prefect.task_runners import ThreadPoolTaskRunner
    from tasks.night.progress import Progress, report
    @task
    def part(i):
        time.sleep(float(os.environ.get("PART_S", "0")))
        report(Progress(stage="explain", done=i + 1, total=40, images=i))
    @flow(name="nightly", task_runner=ThreadPoolTaskRunner(max_workers=2))
    def nightly(dataset, model, explanation, integrated_gradients, grad_cam, worth, drift, audit, alert, gallery, run):
        report(Progress(stage="ingest", done=0, total=1, unit="steps"))
        report(Progress(stage="ingest", done=9, total=9, unit="images", note=dataset.source))
        report(Progress(stage="ingest", done=1, total=1, unit="steps"))
        if os.environ.get("PROBLEM") == "input":
            raise ValueError("expected images,\\ngot none; give another dataset")
        if os.environ.get("PROBLEM") == "bug":
            raise KeyError("a programming error")
        [future.result() for future in part.map(range(40))]
        create_markdown_artifact("explained", key="night")
        (run.root / "gallery").mkdir()
        return types.SimpleNamespace(night_id="n1", store=run.root / "attributions.h5", gallery=run.root / "gallery",
                                     n_rows=1280, accuracy=0.97, seconds=3.0, verdict="sealed",
                                     has_grad_cam=os.environ.get("GRAD_CAM") != "none")
    return nightly
stub.__getattr__ = build
sys.modules["flows.nightly"] = stub
from flows.cli import main
main()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No Prefect of the developer's."""
    return clean_environment(PREFECT_HOME=str(tmp_path_factory.mktemp("home")))


def nightlens(
    *arguments: object, environment: dict[str, str], cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    return python("-c", NIGHTLENS, *arguments, environment=environment | variables, cwd=cwd)


def server_processes(root: Path) -> list[psutil.Process]:
    lock = str(root / "prefect" / "users.lock")
    return [process for process in psutil.process_iter(["cmdline"]) if lock in (process.info["cmdline"] or [])]


def records(root: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{root}/prefect/prefect.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


@pytest.fixture(scope="module")
def night(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], empty_record: EmptyRecord
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A root after one night, and the finished command."""
    root = tmp_path_factory.mktemp("root")
    empty_record.put(root / "prefect")
    return root, nightlens("run", "--root", root, "--dataset", "some.npz", environment=environment)


def test_run_ends_with_the_verdict_and_where_everything_is(
    night: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    root, done = night
    assert done.returncode == 0, done.stderr
    lines = ["verdict", "night", "store", "pictures", "report", "rows", "record"]
    assert re.findall(r"^\w+", done.stdout, re.M) == lines
    run_id = records(root, "SELECT id FROM flow_run")[0][0]
    assert f"/runs/flow-run/{run_id}  after `nightlens ui --root {root}`" in done.stdout
    assert f"{root}/attributions.h5" in done.stdout


def test_run_says_that_there_is_no_grad_cam(
    tmp_path: Path, environment: dict[str, str], empty_record: EmptyRecord
) -> None:
    empty_record.put(tmp_path / "root" / "prefect")
    done = nightlens("run", "--root", tmp_path / "root", environment=environment, GRAD_CAM="none")
    assert done.returncode == 0, done.stderr
    assert "Grad-CAM  none: Integrated Gradients alone" in done.stdout.splitlines()


def test_run_shows_plain_lines_where_there_is_no_terminal(
    night: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    lines = night[1].stderr.splitlines()
    assert lines[0].startswith("starting TensorFlow and a Prefect server")
    assert any(re.fullmatch(r"✓ ingest    9/9 images  0:\d\d  some\.npz", line) for line in lines)
    assert any(re.fullmatch(r"✓ explain   \d+/40 parts  .* images/s  0:\d\d", line) for line in lines)
    assert "\x1b" not in night[1].stderr and "flow run" not in night[1].stderr.lower()


def test_run_is_recorded_whole_and_leaves_no_process(night: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    root, _ = night
    assert server_processes(root) == []
    assert records(root, "SELECT state_type, count(*) FROM task_run GROUP BY 1") == [("COMPLETED", N_PARTS)]
    assert records(root, "SELECT key FROM artifact WHERE key IS NOT NULL") == [("night",)]


def test_ui_brings_the_record_back_until_sigterm(
    night: tuple[Path, subprocess.CompletedProcess[str]], environment: dict[str, str]
) -> None:
    root, done = night
    with running("-c", NIGHTLENS, "ui", "--root", root, environment=environment) as ui:
        assert ui.stdout and ui.stderr
        url = ui.stdout.readline().split()[0]
        query = urllib.request.Request(
            f"{url}/api/task_runs/count", b"{}", headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(query, timeout=60) as answer:
            assert int(answer.read()) == N_PARTS
        assert f"{url}/runs" in done.stdout, "a night's link must work again"
        ui.send_signal(signal.SIGTERM)
        assert ui.wait(60) == 0
        assert ui.stderr.read() == "stopping\n"
    assert server_processes(root) == []


def test_bad_input_found_by_the_flow_is_one_line_and_exit_2(
    night: tuple[Path, subprocess.CompletedProcess[str]], environment: dict[str, str]
) -> None:
    root, _ = night
    done = nightlens("run", "--root", root, environment=environment, PROBLEM="input")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "nightlens: expected images, got none; give another dataset"
    assert "✗ ingest" in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in "".join(message for (message,) in records(root, "SELECT message FROM log"))


def test_a_programming_error_shows_its_traceback(
    night: tuple[Path, subprocess.CompletedProcess[str]], environment: dict[str, str]
) -> None:
    done = nightlens("run", "--root", night[0], environment=environment, PROBLEM="bug")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("KeyError: 'a programming error'")
    assert server_processes(night[0]) == []


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_run_is_recorded_as_such(
    sent: signal.Signals,
    code: int,
    night: tuple[Path, subprocess.CompletedProcess[str]],
    environment: dict[str, str],
) -> None:
    root, _ = night
    n_before = len(records(root, "SELECT id FROM flow_run"))
    with running("-c", NIGHTLENS, "run", "--root", root, environment=environment | {"PART_S": "0.5"}) as run:
        assert run.stderr
        while "explain" not in (line := run.stderr.readline()):
            assert line, "the run ended"
        time.sleep(1)
        run.send_signal(sent)
        assert run.wait(90) == code
        err = run.stderr.read()
    assert "the parts that are done are kept" in err and "Traceback" not in err
    assert server_processes(root) == []
    states = records(root, "SELECT state_type FROM flow_run ORDER BY created")
    assert [state for (state,) in states[n_before:]] == ["CRASHED"]


def test_an_unreachable_api_is_named_within_seconds_and_nothing_is_written(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    started = time.monotonic()
    done = nightlens("run", environment=environment, cwd=tmp_path, PREFECT_API_URL=UNREACHABLE)
    assert time.monotonic() - started < 60
    assert done.returncode == 2
    assert re.fullmatch(rf"nightlens: .*{UNREACHABLE}.*`prefect server start`.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["run", "--rows", "5"], "--rows: rows must be A:B with whole numbers from 0.*got '5'"),
        (["run", "--runner", "spark"], "--runner: input should be 'threads' or 'dask', got 'spark'"),
        (["run", "--epochs", "0"], "--epochs: input should be greater than or equal to 1, got 0"),
        (["run", "--epochs", "many"], ".*'--epochs'.*integer"),
        (["run", "--bogus"], "No such option: --bogus"),
        (["run", "--config", "none.yaml"], "none.yaml: cannot be read .No such file"),
        (["run", "--root", "/proc/nightlens"], "/proc/nightlens: cannot be written"),
        (["ui"], "nightlens-data: no night was recorded here"),
        (
            ["run", "--dask-address", "tcp://10.0.0.5:8786"],
            "run: dask_address is given and runner is 'threads'; set runner",
        ),
        (["show", "none.h5", "--row", "0"], "none.h5: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_one_line_and_nothing_is_written(
    arguments: list[str], said: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = nightlens(*arguments, environment=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(rf"nightlens: {said}.*\n", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text, said",
    [
        ("model: {epoch: 3}", "model.epoch: no such key; expected one of source, code, input, epochs, batch_size"),
        ("modle: {epochs: 3}", "modle: no such key; expected one of dataset, model"),
        ("model: {epochs: many}", "model.epochs: input should be a valid integer.*got 'many'"),
        ("integrated_gradients: {engine: alibi}", "integrated_gradients: engine alibi has fixed rules only"),
        ("integrated_gradients: {gap_tolerance: 0}", "integrated_gradients.gap_tolerance: .* greater than 0, got 0"),
        ("integrated_gradients: {error_tolerance: -1}", "integrated_gradients.error_tolerance: .* than 0, got -1"),
        (
            "integrated_gradients: {n_start: 8, n_max: 15}",
            r"integrated_gradients: n_max must be at least twice n_start \(8\), .* got 15; try 512",
        ),
        ("explanation: {memory_gb: 0}", "explanation.memory_gb: input should be greater than 0, got 0"),
        (
            "explanation: {precision: float16}",
            "explanation.precision: .*'float32', 'tf32', 'bfloat16' or 'auto', got 'float16'",
        ),
        ("gallery: {spotlight: [1, -2]}", "gallery.spotlight.1: input should be greater than or equal to 0, got -2"),
        ("dataset: cifar10", "dataset: expected keys such as source, data_dir"),
        ("- model", "expected keys such as 'dataset:' and 'model:', got list"),
        ("model: [", "expected YAML, got "),
        ("model: !!python/object/apply:os.getcwd []", "expected YAML, got could not determine a constructor"),
    ],
    ids=[
        "key",
        "section",
        "type",
        "combination",
        "no-gap",
        "no-error",
        "cap",
        "no-memory",
        "precision",
        "element",
        "no-section",
        "list",
        "broken",
        "unsafe",
    ],
)
def test_a_bad_configuration_is_named_key_by_key(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(text)
    with pytest.raises(BadParameters, match=f"^{path}: {said}"):
        read_parameters(path, {})


def test_every_mistake_in_a_configuration_has_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text("model: {epoch: 3, batch_size: 0}\nrunn: {}\n")
    with pytest.raises(BadParameters) as caught:
        read_parameters(path, {"--rows": "x"})
    assert len(caught.value.lines) == 4


def test_workers_of_a_cluster_that_has_its_own_are_refused() -> None:
    given = {"--runner": "dask", "--dask-address": "tcp://10.0.0.5:8786"}
    assert read_parameters(None, given)["run"].dask_address == "tcp://10.0.0.5:8786"
    with pytest.raises(BadParameters, match="--workers: the cluster at --dask-address has workers of its own"):
        read_parameters(None, given | {"--workers": 2})


def test_options_override_the_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text("dataset: {source: a.npz, size: 64}\nmodel: {epochs: 3}\nrun:\n")
    parameters = read_parameters(path, {"--dataset": "b.npz", "--rows": "0:9"})
    assert (parameters["dataset"].source, parameters["dataset"].size) == ("b.npz", 64)
    assert (parameters["model"].epochs, parameters["run"].rows) == (3, "0:9")


def test_help_comes_at_once_and_loads_no_heavy_library() -> None:
    started = time.monotonic()
    done = command.nightlens("run", "--help", options=IMPORT_TIMES)
    assert time.monotonic() - started < 30
    assert done.returncode == 0
    assert "nightlens run --dataset fashion_mnist.npz --rows 0:500" in done.stdout
    loaded = libraries_loaded(done)
    assert "typer" in loaded
    assert not loaded & {"tensorflow", "prefect", "numpy", "h5py", "yaml"}


@pytest.mark.parametrize("target", ["true", "predicted"])
def test_show_draws_a_row_without_tensorflow_and_prefect(target: str, tmp_path: Path) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 30))
    asked = ("show", tmp_path / "attributions.h5", "--row", 7, "--target", target)
    done = command.nightlens(*asked, options=IMPORT_TIMES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("row-7.png: Row 7: ")
    assert (tmp_path / "row-7.png").read_bytes().startswith(b"\x89PNG")
    assert not libraries_loaded(done) & {"tensorflow", "keras", "prefect"}


def test_show_says_that_there_is_no_grad_cam(tmp_path: Path, environment: dict[str, str]) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 30, grad_cam=False))
    done = nightlens("show", tmp_path, "--row", "7", "--out", tmp_path / "7.png", environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("; this night has no Grad-CAM")
    assert (tmp_path / "7.png").is_file()


def test_an_analysts_install_draws_and_names_what_is_missing_for_a_night(tmp_path: Path) -> None:
    """As in a base install: what only the extra 'pipeline' brings cannot be imported."""
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 30))
    blocked = "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'prefect', 'sklearn', 'yaml']))"
    for arguments, code in ((["show", "attributions.h5", "--row", "7"], 0), (["run"], 2)):
        program = f"{blocked}; sys.argv = ['nightlens', *{arguments}]; from flows.cli import main; main()"
        done = python("-c", program, cwd=tmp_path)
        assert done.returncode == code, done.stderr
    assert "needs prefect, which is not installed; install nightlens with the extra 'pipeline'" in done.stderr
    assert (tmp_path / "row-7.png").exists()


# How nights fail: the error, the exit code, and what the test is called.
FAILURES = {
    "audit": ("AuditError('rows [3] differ')", 1),
    "part-no-space": ("ExplanationError('rows 0 to 31') from OSError(28, 'no space')", 1),
    "part-no-file": ("ExplanationError('rows 0 to 31') from OSError(2, 'no such file')", 2),
    "lost-worker": ("ExplanationError('rows 0 to 31') from RuntimeError('lost')", 1),
    "no-space": ("OSError(errno.ENOSPC, 'rows 0 to 31')", 1),
    "quota": ("OSError(errno.EDQUOT, 'rows 0 to 31')", 1),
    "disk-error": ("OSError(errno.EIO, 'rows 0 to 31')", 1),
    "no-space-in-words": ("OSError('rows: HDF5 says No space left on device')", 1),
    "cause": ("ValueError('rows cannot be written') from OSError(errno.ENOSPC, 'full')", 1),
    "no-file": ("OSError(errno.ENOENT, 'rows 0 to 31')", 2),
    "bad-input": ("ValueError('rows 0 to 31')", 2),
}
# Each command in a fork of one process, which imports TensorFlow once; prints exit codes, stderr goes to a file for each.
FAILED_COMMANDS = """
import errno, json, os, sys, traceback
from pathlib import Path
import flows.cli, flows.commands.running.run_command
from tasks.audit import AuditError
from tasks.explain import ExplanationError

def command(error, said):
    def fail(flow, parameters, **_):
        exec(f"raise {error}", globals())
    flows.commands.running.run_command.run_in_foreground = fail
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["nightlens", "run"]
    try:
        flows.cli.main()
    except SystemExit as end:
        return end.code
    except BaseException:
        traceback.print_exc()
    return -1

codes = {}
for name, error in json.loads(sys.argv[1]).items():
    if (child := os.fork()) == 0:
        code = command(error, Path(sys.argv[2]) / name)
        sys.stderr.flush()
        os._exit(code or 0)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The exit code of each failed night, and what the command said on stderr."""
    folder = tmp_path_factory.mktemp("failed")
    errors = json.dumps({name: error for name, (error, _) in FAILURES.items()})
    codes: dict[str, int] = json.loads(printed_by_python(FAILED_COMMANDS, errors, folder))
    return {name: (code, (folder / name).read_text()) for name, code in codes.items()}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_night_is_one_line(name: str, failed: dict[str, tuple[int, str]]) -> None:
    code, err = failed[name]
    assert code == FAILURES[name][1]
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("nightlens: rows")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_no_bad_input(tmp_path: Path, environment: dict[str, str]) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 30))
    done = nightlens("show", tmp_path / "attributions.h5", "--row", 3, "--out", "/dev/full", environment=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "nightlens: No space left on device"


def test_show_names_a_row_that_is_not_there(tmp_path: Path, environment: dict[str, str]) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 30))
    done = nightlens("show", tmp_path / "attributions.h5", "--row", "30", environment=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nightlens: --row: row 30 is not in this store, which has rows 0-29\n"
