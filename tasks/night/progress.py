"""How far the night is: the flow reports, whoever listens shows it.

The terminal listens in `nightlens run`; under a worker nobody does, and the progress artifact in the UI says the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Progress", "listening", "report"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """stage: what runs now. done, total: how much of it, counted in `unit`. images: explained or trained on so far,
    in `seconds`.

    note: a short remark for people, such as the accuracy of the last epoch.
    """

    stage: str
    done: int
    total: int
    unit: str = "parts"
    images: int = 0
    seconds: float = 0.0
    note: str = ""


_listener: ContextVar[Callable[[Progress], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Calls `listener` with every report made in this context and in the tasks started from it."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report(progress: Progress) -> None:
    """Reports to the listener, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(progress)
