"""`nightlens status`: server, worker, next runs, last night and disk, each as what is so and whether that is well.

Works where nothing runs, and starts nothing. Every line is judged: a monitor asks for the exit code only.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from flows.commands.doctor import LEAST_FREE_BYTES
from flows.server.api import ServerError, answers, api_environment, configured_api, refuse_unreachable
from flows.server.server import running_server
from flows.service.heartbeat import WORK_POOL
from flows.service.runs.schedule import planned_runs, time_until
from flows.service.up import holder
from flows.service.worker import online_workers
from storage import Catalog, NightEntry, read_nights
from storage.file.disk.sizes import files_below

__all__ = ["Line", "examine_service", "print_status"]

Mark = Literal["✓", "✗", "-"]
COLOURS: dict[Mark, str] = {"✓": "green", "✗": "bold red", "-": "dim"}
PIPED_WIDTH = 1000


@dataclass(frozen=True)
class Line:
    """One line of the status: well (✓), not (✗), or neither (-)."""

    mark: Mark
    what: str
    text: str


def print_status(root: Path) -> bool:
    """Prints a table; returns whether all is well."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    lines = list(examine_service(root))
    for line in lines:
        table.add_row(Text(line.mark, style=COLOURS[line.mark]), Text(line.what, style="bold"), Text(line.text))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    with console.capture() as printed:
        console.print(table)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()))
    return all(line.mark != "✗" for line in lines)


def examine_service(root: Path) -> Iterator[Line]:
    """Everything that a person or a monitor asks in the morning."""
    home = root / "prefect"
    yield _up(root, home)
    with contextlib.ExitStack() as stack:
        server = _server(home, stack)
        yield server
        if server.mark == "✓":
            yield from _on_server()
    yield from _nights(root)
    yield from _disk(root)


def _up(root: Path, home: Path) -> Line:
    try:
        up = holder(home)
    except ServerError as error:
        return Line("✗", "up", str(error))
    if up is None:
        return Line("✗", "up", f"not running; `nightlens up --root {root}` starts it")
    doing = "is stopping" if up.get("stopping") else f"since {up.get('since')}"
    return Line("✓" if up.get("ready") else "-", "up", f"process {up.get('pid')}, {doing}")


def _server(home: Path, stack: contextlib.ExitStack) -> Line:
    """The API that is configured, or the root's own server, to which this process's Prefect then talks."""
    if api := configured_api():
        try:
            refuse_unreachable(api)
        except ServerError as error:
            return Line("✗", "server", str(error))
        return Line("✓", "server", f"{get_current_settings().ui_url} answers, as configured")
    try:
        found: dict[str, Any] | None = running_server(home)
    except ServerError as error:
        return Line("✗", "server", str(error))
    if found is None:
        return Line("✗", "server", "not running")
    stack.enter_context(api_environment(home, found["url"]))
    if not answers(found["url"]):
        return Line("✗", "server", f"{found['url']} does not answer; its log is {home / 'server.log'}")
    return Line("✓", "server", f"{found['url'].removesuffix('/api')} answers ({found.get('database', 'SQLite')})")


def _on_server() -> Iterator[Line]:
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client:
            yield from _worker(client)
            yield from _plans(client)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        yield Line("✗", "server", f"does not say what is planned ({type(error).__name__}: {error})")


def _worker(client: SyncPrefectClient) -> Iterator[Line]:
    try:
        pool = client.read_work_pool(WORK_POOL)
        names = online_workers(client)
    except ObjectNotFound:
        yield Line("✗", "worker", f"there is no work pool {WORK_POOL!r} yet; `nightlens up` makes it")
        return
    if pool.is_paused:
        yield Line("✗", "work pool", f"{WORK_POOL} is paused: no run starts; resume it in the UI")
    if names:
        yield Line("✓", "worker", f"{', '.join(names)} online")
    else:
        yield Line("✗", "worker", f"none is online in the pool {WORK_POOL}")


def _plans(client: SyncPrefectClient) -> Iterator[Line]:
    now = datetime.now(UTC)
    for planned in planned_runs(client):
        schedules = ", ".join(planned.schedules)
        if planned.is_paused and planned.schedules:
            yield Line("-", planned.name, f"paused  ({schedules})")
        elif planned.is_unscheduled:
            yield Line("✗", planned.name, f"no run is planned  ({schedules})")
        elif planned.next is None:
            yield Line("-", planned.name, "when asked")
        elif planned.late_s(now):
            yield Line("✗", planned.name, f"late: {time_until(planned.next, now)}  ({schedules or 'asked for'})")
        else:
            yield Line("✓", planned.name, f"next {time_until(planned.next, now)}  ({schedules or 'asked for'})")


def _nights(root: Path) -> Iterator[Line]:
    """The newest night, and the last sealed one where that is another."""
    nights = read_nights(Catalog(root))
    # An explanation on demand that went well says nothing about the schedule.
    nights = [night for night in nights if _moves_latest(night)] or nights
    if not nights:
        yield Line("-", "last night", f"no night in {root} yet")
        return
    newest, sealed = nights[0], next((night for night in nights if night.state == "sealed"), None)
    mark: Mark = "✓" if newest.state == "sealed" else "-" if newest.state == "running" else "✗"
    yield Line(mark, "last night", _night(newest))
    if newest.state != "sealed":
        yield Line("-", "last sealed", _night(sealed) if sealed else "none yet")


def _moves_latest(night: NightEntry) -> bool:
    asked: Any = night.run.get("parameters", {})
    return bool(asked.get("run", {}).get("move_latest", True))


def _night(night: NightEntry) -> str:
    accuracy = "" if night.accuracy is None else f", accuracy {night.accuracy:.4f}"
    rows = "" if night.n_rows is None else f", {night.n_rows:,} rows"
    began = f", began {time_until(night.began)}" if night.began else ""
    note = f" ({night.note})" if night.note else ""
    return f"{night.id} {night.state}{', latest' * night.is_latest}{rows}{accuracy}{began}{note}"


def _disk(root: Path) -> Iterator[Line]:
    if not root.is_dir():
        yield Line("-", "disk", f"{root} is not there yet")
        return
    usage = shutil.disk_usage(root)
    counted = set[tuple[int, int]]()
    sizes = ", ".join(
        f"{name} {decimal(_size(root / name, counted))}" for name in ("nights", "parts", "models", "prefect")
    )
    mark: Mark = "✓" if usage.free >= LEAST_FREE_BYTES else "✗"
    yield Line(mark, "disk", f"{decimal(usage.free)} of {decimal(usage.total)} free; {sizes}")


def _size(folder: Path, counted: set[tuple[int, int]]) -> int:
    """All files of a folder that were not counted under another name, as parts of a night are."""
    total = 0
    for status in files_below(folder):
        file = (status.st_dev, status.st_ino)
        if file not in counted:
            counted.add(file)
            total += status.st_size
    return total
