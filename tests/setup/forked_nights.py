"""Nights in forks of one process that has imported TensorFlow, each killed by SIGKILL where it is told to be.

A program of its own, driven through its standard input and output, a JSON line each:

    {"parameters": ..., "kill": {"boundary": 7}, "boundaries": PATH}

The fork runs the real flow. A boundary is a call of fsync, rename or symlink on a file below the root's `nights`, `parts` or
`latest`; they are counted from 0 and written to PATH, and the fork dies right before the one that is asked for. With
{"kill": {"stage": "seal", "after_s": 0.2}} it dies that long after the stage began, whatever it does then. The answer is
{"status": EXIT_STATUS}, negative for a signal.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

WATCHED = ("nights", "parts", "latest")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_boundaries(root: Path, log: Path, kill_at: int | None) -> None:
    """Count and write down the boundaries from here on."""
    lock, count = threading.Lock(), 0

    def boundary(operation: str, path: str) -> None:
        nonlocal count
        below = os.path.relpath(path, root)
        if not below.startswith(WATCHED):
            return
        with lock:
            if count == kill_at:
                die()
            count += 1
            with log.open("a") as lines:
                lines.write(f"{operation} {below}\n")

    def watched(operation: str, path_of: Callable[..., str]) -> None:
        original = getattr(os, operation)

        def call(*args: Any, **kwargs: Any) -> Any:
            boundary(operation, path_of(*args))
            return original(*args, **kwargs)

        setattr(os, operation, call)

    watched("fsync", lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    for operation in ("replace", "rename", "symlink"):
        watched(operation, lambda _, target, *rest: os.fspath(target))


def run_night(request: dict[str, Any]) -> None:
    """Run the flow in this process, which may not survive it."""
    from flows.nightly import nightly
    from tasks.night.progress import Progress, listening

    kill, root = request["kill"] or {}, Path(request["parameters"]["run"]["root"])
    watch_boundaries(root, Path(request["boundaries"]), kill.get("boundary"))

    def heard(progress: Progress) -> None:
        if progress.stage == kill.get("stage") and progress.unit == "steps" and progress.done == 0:
            threading.Timer(kill["after_s"], die).start()

    with listening(heard):
        nightly(**request["parameters"])


def main() -> None:
    """Fork a night for every line."""
    # What every flow imports when it is called.
    import fastapi  # noqa: F401
    import prefect.flow_engine
    import prefect.task_engine
    import prefect.utilities.visualization  # noqa: F401

    import flows.nightly  # noqa: F401  imports TensorFlow and starts nothing of it

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run_night(json.loads(line))
                status = 0
            except BaseException:  # noqa: BLE001 (told, and then this fork ends)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
