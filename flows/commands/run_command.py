"""`nightlens run`: a night in the foreground, its progress on the terminal and its record on a server."""

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.parameters import read_parameters, resumed_parameters
from flows.terminal.complaints import bad_input, complain, failed_night, message
from flows.terminal.options import DEFAULT_ROOT, DataDirOption

__all__ = ["run"]


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
    model_input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="RANGE",
            help="What a given model is fed: auto, unit (0..1), raw (0..255), signed (-1..1), torch or caffe. [default: auto]",
        ),
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
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="single|virtual", help="The store as one file, or over those of the parts. [default: single]"
        ),
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
    offline_ok: Annotated[
        bool, typer.Option("--offline-ok", help="Go on where the configured Prefect API does not answer.")
    ] = False,
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
    its own under the root, which `nightlens ui` brings back up. An API that does not answer is an error before any work;
    with `--offline-ok` the night is recorded under the root instead, and what no server recorded is no error.
    """
    if json_logs:
        from flows.terminal.logs import write_json_logs

        write_json_logs()
    options = {
        "--dataset": dataset,
        "--data-dir": data_dir,
        "--model": model,
        "--input": model_input,
        "--epochs": epochs,
        "--root": root,
        "--rows": rows,
        "--layout": layout,
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
        _run_night(resumed_parameters(root or DEFAULT_ROOT, night), offline_ok=offline_ok, json_logs=json_logs)
    else:
        _run_night(read_parameters(config, given), offline_ok=offline_ok, json_logs=json_logs)


def _run_night(parameters: Mapping[str, Any], *, offline_ok: bool = False, json_logs: bool = False) -> None:
    from rich.console import Console

    from flows.commands.doctor import refuse_unusable
    from flows.server.api import ServerError, configured_api, refuse_unreachable
    from flows.server.server import LocalServer, ServerDied
    from flows.terminal.progress_bars import keep_run_logs_on_server, quiet_tensorflow
    from tasks.parts.runners import check_runner

    console = Console(stderr=True, highlight=False, quiet=json_logs)
    root: Path = parameters["run"].root
    api, notes = configured_api(), list[str]()
    if api:
        try:
            refuse_unreachable(api)
        except ServerError as error:
            if not offline_ok:
                raise
            console.print(f"{error}; --offline-ok: the night is recorded under {root} instead", soft_wrap=True)
            notes, api = [f"not recorded at {api}, which did not answer"], None
    refuse_unusable(root)
    check_runner(parameters["run"])
    ended, where = None, ""
    try:
        with contextlib.ExitStack() as stack:
            server = None if api else stack.enter_context(LocalServer(root))
            console.print("starting TensorFlow" + ("" if api else f" and a Prefect server in {root / 'prefect'}"))
            with quiet_tensorflow():
                nightly = importlib.import_module("flows.nightly").nightly
            if server:
                server.wait_until_up()
            keep_run_logs_on_server(console)
            ended = _recorded_run(nightly, parameters, console, own_server=server is not None)
            url = _flow_run_url(ended.flow_run_id) if ended.flow_run_id else None
            where = f"{url}" + (f"  after `nightlens ui --root {root}`" if server else "")
    except ServerDied as error:
        if ended is None or ended.failed:
            complain(f"{error}; the parts that are done are kept, the same command continues")
            # Prefect would go on for minutes trying to deliver its events.
            os._exit(1)
        ended.unrecorded.append(str(error))
        ended.server_gone = True
    if ended.failed:
        # The traceback is in the run's log.
        console.print(f"record    {where}", soft_wrap=True)
    result = ended.result()
    if result is None:
        for line in ended.unrecorded:
            complain(line)
        os._exit(1)
    if json_logs:
        print(json.dumps(result.model_dump(mode="json") | {"record": where}), flush=True)
    else:
        _print_result(result, where)
    for note in [*notes, *ended.notes, *ended.unrecorded]:
        complain(note)
    code = 1 if ended.unrecorded and not offline_ok else 0
    if ended.server_gone:
        os._exit(code)
    if code:
        raise typer.Exit(code)


def _print_result(result: Any, where: str) -> None:
    from storage.file.catalog import REPORT_NAME

    print(f"verdict   {result.verdict}")
    print(
        f"night     {result.night_id}: {result.n_rows:,} rows, accuracy {result.accuracy:.4f}, {result.seconds:,.0f} s"
    )
    if not result.has_grad_cam:
        print("Grad-CAM  none: Integrated Gradients alone")
    print(f"store     {result.store}")
    if result.gallery.is_dir():
        print(f"pictures  {result.gallery}")
        print(f"report    {result.store.with_name(REPORT_NAME)}")
    print(f"record    {where}", flush=True)


@dataclass
class _Ended:
    """How the flow ended. result: raises why it failed; None where neither a result nor the server is there.

    notes: what is worth a line. unrecorded: what the server does not have. server_gone: it has not even taken the end.
    """

    flow_run_id: Any
    failed: bool
    result: Callable[[], Any]
    notes: list[str]
    unrecorded: list[str]
    server_gone: bool = False


def _recorded_run(nightly: Any, parameters: Mapping[str, Any], console: Any, *, own_server: bool) -> _Ended:
    """Runs the flow, and finds out what the server has not recorded of it."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows.server.api import ServerError
    from flows.server.server_record import wait_until_recorded
    from flows.terminal.progress_bars import ProgressDisplay
    from tasks.night.outage import NOT_RECORDED, outlasting
    from tasks.night.progress import listening

    with ProgressDisplay(console) as display, listening(display), outlasting() as outage:
        try:
            # The end is offered to a server twice, for 14 s each with three retries; Prefect's five make it a minute.
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 3}):
                state = nightly(**parameters, return_state=True)
        except NOT_RECORDED as error:
            result, said = outage.result, [outage.message] if outage.message else []
            display.finish(failed=result is None)
            if result is None:
                return _Ended(None, False, lambda: None, [], [*said, message(_behind(error))], server_gone=True)
            lost = f"the end of the run ({type(error).__name__}: {error}), which the server may list as running"
            return _Ended(
                result.flow_run_id, False, lambda: result, [], [*said, f"not recorded: {lost}"], server_gone=True
            )
        display.finish(failed=not state.is_completed())
    ended = _Ended(state.state_details.flow_run_id, not state.is_completed(), state.result, [], [])
    if outage.message:
        (ended.unrecorded if outage.missing else ended.notes).append(outage.message)
    if own_server or outage.message:
        try:
            wait_until_recorded(ended.flow_run_id)
        except (ServerError, *NOT_RECORDED) as error:
            ended.unrecorded.append(message(error))
    return ended


def _behind(error: BaseException) -> Exception:
    """Why the night failed, where the server did not take its failure either; else that the server did not answer."""
    from flows.server.api import ServerError

    cause = error.__cause__ or error.__context__
    while cause:
        if isinstance(cause, Exception) and isinstance(cause, (*bad_input(), *failed_night())):
            return cause
        cause = cause.__cause__ or cause.__context__
    return ServerError(
        f"the Prefect server stopped answering before the night was sealed ({type(error).__name__}: {error})"
    )


def _flow_run_url(flow_run_id: Any) -> str | None:
    from prefect.utilities.urls import url_for

    return url_for("flow-run", obj_id=flow_run_id)
