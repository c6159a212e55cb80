"""What `up` puts on a server before nights can run there, and what it refuses or warns of first."""

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import asyncpg
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from flows.parameters import BadParameters
from flows.service.deployments import REPOSITORY
from flows.service.heartbeat import WORK_POOL
from storage import Catalog, read_nights

__all__ = [
    "ServiceError",
    "address_warning",
    "clock_warnings",
    "deploy",
    "ensure_work_pool",
    "package_variables",
    "refuse_wrong_clock",
    "refuse_wrong_database",
]

DRIVER = "postgresql+asyncpg"
EARLIEST = datetime(2024, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE = timedelta(seconds=60)
DATABASE_TIMEOUT_S, DEPLOY_TIMEOUT_S = 5.0, 300.0


class ServiceError(OSError):
    """The server has something that nightlens cannot work with, or a part of the service does not stay alive."""


def refuse_wrong_clock() -> None:
    """Raises ValueError for a clock that cannot be right: schedules and the order of nights follow from it."""
    now = datetime.now(UTC)
    if now < EARLIEST:
        raise ValueError(f"the clock says {now:%Y-%m-%d %H:%M} UTC, which cannot be; set it, nights are run by it")


def refuse_wrong_database(url: str) -> None:
    """Raises ValueError, without the password, for a URL that is none or a database that does not let us in."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(f"--database: expected a URL such as {DRIVER}://USER@HOST/NAME, got something else") from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername != DRIVER:
        raise ValueError(f"--database {shown}: expected {DRIVER}://..., without it SQLite in the root is used")
    try:
        asyncio.run(_connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False)))
    except (OSError, asyncpg.PostgresError, TimeoutError, ValueError) as error:
        reason = " ".join(str(error).split()) or f"no answer within {DATABASE_TIMEOUT_S:g} s"
        raise ValueError(f"--database {shown}: cannot be used ({reason})") from None


async def _connect(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=DATABASE_TIMEOUT_S)
    await connection.close()


def address_warning(host: str) -> str | None:
    """What to say of an address that others may reach. Raises ValueError if it is none."""
    try:
        address = ipaddress.ip_address(socket.getaddrinfo(host, 0)[0][4][0])
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host}: no address ({error}); leave it out, or give one of this machine's") from None
    if address.is_loopback:
        return None
    return (
        f"the server listens on {host} and asks nobody for a password: whoever reaches this machine can read "
        "and start runs; 127.0.0.1 and an ssh tunnel or a proxy with a login are safer"
    )


def clock_warnings(client: SyncPrefectClient, root: Path) -> Iterator[str]:
    """What to say of clocks that disagree: this machine's, the server's, and the one that dated the newest night."""
    now = datetime.now(UTC)
    date = client.hello().headers.get("date")
    skew = now - parsedate_to_datetime(date) if date else timedelta()
    if abs(skew) > CLOCK_TOLERANCE:
        yield f"the clock of this machine is {skew.total_seconds():+.0f} s off the server's; schedules follow the server's"
    newest = next((night for night in read_nights(Catalog(root)) if night.began), None)
    if newest and newest.began and newest.began > now + CLOCK_TOLERANCE:
        yield (
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, but night {newest.id} began later than that: one of them is "
            "wrong, and nights are ordered by it"
        )


def ensure_work_pool(client: SyncPrefectClient) -> str:
    """Makes the work pool if there is none; returns what to say. Raises ServiceError for one of another type."""
    try:
        pool = client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        # Another machine's `up` may make it at the same moment.
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
            return f"{WORK_POOL} (process) is made"
        pool = client.read_work_pool(WORK_POOL)
    if pool.type != "process":
        raise ServiceError(
            f"expected the work pool {WORK_POOL!r} to be of type 'process', got {pool.type!r}; "
            f"delete it (`prefect work-pool delete {WORK_POOL}`), or use another server"
        )
    return f"{WORK_POOL} (process) was there" + (", and is paused: no run starts" if pool.is_paused else "")


def package_variables() -> dict[str, str]:
    """This process's environment, in which our packages are found."""
    paths = [str(REPOSITORY), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def deploy(file: Path, root: Path) -> list[str]:
    """Puts the deployments of a file on the API of this process, for a root; returns their names.

    Raises BadParameters for what is wrong with them, ServiceError if that could not be done.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flows.service.deployments", str(file), str(root)],
        env=package_variables() | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEPLOY_TIMEOUT_S,
        check=False,
    )
    answer = json.loads(done.stdout.splitlines()[-1]) if done.returncode in (0, 2) and done.stdout.strip() else {}
    if "wrong" in answer:
        raise BadParameters(answer["wrong"])
    if "deployed" not in answer:
        raise ServiceError(f"{file} could not be deployed: {' '.join(done.stderr.split())[-600:]}")
    names: list[str] = answer["deployed"]
    return names
