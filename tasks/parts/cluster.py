"""A Dask cluster that computes parts: what its scheduler and workers must be, and how workers are set up for it.

Everything that Dask sends is pickled, so a cluster is trusted like the machine itself. A local cluster listens on 127.0.0.1
and takes nobody without this night's own certificate.
"""

import asyncio
import logging
import secrets
import socket
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dask.system import cpu_count
from distributed import Client, Security, Worker, WorkerPlugin, get_worker
from distributed.core import rpc
from distributed.versions import get_package_info
from prefect.settings import get_current_settings
from prefect_dask import DaskTaskRunner

from storage.file.disk.durable import make_folder
from tasks.parts.part_digest import code_digest

__all__ = ["check_shared", "check_versions", "connected", "runner", "set_up", "send"]

PORT_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 5.0
WORKERS_TIMEOUT_S = 5.0
PACKAGES = ("nightlens", "numpy", "tensorflow", "keras", "prefect", "distributed", "dask", "cloudpickle")
NAMED_WORKERS = 4
FLUSH_TIMEOUT_S = 30.0

logger = logging.getLogger(__name__)


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a scheduler with workers. Raises OSError, within 15 s, if it is not there or has none."""
    try:
        _refuse_closed_port(address)
        with ThreadPoolExecutor(1) as apart:
            apart.submit(asyncio.run, _greet(address)).result()
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except OSError as error:
        reason = " ".join(str(error).split()) or f"no answer within {CONNECT_TIMEOUT_S:g} s"
        raise OSError(
            f"expected a Dask scheduler at {address}, got {type(error).__name__} ({reason}); start it with `dask scheduler`, "
            "or leave the address out for a local cluster"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
        except TimeoutError as error:
            raise OSError(
                f"expected workers at the Dask scheduler {address}, got none within {WORKERS_TIMEOUT_S:g} s; "
                f"start them with `dask worker {address}`"
            ) from error
        yield client


def _refuse_closed_port(address: str) -> None:
    """Dask tries again and again where nobody listens; one attempt says the same at once."""
    at = urlsplit(address)
    socket.create_connection((at.hostname or "", at.port or 0), timeout=PORT_TIMEOUT_S).close()


async def _greet(address: str) -> None:
    """A client would wait for ever where somebody listens and says nothing."""
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        scheduler = rpc(address, connection_args=Security().get_connection_args("client"))
        try:
            await scheduler.identity()
        finally:
            await scheduler.close_rpc()


def check_versions(client: Client) -> None:
    """Raises OSError naming worker, package and both versions, if a worker's differ from this process's."""
    here = get_package_info(PACKAGES)
    found: Any = client.get_versions(packages=PACKAGES)
    problems = []
    for worker, versions in found["workers"].items():
        for package, there, ours in _differences(versions["packages"], here):
            problems.append(f"worker {worker} has {package} {there}, expected {ours} as here")
    _refuse(problems, "install the same versions on every worker")


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Package, version there, version here of each that differs."""
    return [
        (package, there.get(package) or "not installed", here[package] or "not installed")
        for package in ("python", *PACKAGES)
        if there.get(package) != here[package]
    ]


def check_shared(client: Client, root: Path, needed: Sequence[Path] = ()) -> None:
    """Lets every worker read a file back that is written under the root now, and look for what else is needed.

    Raises OSError naming the workers and the paths that they cannot see or write to, or whose code is another.
    """
    token = secrets.token_hex(16)
    path = make_folder(root) / f".shared-{token[:8]}"
    path.write_text(token)
    api = get_current_settings().api.url
    if api and _is_unreachable_here(api):
        api = None  # down just now, for everybody; that stops no night
    try:
        answers = client.run(_inspect, path, token, list(needed), api, on_error="return")
    finally:
        path.unlink(missing_ok=True)
    digest, problems = code_digest(), []
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            problems.append(f"worker {worker} cannot run nightlens: {type(answer).__name__}: {answer}")
            continue
        problems += [f"worker {worker} {problem}" for problem in answer["problems"]]
        if answer["code"] != digest:
            problems.append(
                f"worker {worker} has other code of nightlens ({answer['code'][:8]}, expected {digest[:8]} as here)"
            )
    _refuse(problems, "workers need this root, dataset and model under the same paths, and the same nightlens")


def _inspect(path: Path, token: str, needed: list[Path], api: str | None) -> dict[str, Any]:
    """Run by a worker: what it cannot see or reach, and the digest of its code."""
    problems = []
    try:
        if path.read_text() != token:
            problems.append(f"sees another folder as root {path.parent}")
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        problems.append(f"cannot use the root {path.parent} ({error.strerror}: {error.filename})")
    problems += _unseen(needed)
    if api and _is_unreachable_here(api):
        problems.append(f"cannot reach the Prefect API at {api}, which serves its own machine only")
    return {"problems": problems, "code": code_digest()}


def _unseen(paths: Iterable[Path]) -> list[str]:
    return [f"cannot see {path}" for path in paths if not path.exists()]


