"""What a person sees of a night on the terminal, and what is kept from them.

Progress goes to stderr: a live bar on a terminal, plain lines without control codes anywhere else. Prefect's records of
runs stay on its server, where they belong to their task; its warnings that belong to no run are shown.
"""

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.night.progress import Progress
from tasks.process.quiet import quiet_tensorflow

__all__ = ["ProgressDisplay", "keep_run_logs_on_server", "quiet_tensorflow"]

PLAIN_EVERY_S = 15.0


class ProgressDisplay:
    """Shows reports as they come, one line per stage; a context, to be given to `tasks.night.progress.listening`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._stage: _Stage | None = None
        self._printed = 0.0
        self._live = (
            Live(console=self._console, get_renderable=self._renderable, refresh_per_second=4, transient=True)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(failed=error is not None)
        if self._live:
            self._live.stop()

    def finish(self, *, failed: bool) -> None:
        """Closes the stage that runs, as done or as the one that failed."""
        with self._lock:
            self._finish(failed=failed)

    def __call__(self, progress: Progress) -> None:
        """Takes one report, from whatever thread."""
        with self._lock:
            if self._stage is None or self._stage.latest.stage != progress.stage:
                self._finish(failed=False)
                self._stage = _Stage(progress)
                self._printed = 0.0
            self._stage.take(progress)
            now = time.monotonic()
            if self._live is None and now - self._printed >= PLAIN_EVERY_S:
                self._printed = now
                self._print(self._stage.line())

    def _finish(self, *, failed: bool) -> None:
        if self._stage is not None:
            self._print(("✗ " if failed else "✓ ") + self._stage.line(finished=True))
            self._stage = None

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _renderable(self) -> Any:
        stage = self._stage
        if stage is None:
            return Text("")
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, stage.latest.total), completed=stage.latest.done, width=24)
        row.add_row(f"  {stage.name:<9}", bar, Text(stage.numbers(), overflow="ellipsis", no_wrap=True))
        return row


class _Stage:
    """The reports of one stage, and the clock since it began and since it began to count."""

    def __init__(self, first: Progress) -> None:
        self.name = first.stage
        self.latest = self._first = first
        self._began = self._counting = time.monotonic()

    def take(self, progress: Progress) -> None:
        """Keeps a report; that a stage as a whole begins and ends says less than what it counted in between."""
        if _counts(self.latest) and not _counts(progress):
            return
        if _counts(progress) and not _counts(self._first):
            self._first, self._counting = progress, time.monotonic()
        self.latest = progress

    def line(self, *, finished: bool = False) -> str:
        return f"{self.name:<9} {self.numbers(finished=finished)}".rstrip()

    def numbers(self, *, finished: bool = False) -> str:
        now, first = self.latest, self._first
        if now.seconds > 0:
            counting_s, n_images, n_done = now.seconds, now.images, now.done
        else:
            counting_s = time.monotonic() - self._counting
            n_images, n_done = now.images - first.images, now.done - first.done
        found = [f"{now.done:,}/{now.total:,} {now.unit}"] if _counts(now) else []
        if n_images > 0 and counting_s > 0:
            found.append(f"{n_images / counting_s:,.0f} images/s")
        if finished:
            found.append(_clock(time.monotonic() - self._began))
        elif n_done > 0:
            found.append(f"{_clock(counting_s / n_done * (now.total - now.done))} left")
        return "  ".join([*found, now.note] if now.note else found)


def _counts(progress: Progress) -> bool:
    """Whether a report counts something, rather than telling that a stage begins or ends."""
    return progress.unit != "steps"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def keep_run_logs_on_server(console: Console) -> None:
    """Takes the logs of flow and task runs, and what is no warning or a repeated one, off the terminal.

    console: where Prefect's other warnings go, so that they do not tear the progress apart.
    """
    import prefect.main  # noqa: F401  sets up Prefect's logging
    from prefect.logging.handlers import PrefectConsoleHandler

    shown = set[str]()

    def belongs_here(record: logging.LogRecord) -> bool:
        of_a_run = record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))
        # While a server is away each event that it misses is printed whole; what is missing is said at the end.
        of_an_event = "failed to process item" in str(record.msg)
        if record.levelno < logging.WARNING or of_a_run or of_an_event or record.getMessage() in shown:
            return False
        shown.add(record.getMessage())
        return True

    for logger in (logging.getLogger(), logging.getLogger("prefect")):
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.addFilter(belongs_here)
                handler.console = console
