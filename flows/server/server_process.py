"""The process of our own Prefect server: it serves until it is told to stop, or nobody uses it any more.

A script for server.py to start, with a listening socket's descriptor and the path of users.lock. It imports nothing of ours.
"""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

STOP_TIMEOUT_S = 20.0


def _serve(listening: socket.socket, users: Path) -> None:
    """The server process: serves until it is told to stop or nobody uses it any more."""
    import uvicorn
    from prefect.server.api.server import create_app

    threading.Thread(target=_stop_when_unused, args=(users,), daemon=True).start()
    config = uvicorn.Config(create_app(final=True), log_config=None, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listening])


def _stop_when_unused(users: Path) -> None:
    with users.open("a+") as file:
        while True:
            time.sleep(0.5)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        # Held to the end, so that nobody joins a server that is stopping.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_TIMEOUT_S)
        os._exit(1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
