"""A flow in the foreground: its progress on the terminal, its record on a server, what went wrong in one line each."""

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from flows.terminal.complaints import bad_input, complain, failed_night, message

__all__ = ["run_in_foreground"]


def run_in_foreground(
    flow: str,
    parameters: Mapping[str, Any],
    *,
    say: Callable[[Any, str], None],
    offline_ok: bool = False,
    json_logs: bool = False,
) -> None:
    """Runs a flow, "module:name", with what is seen of it on the terminal, and ends as its command is to end.

    say: says its result, and where it is recorded, on stdout; with json_logs that is a line of JSON instead.
    """
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
                module, _, name = flow.partition(":")
                loaded = getattr(importlib.import_module(module), name)
            if server:
                server.wait_until_up()
            keep_run_logs_on_server(console)
            ended = _recorded_run(loaded, parameters, console, own_server=server is not None)
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
        say(result, where)
    for note in [*notes, *ended.notes, *ended.unrecorded]:
        complain(note)
    code = 1 if ended.unrecorded and not offline_ok else 0
    if ended.server_gone:
        os._exit(code)
    if code:
        raise typer.Exit(code)


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


def _recorded_run(flow: Any, parameters: Mapping[str, Any], console: Any, *, own_server: bool) -> _Ended:
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
                state = flow(**parameters, return_state=True)
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
