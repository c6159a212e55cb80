"""Whether a night can run here: what is there (✓), what is broken and what to do about it (✗), what is optional (-).

The dependencies are those that the installed distribution `nightlens` declares, so that there is no second list. An
import is tried in a process of its own: a library that is built for another machine may kill the process that loads it.
"""

import errno
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console
from rich.text import Text

from flows.server.api import configured_api, refuse_unreachable
from flows.server.server import LocalServer
from flows.terminal.complaints import message
from flows.terminal.progress_bars import quiet_tensorflow
from storage import Catalog
from storage.file.lock import refuse_without_locks

__all__ = ["Finding", "check_imports", "check_requirements", "examine", "refuse_unusable"]

DISTRIBUTION = "nightlens"
# A night needs the base install and this extra; developers' tools are none of an operator's business.
NEEDED_EXTRAS = ("", "pipeline")
SKIPPED_EXTRAS = ("dev",)
# Distributions that ship these at the top level do so by mistake.
MISPLACED = ("examples", "tests")
LEAST_FREE_BYTES = 500_000_000

Mark = Literal["✓", "✗", "-"]
COLOURS: dict[Mark, str] = {"✓": "green", "✗": "bold red", "-": "yellow"}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor. advice: what to do about a ✗."""

    mark: Mark
    name: str
    detail: str
    advice: str = ""


def examine(*, root: Path, dataset: str, data_dir: Path | None) -> bool:
    """Prints every finding as it comes; returns whether nothing required is broken."""
    console = Console(highlight=False)
    healthy = True
    for title, findings in (
        ("dependencies", check_requirements(DISTRIBUTION)),
        ("imports", check_imports(_modules(DISTRIBUTION))),
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


def check_requirements(distribution: str) -> Iterator[Finding]:
    """Each declared requirement against what is installed."""
    try:
        requirements = _requirements(distribution)
    except importlib.metadata.PackageNotFoundError:
        yield Finding("✗", distribution, "not installed", f"pip install '{distribution}[pipeline]', or `make run`")
        return
    yield Finding("✓", "python", sys.version.split()[0])
    # The bounds of an extra that is not installed bind nobody: NumPy 2 goes with an OpenCV that `reference` refuses.
    partial = {extra for extra, requirement in requirements if extra not in NEEDED_EXTRAS and _missing(requirement)}
    for extra, requirement in requirements:
        yield _judge(extra, requirement, is_bound=extra not in partial)


def _judge(extra: str, requirement: Requirement, is_bound: bool) -> Finding:
    needed = extra in NEEDED_EXTRAS
    wanted = str(requirement.specifier) or "any version"
    name = str(requirement).split(";")[0].removesuffix(str(requirement.specifier)).strip()
    missing = _missing(requirement)
    if missing:
        detail = f"not installed, expected {wanted}" + (
            "" if missing == [requirement.name] else f" ({missing[0]} is not)"
        )
        if needed:
            return Finding("✗", name, detail, f"pip install '{name}{requirement.specifier}'")
        return Finding("-", name, f"{detail}; optional: pip install '{DISTRIBUTION}[{extra}]'")
    version = importlib.metadata.version(requirement.name)
    if not requirement.specifier.contains(version, prereleases=True):
        if not is_bound:
            return Finding("-", name, f"{version}, expected {wanted}; optional: pip install '{DISTRIBUTION}[{extra}]'")
        return Finding("✗", name, f"{version}, expected {wanted}", f"pip install '{name}{requirement.specifier}'")
    return Finding("✓", name, f"{version} ({wanted}{f'; extra {extra}' if extra else ''})")


def _missing(requirement: Requirement) -> list[str]:
    """What of a requirement and of the extras that it asks for is not installed."""
    try:
        found = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return [requirement.name]
    inner = [Requirement(text) for text in found.requires or []] if requirement.extras else []
    return [
        name
        for needed in inner
        for extra in requirement.extras
        if needed.marker and needed.marker.evaluate({"extra": extra}) and not needed.marker.evaluate({"extra": ""})
        for name in _missing(needed)
    ]


def _requirements(distribution: str) -> list[tuple[str, Requirement]]:
    """The requirements that apply here, each with the extra that asks for it."""
    metadata = importlib.metadata.metadata(distribution)
    extras = ["", *(extra for extra in metadata.get_all("Provides-Extra") or [] if extra not in SKIPPED_EXTRAS)]
    found = []
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        applies = [e for e in extras if requirement.marker is None or requirement.marker.evaluate({"extra": e})]
        if applies:
            found.append((applies[0], requirement))
    return found


def _modules(distribution: str) -> list[str]:
    """The modules that the installed requirements bring, by import name."""
    try:
        requirements = _requirements(distribution)
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted = {canonicalize_name(requirement.name): None for _, requirement in requirements}
    modules: dict[str, None] = {}
    for module, providers in importlib.metadata.packages_distributions().items():
        named = module.isidentifier() and not module.startswith("_") and module not in MISPLACED
        if named and wanted.keys() & {canonicalize_name(provider) for provider in providers}:
            modules[module] = None
    return sorted(modules)


def check_imports(modules: list[str]) -> Iterator[Finding]:
    """Whether each module can be imported; all in one process as long as that lives."""
    n_good = 0
    left = modules
    while left:
        script = "import importlib\n" + "".join(
            f"importlib.import_module({m!r}); print({m!r}, flush=True)\n" for m in left
        )
        # -P: a file in the current folder is not taken for a library.
        done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
        n_imported = len(set(done.stdout.split()) & set(left))
        n_good += n_imported
        if done.returncode == 0:
            break
        broken, left = left[n_imported], left[n_imported + 1 :]
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said and done.returncode > 0 else f"its process ended with {done.returncode}"
        yield Finding("✗", broken, reason, f"reinstall it: pip install --force-reinstall --no-deps {broken}")
    if n_good:
        yield Finding("✓", f"{n_good} modules", "import: " + ", ".join(modules) if n_good == len(modules) else "import")


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
