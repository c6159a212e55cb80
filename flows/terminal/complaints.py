"""What a command says when it cannot go on: one line, and which errors are worth no more than that.

A full disk is an OSError as a path that is not there is; only the latter is bad input.
"""

import errno
import sys
from typing import Any

import typer

__all__ = ["bad_input", "complain", "exit_code", "failed_night", "message", "refused_by_server", "refused_entry"]

BROKEN, BAD_INPUT = 1, 2
NO_ENTRY = (401, 403)
# What the machine has none of any more, or cannot read and write.
MACHINE_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM)


def bad_input() -> tuple[type[Exception], ...]:
    """What the flow and the commands raise for bad input; asked only when something was raised."""
    from storage import StoreError

    return (ValueError, OSError, StoreError)


def failed_night() -> tuple[type[Exception], ...]:
    """What the flow raises for a night that failed although its input was good."""
    if "tasks.audit" not in sys.modules:
        return ()
    from tasks.audit import AuditError
    from tasks.explain import ExplanationError

    return (AuditError, ExplanationError)


def refused_by_server() -> tuple[type[Exception], ...]:
    """What Prefect raises for a status that is an error; nothing where it was not loaded."""
    if "prefect.exceptions" not in sys.modules:
        return ()
    from prefect.exceptions import PrefectHTTPStatusError

    return (PrefectHTTPStatusError,)


def refused_entry(error: Any) -> str:
    """What to say of a server that lets nobody in without credentials; "" for another status, which is nobody's input."""
    status = error.response.status_code
    if status not in NO_ENTRY:
        return ""
    return (
        f"expected a Prefect API that lets nightlens in, got status {status} for {error.request.url.path}; "
        "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY as that server wants it"
    )


def exit_code(error: BaseException) -> int:
    """2 for bad input; 1 where the night, or what an error came from, failed although the input was good."""
    from storage.errors import system_code

    if isinstance(error, failed_night()):
        return exit_code(error.__cause__) if isinstance(error.__cause__, bad_input()) else BROKEN
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and system_code(cause) in MACHINE_FAILED:
            return BROKEN
        cause = cause.__cause__ or cause.__context__
    return BAD_INPUT


def message(error: Exception) -> str:
    """What an error says; of the operating system's, the file and the reason without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def complain(line: str) -> None:
    typer.secho(f"nightlens: {' '.join(line.split())}", fg="red", err=True)
