"""Whether a night can run here: the installation, the root, the server, the dataset and the models, a line for each finding."""

import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.commands.installation import Finding, Mark, check_imports, check_requirements, required_modules
from flows.server.api import configured_api, refuse_unreachable
from flows.server.server import LocalServer
from flows.terminal.complaints import message
from flows.terminal.progress_bars import quiet_tensorflow
from storage import Catalog
from storage.file.disk.lock import refuse_without_locks

__all__ = ["LEAST_FREE_BYTES", "examine", "refuse_unusable"]

LEAST_FREE_BYTES = 500_000_000

COLOURS: dict[Mark, str] = {"✓": "green", "✗": "bold red", "-": "yellow"}


def examine(*, root: Path, dataset: str, data_dir: Path | None) -> bool:
    """Prints every finding as it comes; returns whether nothing required is broken."""
    console = Console(highlight=False)
    healthy = True
    for title, findings in (
        ("dependencies", check_requirements()),
        ("imports", check_imports(required_modules())),
        ("root", _check_root(root)),
        ("server", _check_server()),
        ("dataset", _check_dataset(dataset, root, data_dir)),
        ("models", _check_models(root)),
    ):
        console.print(Text(title, style="bold"))
        for finding in findings:
            healthy &= finding.mark != "✗"
            line = Text.assemble("  ", (finding.mark, COLOURS[finding.mark]), f" {finding.name:<24} {finding.detail}")
            if finding.advice:
                line.append(f"\n    → {finding.advice}", style="cyan")
            console.print(line, soft_wrap=True)
    console.print(Text("ready" if healthy else "not ready: see each ✗", style="bold green" if healthy else "bold red"))
    return healthy


def _check_root(root: Path) -> Iterator[Finding]:
    try:
        n_free = refuse_unusable(root)
    except OSError as error:
        yield Finding("✗", "root", message(error), "choose another --root")
        return
    yield Finding("✓", "root", f"{root.absolute()}, {n_free / 1e9:,.1f} GB free")


def refuse_unusable(root: Path) -> int:
    """The free bytes under a root, which need not exist; leaves nothing there. Raises OSError if it cannot be used."""
    folder = root.expanduser().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()
        n_free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = f"{root}: cannot be written ({error.strerror} in {folder}); choose another --root"
        raise OSError(error.errno, reason) from error
    refuse_without_locks(folder, root)
    if n_free < LEAST_FREE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"{root}: expected at least {LEAST_FREE_BYTES / 1e6:,.0f} MB free, found {n_free / 1e6:,.0f} MB; "
            "make room or choose another --root",
        )
    return n_free


def _check_server() -> Iterator[Finding]:
    """The configured API, or a local server that is really started, in a folder that is removed again."""
    api = configured_api()
    try:
        if api:
            refuse_unreachable(api)
            yield Finding("✓", "Prefect API", f"{api} answers")
        else:
            with tempfile.TemporaryDirectory(prefix="nightlens-doctor-") as folder, LocalServer(Path(folder)) as server:
                server.wait_until_up()
            yield Finding("✓", "Prefect server", "none configured; one of its own starts and stops")
    except OSError as error:
        yield Finding("✗", "Prefect API" if api else "Prefect server", str(error), "see above; then run doctor again")


def _check_dataset(source: str, root: Path, data_dir: Path | None) -> Iterator[Finding]:
    path = Path(source).expanduser()
    if source == "digits":
        yield Finding("✓", source, "bundled with scikit-learn, needs no network")
    elif path.exists():
        yield Finding("✓", source, f"{path.resolve()} is there; the night checks what is in it")
    elif source.endswith(".npz") or source.startswith((".", "~", "/")):
        yield Finding("✗", source, f"no such file or folder from {Path.cwd()}", "give the right path with --dataset")
    elif re.split("[/:]", source)[0]:
        with quiet_tensorflow():
            from tasks.datasets import DatasetError
        try:
            yield _named(source, root, data_dir)
        except DatasetError as error:
            yield Finding("✗", source, str(error).removeprefix(f"{source}: "))


def _named(name: str, root: Path, data_dir: Path | None) -> Finding:
    """A TFDS dataset: prepared already, or to be had from its hosts. Raises DatasetError if neither."""
    import tensorflow_datasets as tfds

    from tasks.datasets.formats import named

    folders = [data_dir] if data_dir else [root / "datasets", Path(tfds.core.constants.DATA_DIR)]
    folders = [folder.expanduser().resolve() for folder in folders]
    for folder in folders:
        if found := named.find_prepared(name, folder):
            return Finding("✓", name, f"prepared in {found}")
    named.refuse_unreachable(name, named.construct(name, folders[0]), folders)
    return Finding("✓", name, "not prepared yet; its hosts answer, the night will download it")


def _check_models(root: Path) -> Iterator[Finding]:
    """The registry: what of it cannot be read, and how many models are in it; none is no fault, a night trains one."""
    with quiet_tensorflow():
        from tasks.models.registry import list_models
    folder, unreadable = Catalog(root).models, list[str]()
    records = list_models(folder, unreadable.append)
    for reason in unreadable:
        yield Finding("-", "registry", reason)
    newest = f", the newest {records[0].name}" if records else "; a night trains one"
    yield Finding("✓", "registry", f"{len(records)} models in {folder}{newest}")
