"""Pages of nights that ended without a word, written in a process of its own: `up` lives for months, and a page takes matplotlib.

One process at a time; what comes meanwhile is written by the next. `up` asks again and again whether it is done.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import UUID

from flows.service.outfit import package_variables

__all__ = ["LostPages"]

PROGRAM = (sys.executable, "-P", "-m", "tasks.pages.lost_nights")
STOP_TIMEOUT_S = 5.0


class LostPages:
    """Writes the pages of a root's lost nights to the API of this process's environment; the first time, all that are missing."""

    def __init__(self, root: Path, program: Sequence[str] = PROGRAM) -> None:
        self._root, self._program = root, program
        self._waiting: dict[UUID, None] = {}
        self._is_wanted = True
        self._process: subprocess.Popen[str] | None = None

    def want(self, run_ids: Iterable[UUID]) -> None:
        """Runs that ended badly, and may have left no page."""
        self._waiting |= dict.fromkeys(run_ids)
        self._is_wanted = self._is_wanted or bool(self._waiting)

    def go_on(self) -> list[str]:
        """Starts what is wanted, unless it goes on already; returns what there is to say of what is done."""
        said = []
        if self._process and self._process.poll() is not None:
            said, self._process = _outcome(self._process), None
        if self._is_wanted and self._process is None:
            self._process = subprocess.Popen(
                [*self._program, str(self._root), *map(str, self._waiting)],
                # All that it prints is said; Prefect's remarks on its own queues are not meant.
                env=package_variables() | {"MPLBACKEND": "Agg", "PREFECT_LOGGING_LEVEL": "ERROR"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # A Ctrl-C in the terminal is for `up`.
                start_new_session=True,
            )
            self._waiting, self._is_wanted = {}, False
        return said

    def stop(self) -> None:
        """Lets a process that goes on finish, for a little while."""
        if self._process:
            try:
                self._process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()


def _outcome(process: subprocess.Popen[str]) -> list[str]:
    """The lines that it printed; where it failed, one that says so."""
    lines = process.communicate()[0].splitlines()
    if process.returncode == 0:
        return lines
    return [
        f"the pages of lost nights could not be written: {lines[-1] if lines else f'exit code {process.returncode}'}"
    ]
