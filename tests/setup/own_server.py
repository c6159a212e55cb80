"""The Prefect server of a root in a process of its own, as `nightlens ui` starts it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from command import running
from empty_record import EmptyRecord

SERVER = """
import sys
from pathlib import Path
from flows.server.server import LocalServer
with LocalServer(Path(sys.argv[1])) as server:
    server.wait_until_up()
    print(server.url, flush=True)
    sys.stdin.read()
"""
STOP_TIMEOUT_S = 120.0


@contextmanager
def server_of(root: Path, empty_record: EmptyRecord, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of its API."""
    empty_record.put(root / "prefect")
    with running("-c", SERVER, root, environment=environment, stderr=None) as process:
        assert process.stdout
        assert process.stdin
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(STOP_TIMEOUT_S)
