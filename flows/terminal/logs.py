"""Logs for collectors: one JSON object a line, on stderr, with the night, the stage and the run that it belongs to.

json_logs.yml is a logging configuration for Prefect, so whatever process Prefect sets up (a worker, the flow that it starts, a
Dask worker) logs that way once PREFECT_LOGGING_SETTINGS_PATH names it. `write_json_logs` does the same for the command, and has
json_lines.py wrap what is written to stderr past Python's logging: native libraries, warnings, a crash.
"""

import atexit
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from tasks.night.log_fields import current_log_fields
from tasks.process.quiet import noise_patterns

__all__ = ["Formatter", "write_json_logs"]

SETTINGS = Path(__file__).with_name("json_logs.yml")
WRAPPER = Path(__file__).with_name("json_lines.py")
DRAIN_TIMEOUT_S = 10.0


class Formatter(JsonFormatter):
    """time (ISO 8601, UTC), level, logger, message, night and stage where there are, and what the line brings itself, such as
    flow_run_id, task_run_id and rows.
    """

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger"}
        super().__init__("%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp="time")

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Whoever logs a field itself knows better."""
        super().add_fields(log_data, record, message_dict)
        for name, value in current_log_fields().items():
            log_data.setdefault(name, value)


def write_json_logs() -> None:
    """From here on, all that this process and its children write to stderr is JSON. Before Prefect is imported."""
    os.environ["PREFECT_LOGGING_SETTINGS_PATH"] = str(SETTINGS)
    sys.stderr.flush()
    # Its own session: a Ctrl-C in the terminal must not lose the last lines.
    wrapper = subprocess.Popen(
        [sys.executable, "-P", str(WRAPPER), *noise_patterns()], stdin=subprocess.PIPE, stdout=2, start_new_session=True
    )
    assert wrapper.stdin
    os.dup2(wrapper.stdin.fileno(), 2)
    wrapper.stdin.close()
    logging.captureWarnings(True)
    atexit.register(_drain, wrapper)


def _drain(wrapper: subprocess.Popen[bytes]) -> None:
    """Lets go of stderr and waits for its last lines, unless a child holds it open for longer."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        wrapper.wait(DRAIN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return
