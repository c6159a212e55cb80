"""Pages of nights that ended without a word, written in a process of its own: `up` lives for months, and a page takes matplotlib.

One process at a time; what comes meanwhile is written by the next. `up` asks again and again whether it is done. What one
could not do is asked for again a minute later, until one has done it.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO
from uuid import UUID

from flows.service.outfit import package_variables

__all__ = ["NOT_WRITTEN", "LostPages"]

PROGRAM = (sys.executable, "-P", "-m", "tasks.pages.lost_nights")
# The program's exit code where another process is at it.
BUSY = 3
# Of one process, so that one that fails holds up few.
MOST_RUNS = 20
STOP_TIMEOUT_S, AGAIN_AFTER_S = 5.0, 60.0
# How what is said of a failure begins.
NOT_WRITTEN = "the pages of lost nights could not be written: "


class LostPages:
    """Writes the pages of a root's lost nights to the API of this process's environment; the first time, all that are missing.

    clock: seconds that only grow.
    """

    def __init__(
        self, root: Path, program: Sequence[str] = PROGRAM, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root, self._program, self._clock = root, program, clock
        self._waiting: dict[UUID, None] = {}
        # Those of the process that goes on; none where it looks for all that are missing.
        self._asked: dict[UUID, None] = {}
        self._wants_all = True
        self._not_before = -float("inf")
        self._complaint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def want(self, run_ids: Iterable[UUID]) -> None:
        """Runs that ended badly, and may have left no page."""
        self._waiting |= dict.fromkeys(run_ids)

    def go_on(self) -> list[str]:
        """Starts what is wanted, unless it goes on already; returns what there is to say of what is done, or failed."""
        said = self._end(self._process) if self._process and self._process.poll() is not None else []
        if self._process is None and (self._wants_all or self._waiting) and self._clock() >= self._not_before:
            try:
                self._start()
            except OSError as error:
                said += self._fail(str(error))
        return said

    def stop(self) -> None:
        """Lets a process that goes on finish, for a little while."""
        if self._process:
            try:
                self._process.wait(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._output:
            self._output.close()

    def _start(self) -> None:
        self._asked = {} if self._wants_all else dict.fromkeys(list(self._waiting)[:MOST_RUNS])
        # No pipe, which would hold up who says more than fits into it.
        with contextlib.ExitStack() as opened:
            output = opened.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [*self._program, str(self._root), *map(str, self._asked)],
                # All that it prints is said; Prefect's remarks on its own queues are not meant.
                env=package_variables() | {"MPLBACKEND": "Agg", "PREFECT_LOGGING_LEVEL": "ERROR"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for `up`.
                start_new_session=True,
            )
            self._output = output
            opened.pop_all()
        self._waiting = {run_id: None for run_id in self._waiting if run_id not in self._asked}

    def _end(self, process: subprocess.Popen[bytes]) -> list[str]:
        """The lines that it printed; where it failed, one that says so, and what it was asked for is wanted still."""
        lines = self._read_output()
        self._process = None
        if process.returncode == 0:
            self._wants_all, self._complaint = False, ""
            return lines
        self._waiting = self._asked | self._waiting
        if process.returncode == BUSY:
            self._not_before = self._clock() + AGAIN_AFTER_S
            return []
        return self._fail(lines[-1] if lines else f"exit code {process.returncode}")

    def _read_output(self) -> list[str]:
        if self._output is None:
            return []
        with self._output as output:
            output.seek(0)
            return output.read().decode(errors="replace").splitlines()

    def _fail(self, why: str) -> list[str]:
        """What there is to say of a failure, which is nothing where the last one was the same; the next try is a minute later."""
        self._not_before = self._clock() + AGAIN_AFTER_S
        before, self._complaint = self._complaint, why
        return [] if why == before else [f"{NOT_WRITTEN}{why}"]
