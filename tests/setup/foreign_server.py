"""The server of another program, as people start it: a process of its own, at a free port of this machine."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from environment import clean_environment
from waiting import wait_until

STARTS_WITHIN_S = 300.0


@contextmanager
def serving(command: Sequence[object], port: int, ready: str, log: Path, **variables: str) -> Iterator[str]:
    """The address of a server that answers at the path `ready`; it is ended when this is left.

    log: the file for what it says. variables: of its environment, which has none of this checkout's packages.
    """
    address, environment = f"http://127.0.0.1:{port}", clean_environment(path=(), **variables)
    words = [str(word) for word in command]
    with log.open("w") as stream, subprocess.Popen(words, env=environment, stdout=stream, stderr=stream) as process:

        def answers() -> bool:
            assert process.poll() is None, f"{words[0]} ended:\n{log.read_text()}"
            try:
                return bool(asked(address + ready) or True)
            except (urllib.error.URLError, ConnectionError):
                return False

        try:
            wait_until(answers, STARTS_WITHIN_S, f"{words[0]} answers at {address}{ready}")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def asked(address: str, body: object = None) -> bytes:
    """What it answers: to GET, or to POST of some JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def asked_json(address: str, body: object = None) -> Any:
    return json.loads(asked(address, body))
