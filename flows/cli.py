"""The `nightlens` command: options in, one clear line out where something is wrong.

Every command imports what it needs when it runs: help must come at once, and `show` needs neither TensorFlow nor
Prefect. Exit codes: 0 done, 1 a night failed, is not recorded, or something is broken (`doctor`, `verify`), 2 bad input,
130 and 143 interrupted.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flows.export_command import export
from flows.night_commands import models, nights, pin, prune, unpin
from flows.options import DEFAULT_ROOT, DataDirOption, RootOption
from flows.parameters import BadParameters, read_parameters, resumed_parameters
from flows.store_commands import show, verify

__all__ = ["app", "main"]

INTERRUPTED, TERMINATED = 130, 143
OUR_PACKAGES = ("flows", "tasks", "storage")
# typer's own name for what its parser raises is private.
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def nightlens() -> None:
    """Explains every image of a test split, and says how far each explanation can be trusted.

    `nightlens run` needs nothing else: it prepares a dataset of handwritten digits, trains a network, explains the
    whole test split by Integrated Gradients and Grad-CAM, and seals all of it in one HDF5 file, with pictures.

    `nightlens doctor` says what is missing where that fails.
    """


@app.command()
def run(
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="digits, a TFDS name, an .npz, or a folder of images. [default: digits]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="auto|train|PATH", help="Reuse a matching model, train one, or load. [default: auto]"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs of training.", show_default=False)] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help=f"Folder of everything written. [default: {DEFAULT_ROOT}]")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="A:B", help="Rows of the test split to explain. [default: all]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="The flow's parameters; options override it.", show_default=False),
    ] = None,
    runner: Annotated[
        str | None, typer.Option(metavar="threads|dask", help="How parts run in parallel. [default: threads]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Threads, or processes of a local Dask cluster. [default: 2]")
    ] = None,
    dask_address: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="With --runner dask: the scheduler of a cluster.")
    ] = None,
    data_dir: DataDirOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished night, as it was begun.")
    ] = False,
    night: Annotated[
        str | None, typer.Option(metavar="ID", help="With --resume: another unfinished night.", show_default=False)
    ] = None,
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="Log JSON lines to stderr; the result is one on stdout.")
    ] = False,
) -> None:
    """Runs a night: ingest, train or reuse, evaluate, explain, seal, audit, publish.

    Parts that are done are kept: after an interruption the same command starts a new night that computes only what is
    missing, and `--resume` goes on with the one that was interrupted.

    Examples:

    - `nightlens run` explains the embedded digits, in about two minutes

    - `nightlens run --dataset fashion_mnist.npz --rows 0:500`

    - `nightlens run --dataset cifar10 --model model.keras --root /data/nightlens`

    - `nightlens run --config night.yaml --epochs 3`

    - `nightlens run --runner dask --workers 4`

    - `nightlens run --resume --root /data/nightlens`

    With a Prefect API configured (PREFECT_API_URL or a profile) the night is recorded there, otherwise by a server of
    its own under the root, which `nightlens ui` brings back up.
    """
    if json_logs:
        from flows.logs import write_json_logs

        write_json_logs()
    options = {
        "--dataset": dataset,
        "--data-dir": data_dir,
        "--model": model,
        "--epochs": epochs,
        "--root": root,
        "--rows": rows,
        "--runner": runner,
        "--workers": workers,
        "--dask-address": dask_address,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if night and not resume:
        raise ValueError("--night names the night to go on with, and needs --resume")
    if resume:
        others = [*(given.keys() - {"--root"}), *(["--config"] if config else [])]
        if others:
            raise ValueError(f"--resume goes on with a night as it was begun; leave out {', '.join(sorted(others))}")
        _run_night(resumed_parameters(root or DEFAULT_ROOT, night), json_logs=json_logs)
    else:
        _run_night(read_parameters(config, given), json_logs=json_logs)


def _run_night(parameters: Mapping[str, Any], *, json_logs: bool = False) -> None:
    from rich.console import Console

    from flows.doctor import refuse_unusable
    from flows.server import LocalServer, ServerDied, configured_api, refuse_unreachable
    from flows.terminal import import_flow, keep_run_logs_on_server
    from tasks.runners import check_runner

    console = Console(stderr=True, highlight=False, quiet=json_logs)
    root: Path = parameters["run"].root
    api = configured_api()
    if api:
        refuse_unreachable(api)
    refuse_unusable(root)
    check_runner(parameters["run"])
    try:
        with contextlib.ExitStack() as stack:
            server = None if api else stack.enter_context(LocalServer(root))
            console.print("starting TensorFlow" + ("" if api else f" and a Prefect server in {root / 'prefect'}"))
            nightly = import_flow()
            if server:
                server.wait_until_up()
            keep_run_logs_on_server(console)
            state, unrecorded = _recorded_run(nightly, parameters, console, own_server=server is not None)
            where = f"{_flow_run_url(state)}" + (f"  after `nightlens ui --root {root}`" if server else "")
    except ServerDied as error:
        _complain(f"{error}; the parts that are done are kept, the same command continues")
        # Prefect would go on for minutes trying to deliver its events.
        os._exit(1)
    if not state.is_completed():
        # The traceback is in the run's log.
        console.print(f"record    {where}", soft_wrap=True)
    result = state.result()
    if json_logs:
        print(json.dumps(result.model_dump(mode="json") | {"record": where}))
    else:
        _print_result(result, where)
    if unrecorded:
        _complain(unrecorded)
        raise typer.Exit(1)


def _print_result(result: Any, where: str) -> None:
    print(f"verdict   {result.verdict}")
    print(
        f"night     {result.night_id}: {result.n_rows:,} rows, accuracy {result.accuracy:.4f}, {result.seconds:,.0f} s"
    )
    print(f"store     {result.store}")
    print(f"pictures  {result.gallery}")
    print(f"record    {where}")


def _recorded_run(nightly: Any, parameters: Mapping[str, Any], console: Any, *, own_server: bool) -> tuple[Any, str]:
    """The final state of the night, and what our own server, which is about to stop, has not recorded of it."""
    from flows.server import ServerError, wait_until_recorded
    from flows.terminal import ProgressDisplay
    from tasks.progress import listening

    with ProgressDisplay(console) as display, listening(display):
        state = nightly(**parameters, return_state=True)
        display.finish(failed=not state.is_completed())
    if own_server:
        try:
            wait_until_recorded(state.state_details.flow_run_id)
        except ServerError as error:
            return state, str(error)
    return state, ""


def _flow_run_url(state: Any) -> str | None:
    from prefect.utilities.urls import url_for

    return url_for("flow-run", obj_id=state.state_details.flow_run_id)


@app.command()
def ui(
    root: RootOption = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0: the last one, or a free one.")] = 0,
) -> None:
    """Brings the record of a root's nights back up, until Ctrl-C.

    Example: `nightlens ui --root /data/nightlens --port 4200`
    """
    from flows.server import LocalServer, configured_api, refuse_unreachable

    if api := configured_api():
        from prefect.settings import get_current_settings

        refuse_unreachable(api)
        print(f"{get_current_settings().ui_url}  (a Prefect API is configured: {api})")
        return
    if not (root / "prefect").is_dir():
        raise ValueError(
            f"{root}: no night was recorded here by a server of its own; "
            f"run `nightlens run --root {root}` first, or give another --root"
        )
    with LocalServer(root, port) as server:
        server.wait_until_up()
        print(f"{server.ui_url}  (Ctrl-C stops it)", flush=True)
        with _stopped_by_signal():
            while True:
                time.sleep(0.5)
                server.refuse_dead()


@contextlib.contextmanager
def _stopped_by_signal() -> Any:
    """Ctrl-C and SIGTERM are the way to end this, not an interruption."""
    try:
        yield
    except (KeyboardInterrupt, _Terminated):
        print("stopping", file=sys.stderr)


@app.command()
def doctor(
    root: RootOption = DEFAULT_ROOT,
    dataset: Annotated[str, typer.Option(metavar="NAME|PATH", help="The dataset to look for.")] = "digits",
    data_dir: DataDirOption = None,
) -> None:
    """Checks dependencies, dataset, models, server and root, and says what to do about each ✗.

    Example: `nightlens doctor --dataset cifar10 --root /data/nightlens`
    """
    from flows.doctor import examine

    if not examine(root=root, dataset=dataset, data_dir=data_dir):
        raise typer.Exit(1)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A TFDS name, such as cifar10.")],
    archive: Annotated[
        list[Path], typer.Option(metavar="FILE", help="An archive as TFDS would download it; may be repeated.")
    ],
    root: RootOption = DEFAULT_ROOT,
    data_dir: DataDirOption = None,
) -> None:
    """Prepares a dataset from archives carried in by hand, where there is no network.

    Each is recognised by the checksum that TFDS has on record, whatever the file is called.

    Example: `nightlens fetch cifar10 --archive cifar-10-binary.tar.gz`
    """
    from flows.doctor import refuse_unusable
    from flows.terminal import quiet_tensorflow

    refuse_unusable(data_dir or root)
    with quiet_tensorflow():
        import tasks.datasets
    print(tasks.datasets.fetch(name, archive, root, data_dir))


for command in (show, verify, export, nights, pin, unpin, prune, models):
    app.command()(command)


class _Terminated(BaseException):
    """SIGTERM came; raised so that the server is stopped and the record is whole."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _bad_input() -> tuple[type[Exception], ...]:
    """What the flow and the commands raise for bad input; asked only when something was raised."""
    from storage import StoreError

    return (ValueError, OSError, StoreError)


