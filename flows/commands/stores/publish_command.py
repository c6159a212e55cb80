"""`nightlens publish`: a finished night copied to an address, as `run.publish_to` does at the end of a night."""

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal.options import DEFAULT_ROOT

__all__ = ["publish"]


def publish(
    night: Annotated[
        str,
        typer.Argument(metavar="NIGHT", help="A night's folder, its store, a root for its latest, or a night's id."),
    ],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Such as s3://bucket/prefix.")],
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="Where the night of that id is.")] = DEFAULT_ROOT,
    latest: Annotated[
        bool,
        typer.Option(
            "--latest/--not-latest", help="Whether ADDRESS/latest is to name this night, if it names no later one."
        ),
    ] = True,
) -> None:
    """Copies a finished night's folder to an address, and reads all of it back; what is there and equal is not sent again.

    Credentials come from the environment. `nightlens.open_store(ADDRESS)` opens the night there. Needs the extra 'remote'.

    Example: `nightlens publish nightlens-data/latest s3://bucket/prefix`
    """
    from flows.commands.stores.pack_command import night_place
    from flows.terminal.finding_lines import reading_progress
    from storage import resolve_store
    from tasks.config.run_section import writable_address
    from tasks.handover.late_warning import without_late_warning
    from tasks.handover.published_copy import copy_night, not_whole_at

    writable_address(address)
    folder = resolve_store(night_place(night, root)).parent
    with reading_progress() as progress, without_late_warning(folder, "not-published", not_whole_at(address)):
        made = copy_night(
            folder, address, is_latest=latest, progress=lambda _, done, total: progress("copy", done, total)
        )
    print(
        f"{made.address}: {made.n_files:,} files, {made.bytes / 1e6:,.1f} MB, each read back and of the same sha256; "
        f"{made.n_sent:,} of them sent now, {made.bytes_sent / 1e6:,.1f} MB"
    )
