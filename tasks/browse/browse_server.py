"""The server of `nightlens browse`, from its port to its end. It listens on this machine alone."""

import errno
import socket
from collections.abc import Callable

import uvicorn

from tasks.browse.browse_app import HOSTS, browse_app
from tasks.browse.comparisons import Comparisons
from tasks.browse.shown_nights import ShownNights

__all__ = ["claimed_port", "serve"]

HOST = HOSTS[0]
PATIENCE_S = 2  # with answers that are not finished when it is to end


def claimed_port(port: int) -> socket.socket:
    """A socket on a port of this machine, 0 for any free one. Raises ValueError for one that is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            taken = "taken by another program" if error.errno == errno.EADDRINUSE else "not for this user"
            raise ValueError(f"--port {port}: it is {taken}; give another one, or 0 for any that is free") from None
        raise
    return listening


def serve(nights: ShownNights, listening: socket.socket, on_begin: Callable[[str], None]) -> None:
    """Answers until Ctrl-C or SIGTERM. on_begin: called with the address once it answers."""
    comparisons = Comparisons(nights)
    config = uvicorn.Config(
        browse_app(nights, comparisons),
        log_level="warning",
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=PATIENCE_S,
    )
    address = f"http://{HOST}:{listening.getsockname()[1]}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_begin(address)

    try:
        Server(config).run(sockets=[listening])
    finally:
        comparisons.close()
