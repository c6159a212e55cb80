"""The process of our worker: Prefect's own `worker start`, which ends when whoever started it is gone.

A script for worker.py to start, with the arguments of `prefect worker start`. Its standard input is a pipe that nobody
writes to: it ends with the process that holds the other side, however that dies. Runs that go on then are left to
themselves: a night still seals. It imports nothing of ours.
"""

import os
import runpy
import signal
import sys
import threading
import time

STOP_TIMEOUT_S = 5.0


def _stop_when_left_alone() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_stop_when_left_alone, daemon=True).start()
    sys.argv = ["prefect", "worker", "start", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
