"""Locks between processes, so that two nights on one root, or a night and a clean-up, keep out of each other's way.

A lock is a file that its owner holds by flock(2) and that says who that is. Stale owners: the kernel lets go of a lock
with the process that holds it, however that ends, so a killed night never blocks anyone (over NFS the server does, when
the lease of a lost machine runs out). An owner that lives and is stuck is waited for as long as the caller has patience;
what comes after is the caller's choice, and where passing an owner by is harmless it says so.

The library `filelock` does not serve: it names no owner of a lock that the kernel keeps, it cannot share one, and on a file
system without locks it goes on with a weaker kind.

Some file systems have no such locks (Lustre, unless it is mounted with them): there nothing can be kept apart, so they are
refused by `refuse_without_locks` before anything is written.
"""

import errno
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from storage.errors import StoreError

POLL_S = 0.1
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class LockBusy(StoreError):
    """A lock is held by somebody else, for longer than the caller would wait."""


class NoLocks(OSError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, where, and since when (ISO 8601, UTC)."""

    what: str
    host: str
    pid: int
    since: str

    @classmethod
    def here(cls, what: str) -> Self:
        """This process."""
        return cls(what, socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid} on {self.host}, since {self.since})"


def hold(file: int | IO[Any], name: Path, *, is_shared: bool = False, waits: bool = False) -> bool:
    """Lock an open file or folder until it is closed. Returns whether that was possible: no other process has it locked.

    file: open, as such or as its descriptor. name: what the message calls it. waits: whether to wait until it is possible.
    Raises NoLocks, with the cause, where the file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise NoLocks(
            error.errno,
            f"{name}: expected a file system with file locks, got one without (flock: {error.strerror}); choose a folder "
            "on another one, or have it mounted with locks (Lustre: -o flock)",
        ) from None
    return True


def refuse_without_locks(folder: Path, name: Path) -> None:
    """Raises NoLocks if there are no file locks in a folder that is there. name: what the message calls it."""
    with tempfile.TemporaryFile(dir=folder) as file:
        hold(file.fileno(), name)


@contextmanager
def locked(
    path: Path, what: str, *, patience_s: float = 0.0, on_wait: Callable[[Owner], None] | None = None
) -> Iterator[None]:
    """Hold the lock `path`, in a folder that exists; its file is there only as long as somebody holds it.

    what: what the owner does, for the messages of those who wait.
    patience_s: how long to wait for another owner, 0 not at all. on_wait: called with that owner, once.
    Raises LockBusy naming the owner, OSError if the file cannot be made.
    """
    deadline = time.monotonic() + patience_s
    while isinstance(taken := _take(path), Owner):
        if time.monotonic() >= deadline:
            raise LockBusy(f"{path}: held by {taken}; wait until it is done, or end it")
        if on_wait:
            on_wait(taken)
            on_wait = None
        time.sleep(POLL_S)
    try:
        os.write(taken, json.dumps(asdict(Owner.here(what))).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(taken)


def owner_of(path: Path) -> Owner | None:
    """Who holds a lock now; None if nobody does, also if its owner died and left the file behind."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if hold(descriptor, path, is_shared=True) else _read_owner(descriptor)
    finally:
        os.close(descriptor)


def _take(path: Path) -> int | Owner:
    """The descriptor of the file, which is empty and locked now, or who has it locked."""
    while True:
        with ExitStack() as opened:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            opened.callback(os.close, descriptor)
            if not hold(descriptor, path):
                return _read_owner(descriptor)
            if _is_still(path, descriptor):
                os.ftruncate(descriptor, 0)
                opened.pop_all()
                return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file has its name still: its last owner may have removed it after it was opened here."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read_owner(descriptor: int) -> Owner:
    # The owner writes its name a moment after it has the lock.
    try:
        return Owner(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return Owner("somebody", "an unknown host", 0, "just now")
