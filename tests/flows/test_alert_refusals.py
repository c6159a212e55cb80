"""`nightlens alerts` where something is refused: one line, in which no secret is; and what its help says of mail."""

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
import typer
from prefect.blocks.webhook import Webhook
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED, temporary_settings
from typer.testing import CliRunner

from command import nightlens
from environment import clean_environment
from flows.cli import app
from flows.server.api import ServerError
from flows.service.alerts import email
from receivers import serving

SECRET = "T0K3N"
Answer = Callable[[str, str, bytes], tuple[int, bytes]]


@contextmanager
def api(answer: Answer) -> Iterator[None]:
    """This process's Prefect talks to a server that is well, and answers else by method, path and body with status and body."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            is_health = self.path == "/api/health"
            status, text = (200, b"true") if is_health else answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        here = {PREFECT_API_URL: f"http://127.0.0.1:{port}/api", PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}
        with temporary_settings(here):
            yield


def refuse_block(method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """A server that knows the block's type and schema, and refuses the document as Prefect's does: it repeats it."""
    if path.startswith("/api/block_types/"):
        return 200, json.dumps(Webhook._to_block_type().model_dump(mode="json") | {"id": str(uuid4())}).encode()
    if path.startswith("/api/block_schemas/"):
        schema = {"id": str(uuid4()), "checksum": Webhook._calculate_schema_checksum(), "fields": {}}
        return 200, json.dumps(schema | {"block_type_id": str(uuid4())}).encode()
    return 422, json.dumps({"detail": [{"msg": "extra", "input": json.loads(body)}]}).encode()


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (refuse_block, "got status 422 for /api/block_documents/;"),
        (
            lambda *_: (401, b'{"exception_message": "Unauthorized"}'),
            "got status 401 for /api/block_types/slug/webhook;",
        ),
        (lambda *_: (404, b'{"detail": "Not Found"}'), "got status 404 for /api/block_types/;"),
        (lambda *_: (200, b"<html>maintenance</html>"), "got an answer that is not of Prefect's JSON;"),
    ],
    ids=["unknown field", "unauthorized", "another API", "a page"],
)
def test_what_the_server_refuses_is_one_line_without_the_address(answer: Answer, got: str) -> None:
    with api(answer):
        error = CliRunner().invoke(app, ["alerts", "--webhook", f"https://example.org/{SECRET}"]).exception
    assert isinstance(error, ServerError)
    assert f"expected the Prefect server to do what it was asked, {got}" in str(error)
    assert "\n" not in str(error)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_a_server_that_lets_nobody_in_is_one_line_of_up_too(tmp_path: Path) -> None:
    with api(lambda *_: (401, b'{"exception_message": "Unauthorized"}')):
        here = {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "PREFECT_HOME": str(tmp_path / "home")}
        done = nightlens("up", "--root", tmp_path / "root", environment=clean_environment(**here, NO_PROXY="127.0.0.1"))
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("nightlens: expected a Prefect API that lets nightlens in, got status 401 for /api/")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--email", f"smtp://me:{SECRET}@h"],
            "--email: expected an address such as me@example.org, got one with : or /",
        ),
        ([f"https://hooks/{SECRET}"], "expected --slack, --webhook or --email before an address, got one with : or /"),
        (["slack", f"https://hooks/{SECRET}"], "before an address, got 'slack'"),
    ],
    ids=["values swapped", "an argument", "two arguments"],
)
def test_an_address_in_a_wrong_place_is_not_repeated(options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["alerts", *options])
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)
    assert SECRET not in str(done.exception) + done.output


@pytest.mark.parametrize(
    ("smtp", "got"),
    [
        (f"smtp://u:{SECRET}@mail_server", "host"),
        ("smtp://mail_server", "host"),
        (f"smtp://u:{SECRET}@[::1]:25", "host"),
        (f"smtp://u:{SECRET}@gmail.com", "host, user"),
        (f"smtp://u:{SECRET}@a.org,b.org", "host"),
        (f"smtp://:{SECRET}@mail.c.org", "user, password"),
        (f"smtp://o'brien%40c.org:{SECRET}@mail.c.org", "sender"),
    ],
)
def test_a_mail_server_that_apprise_takes_for_another_is_refused(
    smtp: str, got: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = "--smtp: expected what Apprise, which sends the mail, understands, got one whose"
    with pytest.raises(ValueError, match=f"^{expected} {got} it takes for another; write") as raised:
        email("a@b.org", smtp)
    assert SECRET not in "".join(traceback.format_exception_only(raised.value))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("address", "more"),
    [("o'brien@e.org", ", which Apprise"), ("a..b@e.org", "$"), (".a@e.org", "$"), ("a.@e.org", "$")],
)
def test_a_mailbox_that_apprise_takes_for_another_or_for_none_is_refused(
    address: str, more: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        ValueError, match=f"^--email: expected an address such as me@example.org, got .{address}.{more}"
    ):
        email(address)
    assert caplog.text == ""


def test_the_help_says_on_which_machine_mail_goes_out() -> None:
    (smtp,) = [option for option in typer.main.get_command(app).commands["alerts"].params if option.name == "smtp"]  # type: ignore[attr-defined]
    assert smtp.help.endswith("[default: smtp+insecure://localhost, on the machine of the Prefect server]")
