"""A state file: JSON about a process that is true as long as that process lives.

Whoever is spoken of holds the file by flock(2), and the kernel lets go of it with its holder, however that dies. A text that
nobody holds is stale. The holder empties the file before it takes the lock and writes it at once after, so that nobody takes
a stale text for its own; another lock, which readers never touch, has to keep other holders away meanwhile. A reader holds
the file, shared, for a moment, and so a holder waits for readers rather than take them for a holder.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from flows.server.api import ServerError
from storage.file.disk.lock import hold

__all__ = ["POLL_S", "held", "is_of_this_host", "read_state", "write_state"]

POLL_S = 0.01
PATIENCE_S = 5.0
MOST_BYTES = 65_536


@contextlib.contextmanager
def held(path: Path) -> Iterator[IO[str]]:
    """The file, empty and held; `write_state` must follow at once. Nobody may hold it, or be about to, when this is called."""
    with path.open("a+") as file:
        file.truncate(0)
        hold(file, path.parent, waits=True)
        yield file


def write_state(file: IO[str], about: Mapping[str, Any]) -> None:
    """Writes what is so now, in place of what was."""
    file.truncate(0)
    file.write(json.dumps(about) + "\n")
    file.flush()


def is_of_this_host(about: Mapping[str, Any]) -> bool:
    """Whether the process that a state speaks of is one of this machine, as is taken for granted where it names no host.

    Several may share a root, and a process id means something on its own machine only.
    """
    here = socket.gethostname()
    return bool(about.get("host", here) == here)


def read_state(path: Path) -> dict[str, Any] | None:
    """What the holder of the file says; None if nobody holds it. A text that is not whole yet is waited for.

    Raises ServerError if its holder does not write it within PATIENCE_S.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    deadline = time.monotonic() + PATIENCE_S
    with file:
        while True:
            if hold(file, path.parent, is_shared=True):
                return None
            with contextlib.suppress(ValueError):
                found: dict[str, Any] = json.loads(os.pread(file.fileno(), MOST_BYTES, 0))
                return found
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{path}: expected what its holder wrote there, got nothing whole within {PATIENCE_S:g} s; "
                    f"`fuser {path}` names that process: let it go on, or end it"
                )
            time.sleep(POLL_S)
