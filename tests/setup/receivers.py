"""Where messages arrive: an HTTP address and a mailbox of this machine, for as long as a context lasts."""

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Chat:
    """A webhook: its address, what was posted there, and with which content type. It answers with `status`."""

    url: str = ""
    posted: list[dict[str, Any]] = field(default_factory=list)
    kinds: list[str | None] = field(default_factory=list)
    status: int = 200


@contextmanager
def chat(path: str = "/hook") -> Iterator[Chat]:
    got = Chat()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.kinds.append(self.headers["content-type"])
            got.posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(got.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        got.url = f"http://127.0.0.1:{port}{path}"
        yield got


@dataclass
class Mailbox:
    """An SMTP server without encryption: its address as host:port, and what it was given."""

    host: str = ""
    mails: list[EmailMessage] = field(default_factory=list)


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    got = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 here")
            for line in self.rfile:
                verb = line[:4].upper()
                if verb == b"DATA":
                    self._say("354 go on")
                    text = b"".join(iter(self.rfile.readline, b".\r\n"))
                    got.mails.append(email.message_from_bytes(text, policy=email.policy.default))
                self._say("221 bye" if verb == b"QUIT" else "250 fine")
                if verb == b"QUIT":
                    return

        def _say(self, answer: str) -> None:
            self.wfile.write(f"{answer}\r\n".encode())

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        got.host = f"127.0.0.1:{port}"
        yield got


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """Its port, while it serves."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
