"""`nightlens browse`: the nights of a root, and every row of each, in a browser on this machine."""

import contextlib
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows.service.stopping import stopped_by_signal
from flows.terminal.options import DEFAULT_ROOT

__all__ = ["browse"]

PORT = 4280


def browse(
    place: Annotated[
        str, typer.Argument(metavar="[ROOT|STORE|ADDRESS]", help="A root of nights, a night, a store, or an address.")
    ] = str(DEFAULT_ROOT),
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Where it listens. 0: any that is free.")
    ] = PORT,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser, too.")] = False,
) -> None:
    """Shows all nights in a browser, and every row of each: pictures are drawn from the store when you look at them.

    Rows are filtered and ordered by every number; links say what is shown; any selection is given as Python, and saved as
    Parquet or PNG. Two nights on the same images can be compared, and a row looked at in both. It listens on this machine
    alone, asks no network but a store's own address, and reads only; Ctrl-C stops it.

    Needs the extra 'browse', and neither TensorFlow nor Prefect.

    Examples:

    - `nightlens browse`

    - `nightlens browse /data/nightlens --port 0 --open`

    - `nightlens browse s3://bucket/prefix`, all nights that were published there
    """
    try:
        from tasks.browse.browse_server import claimed_port, serve
        from tasks.browse.shown_nights import ShownNights
    except ModuleNotFoundError as error:
        raise ValueError(
            f"browse needs {error.name}, which is not installed: pip install 'nightlens[browse]'"
        ) from error

    with claimed_port(port) as listening, contextlib.ExitStack() as at_end, stopped_by_signal():
        nights = ShownNights(place)
        known = nights.lines()
        if nights.start:
            nights.open(nights.start)  # what is wrong with it is said now
        if nights.note:
            typer.secho(nights.note, err=True)

        def say(address: str) -> None:
            link = f"{address}/nights/{nights.start}/" if nights.start else f"{address}/"
            of = f"{len(known):,} night{'' if len(known) == 1 else 's'} of " if nights.has_list else ""
            print(f"{link}  {of}{nights.shown}  (Ctrl-C stops it)", flush=True)
            if nights.root:
                at_end.callback(_announce(nights.root, address))
            if open_browser:
                # Some browsers stay until they are closed.
                threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()

        serve(nights, listening, say)


def _announce(root: Path, address: str) -> Callable[[], None]:
    """Pages of later nights link here. Returns what takes that back; a root that cannot be written stays as it is."""
    from storage.nights.browse_record import remove_browse_record, write_browse_record

    try:
        write_browse_record(root, address)
    except OSError as error:
        typer.secho(f"pages of later nights will not link here: {root}: {error.strerror}", err=True)
        return lambda: None
    return lambda: remove_browse_record(root)
