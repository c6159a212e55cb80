"""Commands of what is watched: `ui`, the record of a root; `up`, `down` and `status`, nights that run by themselves."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flows.service.stopping import stopped_by_signal
from flows.terminal.options import DEFAULT_ROOT, RootOption

__all__ = ["down", "status", "ui", "up"]

DOWN_TIMEOUT_S = 90.0


def ui(
    root: RootOption = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0: the last one, or a free one.")] = 0,
) -> None:
    """Brings the record of a root's nights back up, until Ctrl-C.

    Example: `nightlens ui --root /data/nightlens --port 4200`
    """
    from flows.server.api import configured_api, refuse_unreachable
    from flows.server.server import LocalServer

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
    with LocalServer(root, ports=(port,) if port else ()) as server:
        server.wait_until_up()
        print(f"{server.ui_url}  (Ctrl-C stops it)", flush=True)
        with stopped_by_signal():
            while True:
                time.sleep(0.5)
                server.refuse_dead()


def up(
    root: RootOption = DEFAULT_ROOT,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the server listens; it asks nobody for a password.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="If it is taken, another. 0: the last one, else 4200.")
    ] = 0,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="postgresql+asyncpg://USER@HOST/NAME [default: SQLite in the root]", show_default=False
        ),
    ] = None,
    record_days: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs, logs and artifacts that the server keeps, in days.")
    ] = 90,
    deployments: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: nightlens's prefect.yaml]", show_default=False)
    ] = None,
    systemd_unit: Annotated[
        bool, typer.Option("--systemd-unit", help="Only print a systemd unit that does this at every boot.")
    ] = False,
) -> None:
    """Brings everything up that nights need to run by themselves: server, work pool, deployments, worker.

    It stays until Ctrl-C, SIGTERM or `nightlens down`, and stops all that it started. A second `up` brings the
    deployments up to date and ends. What dies is started again. With a Prefect API configured (PREFECT_API_URL or a
    profile) that one is used, and no server is started.

    A PostgreSQL password belongs in ~/.pgpass or PGPASSWORD, not on a command line that everybody can read.

    Examples:

    - `nightlens up --root /data/nightlens`

    - `nightlens up --root /data/nightlens --database postgresql+asyncpg://nightlens@db/nightlens`

    - `nightlens up --root /data/nightlens --systemd-unit > /etc/systemd/system/nightlens.service`
    """
    from flows.commands.doctor import refuse_unusable
    from flows.service.up import DEPLOYMENT_FILE, UpOptions, stay_up

    options = UpOptions(
        root=root.expanduser().resolve(),
        host=host,
        port=port,
        database=database,
        record_days=record_days,
        deployments=deployments.expanduser().resolve() if deployments else DEPLOYMENT_FILE,
    )
    if systemd_unit:
        from flows.service.systemd import unit

        print(unit(options), end="")
        return
    refuse_unusable(options.root)
    stay_up(options)


def down(root: RootOption = DEFAULT_ROOT) -> None:
    """Stops what `up` started, from another shell. A night that runs is interrupted; its finished parts are kept.

    Example: `nightlens down --root /data/nightlens`
    """
    from flows.service.up import holder, refuse_another_host

    home = root.expanduser().resolve() / "prefect"
    found = holder(home)
    if found is None:
        print(f"nothing is up in {root}")
        return
    pid = found.get("pid")
    if pid is None:
        raise ValueError(f"{root} is just being brought up; try again in a second")
    refuse_another_host(root, found)
    # It may have ended by itself since it was asked for.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while holder(home) is not None:
        if time.monotonic() > deadline:
            raise ValueError(
                f"`nightlens up` (process {pid}) did not stop within {DOWN_TIMEOUT_S:g} s; kill it by hand"
            )
        time.sleep(0.1)
    print(f"stopped process {pid}")
    from flows.server.server import running_server

    if server := running_server(home):
        print(f"the server at {server['url']} stays: a `run` or `ui` uses it", file=sys.stderr)


def status(root: RootOption = DEFAULT_ROOT) -> None:
    """Says how it stands: server, worker, next runs, last night, disk. Works where nothing runs.

    Exit code 0 if all is well; 1 if something is not: nothing is up, no worker is online, a run is late or not planned,
    the last night failed or was interrupted, the disk is nearly full.

    Example: `nightlens status --root /data/nightlens || mail -s nightlens operator@example.org`
    """
    from flows.commands.status import print_status

    if not print_status(root.expanduser().resolve()):
        raise typer.Exit(1)
