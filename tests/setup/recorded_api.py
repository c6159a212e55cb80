"""A Prefect API that answers from what a real one said, at once and for any time of day: thousands of requests a second.

Whatever is asked for is asked of the real server the first time and remembered, but for the runs: they are made from one that
the real server described, and filtered by the time of a clock that the test sets.
"""

import json
import socketserver
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from receivers import serving

RUNS = "/api/flow_runs/filter"


@dataclass(frozen=True)
class RecordedRun:
    """A run of the day: when it began and ended, and how."""

    name: str
    began: datetime
    ended: datetime
    state: str = "COMPLETED"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class RecordedApi:
    """asked: how many requests there were for each path. n_runs: how many runs were sent."""

    real: str
    described: dict[str, Any]
    now: Callable[[], datetime]
    runs: list[RecordedRun] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    n_runs: int = 0
    url: str = ""
    _known: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        path = target.partition("?")[0]
        self.asked[path] += 1
        if path == RUNS:
            found = self._filtered(json.loads(body))
            self.n_runs += len(found)
            return 200, json.dumps(found).encode()
        if (method, path) not in self._known:
            said = httpx.request(method, self.real.removesuffix("/api") + target, content=body, trust_env=False)
            self._known[method, path] = said.status_code, said.content
        return self._known[method, path]

    def _filtered(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        wanted, now = asked["flow_runs"], self.now()
        if wanted.get("state"):
            assert wanted["state"]["type"]["any_"] == ["RUNNING"]
            found = [run for run in self.runs if run.began <= now < run.ended]
        else:
            after = wanted["end_time"].get("after_")
            since = (
                datetime.fromisoformat(after.replace("Z", "+00:00"))
                if after
                else datetime.min.replace(tzinfo=now.tzinfo)
            )
            found = sorted((run for run in self.runs if since <= run.ended <= now), key=lambda run: run.ended)[::-1]
        return [self._as_described(run, now) for run in found[asked["offset"] :][: asked["limit"] or 200]]

    def _as_described(self, run: RecordedRun, now: datetime) -> dict[str, Any]:
        state = run.state if run.ended <= now else "RUNNING"
        about = {"state_type": state, "state_name": state.title()}
        its = self.described["state"] | {"type": state, "name": state.title(), "message": None}
        times = {"start_time": run.began.isoformat(), "end_time": run.ended.isoformat() if run.ended <= now else None}
        return self.described | about | times | {"id": run.id, "name": run.name, "state": its}


@contextmanager
def recorded_api(real: str, described: dict[str, Any], now: Callable[[], datetime]) -> Iterator[RecordedApi]:
    """Serves it. real: the address of the real API. described: a flow run, as that one sends it."""
    api = RecordedApi(real, described, now)

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            while line := self.rfile.readline():
                method, target, _ = line.decode().split(" ")
                headers = {}
                while (header := self.rfile.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    headers[name.lower()] = value.strip()
                status, body = api.answer(method, target, self.rfile.read(int(headers.get(b"content-length", 0))))
                head = f"HTTP/1.1 {status} .\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with serving(Server(("127.0.0.1", 0), Handler)) as port:
        api.url = f"http://127.0.0.1:{port}/api"
        yield api
