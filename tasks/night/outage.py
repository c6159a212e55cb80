"""A Prefect server that goes away in the middle of a night: it may cost some of the night's record, never the night.

What is to be uploaded is tried once and briefly. While the server does not answer it is kept, and sent again when the
server is back, at the latest at the end of the night, which waits a little for it. What cannot be sent is named.
"""

import importlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import prefect
from prefect.context import FlowRunContext, SettingsContext, get_settings_context
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, Settings

if TYPE_CHECKING:
    from tasks.night.result import NightResult

__all__ = ["NOT_RECORDED", "Outage", "note_result", "outlasting", "upload"]

# What Prefect's client raises for a server that does not answer, or answers with an error.
NOT_RECORDED = (httpx.HTTPError, PrefectException)
FAILED = "%s could not be uploaded: %s"
PATIENCE_S = 30.0
PAUSE_S = 5.0
LEAST_ATTEMPTS = 2
LEASES, HANDLER = "prefect.concurrency._leases", "_handle_lease_renewal_failure"
BRIEFLY: Mapping[Any, float] = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}


class Outage:
    """What a night could not record because its server did not answer; empty in nearly every night.

    missing: what the server does not have, and will not get. result: the night's, once `latest` points to it; whoever
    called the flow finds it here if the server took the flow's end neither.
    """

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.result: NightResult | None = None
        self._lock = threading.Lock()
        self._kept: dict[str, Callable[[], object]] = {}
        self._began: datetime | None = None
        self._ended: datetime | None = None
        self._tried = 0.0
        self._settings: tuple[Settings, Settings] | None = None

    @property
    def message(self) -> str:
        """What there is to say at the end; empty if nothing was amiss."""
        said = []
        if self._began:
            until = f"to {self._ended:%H:%M:%S}" if self._ended else "on"
            said.append(
                f"the Prefect server did not answer from {self._began:%H:%M:%S} UTC {until}; "
                "log lines and task runs of that time may be missing on it"
            )
        if self.missing:
            said.append(f"not recorded: {', '.join(self.missing)}")
        return "; ".join(said)

    def upload(self, what: str, send: Callable[[], object]) -> bool:
        """Calls `send`, now or when the server is back. Of the same `what` only the newest is kept."""
        with self._lock:
            if self._kept and time.monotonic() - self._tried < PAUSE_S:
                self._kept[what] = send
                return False
            self._kept.pop(what, None)
            if self._try(what, send):
                self._send_kept()
            return what not in self._kept and what not in self.missing

    def finish(self, patience_s: float = PATIENCE_S) -> None:
        """Sends what is kept, waiting for the server for so long, and logs what there is to say.

        One attempt may last longer than that, where the server listens and says nothing; then there is another.
        """
        deadline, least = time.monotonic() + patience_s, LEAST_ATTEMPTS if patience_s else 1
        with self._lock:
            for n_attempts in count(1):
                if self._send_kept() or (n_attempts >= least and time.monotonic() > deadline):
                    break
                time.sleep(1)
            self.missing += self._kept
            self._kept.clear()
        if self.message:
            get_run_logger().warning(self.message)

    def _send_kept(self) -> bool:
        while self._kept:
            what, send = next(iter(self._kept.items()))
            del self._kept[what]
            if not self._try(what, send):
                return False
        return True

    def _try(self, what: str, send: Callable[[], object]) -> bool:
        """Whether there is any use in sending more: the server answered."""
        self._tried = time.monotonic()
        try:
            with self._briefly():
                send()
        except NOT_RECORDED as error:
            if _is_refusal(error):
                self.missing.append(what)
                get_run_logger().error(FAILED, what, error)
                return True
            self._kept[what] = send
            if isinstance(error, httpx.TransportError):
                self._note_silence(error)
            return False
        if self._began and not self._ended:
            self._ended = datetime.now(UTC)
        return True

    def _briefly(self) -> SettingsContext:
        """The settings of one attempt, made once a night: Prefect's `temporary_settings` validates all of them anew."""
        context = get_settings_context()
        if self._settings is None or self._settings[0] is not context.settings:
            self._settings = context.settings, context.settings.copy_with_update(BRIEFLY)
        return SettingsContext(profile=context.profile, settings=self._settings[1])

    def _note_silence(self, error: Exception) -> None:
        self._ended = None
        if not self._began:
            self._began = datetime.now(UTC)
            get_run_logger().warning("the Prefect server does not answer (%s); the night goes on", error)


def _is_refusal(error: Exception) -> bool:
    """Whether the server took notice and said no, so that asking again is of no use."""
    busy = isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500
    return not busy and not isinstance(error, httpx.TransportError)


_outage: ContextVar[Outage | None] = ContextVar("outage", default=None)


@contextmanager
def outlasting() -> Iterator[Outage]:
    """While this lasts, uploads are kept where the server is away; the outer of two such contexts is the one that counts.

    A deployment's concurrency slot is a lease that the flow renews; where the server cannot renew it, Prefect would end
    the flow at once. The night goes on: two at once on a root do each other no harm.
    """
    if found := _outage.get():
        yield found
        return
    outage = Outage()
    token = _outage.set(outage)
    try:
        with _outlasting_the_slot():
            yield outage
    finally:
        _outage.reset(token)


@contextmanager
def _outlasting_the_slot() -> Iterator[None]:
    """No setting of Prefect's keeps a flow going that lost its slot, so its own handler is replaced, where it has one."""
    try:
        leases = importlib.import_module(LEASES)
        before = getattr(leases, HANDLER)
    except (ImportError, AttributeError):
        # Outside a run there is no slot to be lost.
        if FlowRunContext.get():
            get_run_logger().warning(
                "Prefect %s has no %s.%s, so a night whose concurrency slot the server loses is ended by Prefect: install a "
                "Prefect that nightlens was tried with, or set no concurrency limit", prefect.__version__, LEASES, HANDLER
            )  # fmt: skip
        yield
        return
    setattr(leases, HANDLER, _keep_on)
    try:
        yield
    finally:
        setattr(leases, HANDLER, before)


def _keep_on(exc: BaseException, *_: Any, **__: Any) -> None:
    get_run_logger().warning(
        "the server does not hold this run's concurrency slot any more (%s); the night goes on, and another run of "
        "this deployment may begin beside it", exc
    )  # fmt: skip


def note_result(result: "NightResult") -> None:
    """Leaves the night's result to whoever called the flow, now that `latest` points to it."""
    if outage := _outage.get():
        outage.result = result


def upload(what: str, send: Callable[[], object]) -> bool:
    """Calls `send`, which uploads something; whether the server has it now. A server that is away stops nobody.

    what: its name, for people.
    """
    if outage := _outage.get():
        return outage.upload(what, send)
    try:
        send()
    except NOT_RECORDED as error:
        get_run_logger().error(FAILED, what, error)
        return False
    return True
