"""What is to be uploaded while a server comes and goes: kept, sent again, or named; a real server, a small one."""

import importlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from prefect import flow
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from command import python
from free_port import free_port
from tasks.night import outage
from tasks.night.outage import Outage, outlasting, upload


class Site:
    """A server that takes what comes, but for /refused and, while `busy`, anything; it can go away and come back."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.busy = False
        self.port = free_port()
        self._server: HTTPServer | None = None

    def send(self, name: str) -> None:
        httpx.post(f"http://127.0.0.1:{self.port}/{name}", trust_env=False).raise_for_status()

    def come(self) -> None:
        site = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                code = 422 if self.path == "/refused" else 503 if site.busy else 200
                if code == 200:
                    site.taken.append(self.path[1:])
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", self.port), Taking)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def go(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    site.come()
    yield site
    site.go()


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, outside a run."""
    monkeypatch.setattr(outage, "get_run_logger", lambda: logging.getLogger("nightlens.test"))
    return caplog


@pytest.fixture
def night() -> Iterator[Outage]:
    with outlasting() as night:
        yield night


def offer(site: Site, what: str, name: str | None = None) -> bool:
    return upload(what, partial(site.send, name or what))


def test_a_server_that_is_there_gets_everything_and_nothing_is_said(
    site: Site, night: Outage, logged: pytest.LogCaptureFixture
) -> None:
    assert offer(site, "dataset")
    assert offer(site, "night")
    night.finish()
    assert site.taken == ["dataset", "night"]
    assert (night.message, logged.text) == ("", "")


def test_what_a_server_missed_is_sent_when_it_is_back(
    site: Site, night: Outage, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.go()
    assert not offer(site, "dataset")
    assert not offer(site, "progress", "progress-1")
    assert not offer(site, "progress", "progress-2")
    site.come()
    monkeypatch.setattr(outage, "PAUSE_S", 0.0)
    assert offer(site, "evaluation")
    assert site.taken == ["evaluation", "dataset", "progress-2"], "of the same thing only the newest"
    night.finish()
    assert "the Prefect server does not answer" in logged.text
    assert night.missing == []
    assert "did not answer from" in night.message
    assert "not recorded" not in night.message


def test_an_upload_is_tried_briefly_whatever_the_settings_are_then(night: Outage) -> None:
    seen: list[tuple[int, float, str | None]] = []

    def send() -> None:
        seen.append((PREFECT_CLIENT_MAX_RETRIES.value(), PREFECT_API_REQUEST_TIMEOUT.value(), PREFECT_API_URL.value()))

    for url in ("http://here/api", "http://there/api"):
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 4}):
            assert upload("first", send)
            assert upload("second", send)
            assert PREFECT_CLIENT_MAX_RETRIES.value() == 4
    assert seen == [(0, 10.0, "http://here/api")] * 2 + [(0, 10.0, "http://there/api")] * 2


def test_while_a_server_is_away_it_is_not_asked_for_every_upload(site: Site, night: Outage) -> None:
    site.go()
    assert not offer(site, "dataset")
    site.come()
    assert not offer(site, "evaluation"), "too early to ask again"
    assert site.taken == []
    night.finish(patience_s=0)
    assert site.taken == ["dataset", "evaluation"]


def test_the_end_waits_for_a_server(site: Site, night: Outage) -> None:
    site.go()
    assert not offer(site, "night")
    threading.Timer(1.5, site.come).start()
    night.finish(patience_s=20)
    assert site.taken == ["night"]
    assert night.missing == []


def test_what_is_not_sent_by_the_end_is_named(site: Site, night: Outage, logged: pytest.LogCaptureFixture) -> None:
    site.go()
    assert not offer(site, "artifact audit")
    assert not offer(site, "artifact night")
    began = time.monotonic()
    night.finish(patience_s=1)
    assert time.monotonic() - began < 20  # and not the half minute that is its default
    assert night.message.endswith("not recorded: artifact audit, artifact night")
    assert night.message in logged.text


def test_a_refusal_is_told_with_its_reason_and_not_repeated(
    site: Site, night: Outage, logged: pytest.LogCaptureFixture
) -> None:
    assert not offer(site, "refused")
    assert offer(site, "night")
    night.finish()
    assert "refused could not be uploaded: Client error '422" in logged.text
    assert night.message == "not recorded: refused"


def test_a_busy_server_is_asked_again_and_was_not_away(site: Site, night: Outage) -> None:
    site.busy = True
    assert not offer(site, "night")
    site.busy = False
    night.finish()
    assert site.taken == ["night"]
    assert night.message == ""


def test_the_outer_context_counts(site: Site, night: Outage) -> None:
    site.go()
    with outlasting() as inner:
        assert not offer(site, "night")
    night.finish(patience_s=0)
    assert inner is night
    assert night.missing == ["night"]


WITHOUT_LEASES = """
import sys
import prefect.main
sys.modules["prefect.concurrency._leases"] = None
from tasks.night.outage import outlasting, upload
with outlasting():
    assert upload("night", lambda: None)
"""


def test_a_prefect_without_the_private_module_is_taken() -> None:
    done = python("-c", WITHOUT_LEASES)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.fixture(params=["no module", "no handler"])
def another_prefect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Prefect without what keeps a night going that lost its slot. What uses that in Prefect is imported before."""
    importlib.import_module("prefect.flow_engine")
    if request.param == "no module":
        monkeypatch.setitem(sys.modules, "prefect.concurrency._leases", None)
    else:
        monkeypatch.delattr("prefect.concurrency._leases._handle_lease_renewal_failure")


@pytest.mark.usefixtures("another_prefect", "prefect_server")
def test_where_a_lost_slot_ends_the_night_the_night_says_so(logged: pytest.LogCaptureFixture) -> None:
    with outlasting() as outage:
        assert (upload("night", lambda: None), outage.message, logged.text) == (True, "", ""), "no run, no slot"

    @flow
    def night() -> bool:
        with outlasting():
            return upload("night", lambda: None)

    assert night() is True
    assert logged.text.count("a night whose concurrency slot the server loses is ended by Prefect: install") == 1


def test_the_handler_of_a_lost_slot_is_put_back() -> None:
    leases = pytest.importorskip("prefect.concurrency._leases")
    before = leases._handle_lease_renewal_failure
    with outlasting():
        assert leases._handle_lease_renewal_failure is not before
    assert leases._handle_lease_renewal_failure is before
