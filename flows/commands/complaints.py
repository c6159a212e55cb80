"""What a command says when it cannot go on: one line, and which errors are worth no more than that."""

import sys

import typer

__all__ = ["bad_input", "complain", "failed_night", "message"]


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


def message(error: Exception) -> str:
    """What an error says; of the operating system's, the file and the reason without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def complain(line: str) -> None:
    typer.secho(f"nightlens: {' '.join(line.split())}", fg="red", err=True)