def _is_unreachable_here(api: str) -> bool:
    """Whether an API on a loopback address is another machine's; other addresses may be behind a proxy that we do not know."""
    at = urlsplit(api)
    if at.hostname not in ("127.0.0.1", "localhost", "::1"):
        return False
    with socket.socket() as probe:
        probe.settimeout(PORT_TIMEOUT_S)
        return probe.connect_ex((at.hostname, at.port or 80)) != 0


def _refuse(problems: list[str], advice: str) -> None:
    if problems:
        more = f"; and {len(problems) - NAMED_WORKERS} more" if len(problems) > NAMED_WORKERS else ""
        raise OSError(f"Dask {'; '.join(problems[:NAMED_WORKERS])}{more}; {advice}")


@contextmanager
def runner(address: str | None, n_workers: int) -> Iterator[DaskTaskRunner]:
    """Prefect's task runner on the scheduler at the address, or on a local cluster of so many processes with a thread each."""
    local = {
        "n_workers": n_workers,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "memory_limit": None,
        "security": True,
        "silence_logs": logging.WARNING,
    }
    logging.getLogger("distributed").setLevel(logging.WARNING)
    chosen = (
        {"address": address, "client_kwargs": {"timeout": CONNECT_TIMEOUT_S}} if address else {"cluster_kwargs": local}
    )
    nanny = logging.getLogger("distributed.nanny")
    with DaskTaskRunner(**chosen) as started:
        try:
            yield started
        finally:
            # TensorFlow takes longer to unload than Dask waits for, which is no news.
            nanny.setLevel(logging.ERROR)
    nanny.setLevel(logging.NOTSET)


@contextmanager
def set_up(client: Client, root: Path, needed: list[Path]) -> Iterator[None]:
    """For as long as it lasts, every worker, also one that comes later, runs TensorFlow with its share of the machine's threads.

    Raises as `check_shared` does.
    """
    check_shared(client, root, needed)
    hosts = Counter(urlsplit(worker).hostname for worker in client.scheduler_info()["workers"])
    name = f"nightlens {root}"
    client.register_plugin(WorkerSetup(dict(hosts), needed, get_package_info(PACKAGES), _console_filters()), name=name)
    try:
        yield
    finally:
        if client.status == "running":
            # Another night on this root may have let them go, and a worker may be lost or not set up just now.
            with suppress(ValueError, KeyError, OSError):
                client.unregister_worker_plugin(name)
            # What they have for Prefect's server, before a local cluster ends.
            client.run(_flush, on_error="ignore")


class WorkerSetup(WorkerPlugin):
    """What a worker does before its first part.

    n_workers: by host. needed: paths that it must see. versions: those of the flow. filters: what the flow keeps off its
    console is kept off a worker's.
    """

    def __init__(
        self, n_workers: dict[str | None, int], needed: list[Path], versions: dict[str, Any], filters: list[Any]
    ):
        self.n_workers, self.needed, self.versions, self.filters = n_workers, needed, versions, filters

    async def setup(self, worker: Worker) -> None:
        """Raises OSError where the worker must not compute; one that came late is closed, or it would take parts anyway."""
        differences = _differences(get_package_info(PACKAGES), self.versions)
        problems = [f"has {name} {there}, expected {ours}" for name, there, ours in differences]
        problems += _unseen(self.needed)
        if problems:
            asyncio.get_running_loop().create_task(worker.close(reason="; ".join(problems)))
            raise OSError(f"Dask worker {worker.address} {'; '.join(problems)}")
        for handler in _console_handlers():
            handler.filters += [known for known in self.filters if known not in handler.filters]
        n_here = self.n_workers.get(urlsplit(worker.address).hostname, 1)
        await asyncio.to_thread(_start_tensorflow, max(1, cpu_count() // n_here))


def _start_tensorflow(n_threads: int) -> None:
    """TensorFlow with so many threads; one that runs already in a long-lived worker keeps those that it has."""
    from tasks.process.quiet import settle_tensorflow, start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(n_threads)
    except RuntimeError:
        came = tf.config.threading.get_intra_op_parallelism_threads()
        logger.warning(
            "TensorFlow runs already with %d threads (0: all), expected %d; restart the worker", came, n_threads
        )
    settle_tensorflow()


def _console_handlers() -> list[logging.Handler]:
    """Those through which Prefect writes to this process's console."""
    import prefect.main  # noqa: F401  sets up Prefect's logging
    from prefect.logging.handlers import PrefectConsoleHandler

    loggers = (logging.getLogger(), logging.getLogger("prefect"))
    return [handler for each in loggers for handler in each.handlers if isinstance(handler, PrefectConsoleHandler)]


def _console_filters() -> list[Any]:
    return [known for handler in _console_handlers()[:1] for known in handler.filters]


def send(topic: str, message: list[int]) -> None:
    """Tells the flow, if this is a worker."""
    try:
        worker = get_worker()
    except ValueError:
        return
    worker.log_event(topic, message)


async def _flush() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    # In a thread of its own: in the worker's event loop both would only return something to await.
    for pending in (EventsWorker, APILogWorker):
        await asyncio.to_thread(pending.drain_all, timeout=FLUSH_TIMEOUT_S)
