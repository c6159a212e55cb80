"""A server of files over HTTP on this machine, which counts what is asked of it and misbehaves where it is told to."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class FileServer(ThreadingHTTPServer):
    """Serves a folder. Misbehaves where it is told to: `ranges` off, a `status` for all, or `lie` about the size.

    refused: paths that are answered by `refusal`, which is 403.
    """

    daemon_threads = True
    # Connections left open by the client must not hold up the end of the tests.
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.address = folder, f"http://127.0.0.1:{self.server_address[1]}"
        self.reset()

    def reset(self) -> None:
        self.n_bytes, self.n_requests, self.ranges, self.status, self.lie = 0, 0, True, 200, 0
        self.refused: set[str] = set()
        self.refusal = 403


class Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.server.folder / self.path.partition("?")[0].strip("/")
        self.server.n_requests += 1
        if self.path in self.server.refused:
            status, data, headers = self.server.refusal, b"", {}
        elif self.server.status != 200 or not path.exists():
            status, data, headers = (self.server.status if self.server.status != 200 else 404), b"", {}
        elif path.is_dir():
            links = "".join(f'<a href="{each.name}{"/" if each.is_dir() else ""}">' for each in path.iterdir())
            status, data, headers = 200, f"<html>a listing {links}</html>".encode(), {}
        else:
            status, data, headers = self.part_of(path.read_bytes())
        self.send_response(status)
        for name, value in (
            headers | {"Content-Length": str(len(data) + (0 if with_body else self.server.lie))}
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.server.n_bytes += len(data)
            self.wfile.write(data)

    def part_of(self, data: bytes) -> tuple[int, bytes, dict[str, str]]:
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        if not (asked and self.server.ranges):
            return 200, data, {}
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
        if start >= len(data):
            return 416, b"", {}
        return 206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}


@contextmanager
def served(root: Path) -> Iterator[FileServer]:
    server = FileServer(root)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
