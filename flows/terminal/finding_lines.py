"""What a person sees of a verification: how far it is, on stderr, and a table of what is wrong, on stdout."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage import Finding
    from storage.read.progress_line import Progress

__all__ = ["print_findings", "reading_progress"]

# A table that goes to a file or a pipe is as wide as it needs to be for people to read it.
PIPED_WIDTH = 160
MEGABYTE = 1_000_000


def print_findings(findings: "Sequence[Finding]") -> None:
    """A table of what, where, rows and detail; nothing for none, and one line for a file that is no store."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from storage.errors import name_rows

    if [finding.check for finding in findings] == ["store"]:
        print(findings[0].detail)
        return
    if not findings:
        return
    table = Table(
        "what",
        "where",
        "rows",
        "detail",
        title=f"{len(findings)} finding{'s' * (len(findings) > 1)}",
        title_justify="left",
    )
    for finding in findings:
        cells = (finding.check, finding.where, name_rows(finding.rows), finding.detail)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)


@contextmanager
def reading_progress() -> "Iterator[Progress]":
    """A function that takes what is read, bytes done and bytes in all, and shows it as the progress of a night is shown."""
    from rich.console import Console

    from flows.terminal import progress_bars
    from tasks.night.progress import Progress

    with progress_bars.ProgressDisplay(Console(stderr=True, highlight=False)) as display:
        yield lambda what, done, total: display(
            Progress(stage=what, done=-(-done // MEGABYTE), total=-(-total // MEGABYTE), unit="MB")
        )
