"""A port for a server that takes it seconds later, or gives it up and takes it again."""

import contextlib
import secrets
import socket

__all__ = ["free_port"]

LOWEST, N_PORTS = 20_000, 12_000


def free_port() -> int:
    """One of this machine's below those that the system gives out by itself, from 32768 on: nobody gets it meanwhile.

    Not by `random`, which tests seed alike in every process.
    """
    while True:
        port = LOWEST + secrets.randbelow(N_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
