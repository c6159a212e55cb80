"""How a command is told to stop: Ctrl-C, or SIGTERM, which is raised so that what was started is stopped and recorded."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

__all__ = ["Terminated", "raise_on_sigterm", "stopped_by_signal"]


class Terminated(BaseException):
    """SIGTERM came."""


def raise_on_sigterm() -> None:
    """From now on SIGTERM raises Terminated in the main thread."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


@contextlib.contextmanager
def stopped_by_signal() -> Iterator[None]:
    """Ctrl-C and SIGTERM are the way to end this, not an interruption; a second one does not disturb the ending."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        print("stopping", file=sys.stderr, flush=True)
