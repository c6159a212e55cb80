"""Fields of log lines, for collectors: the night and the stage that a line belongs to, whoever logs it in this context."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["current_log_fields", "log_fields"]

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default={})  # noqa: B039 (never changed in place)


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Adds fields to every line that is logged in this context and in the tasks started from it."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def current_log_fields() -> Mapping[str, object]:
    return _fields.get()