def _failed_night() -> tuple[type[Exception], ...]:
    """What the flow raises for a night that failed although its input was good."""
    if "tasks.audit" not in sys.modules:
        return ()
    from tasks.audit import AuditError
    from tasks.explain import ExplanationError

    return (AuditError, ExplanationError)


def _message(error: Exception) -> str:
    """What an error says; of the operating system's, the file and the reason without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _complain(line: str) -> None:
    typer.secho(f"nightlens: {' '.join(line.split())}", fg="red", err=True)


def main() -> NoReturn:
    """The entry point: runs a command and turns bad input into one line and exit code 2."""
    # Prefect reports its first import to its makers otherwise.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = typer.main.get_command(app).main(prog_name="nightlens", standalone_mode=False)
    except USAGE_ERROR as error:
        _complain(f"{error.format_message()} (see `nightlens --help`)")  # type: ignore[attr-defined]
        code = 2
    except BadParameters as error:
        for line in error.lines:
            _complain(line)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except _Terminated:
        code = TERMINATED
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in OUR_PACKAGES:
            raise
        _complain(f"this command needs {package}, which is not installed; install nightlens with the extra 'pipeline'")
        code = 2
    except _failed_night() as error:
        _complain(_message(error))
        code = 2 if isinstance(error.__cause__, _bad_input()) else 1
    except _bad_input() as error:
        _complain(_message(error))
        code = 2
    # typer turns a Ctrl-C into an exit code by itself.
    if code in (INTERRUPTED, TERMINATED):
        kept = "; the parts that are done are kept, the same command continues" if "run" in sys.argv[1:2] else ""
        _complain(f"interrupted{kept}")
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
