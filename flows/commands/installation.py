"""What is installed: there as declared (✓), broken and what to do about it (✗), optional (-).

The dependencies are those that the installed distribution `nightlens` declares, so that there is no second list. `pip check`
does not serve: it knows no extras, and environments without pip. An import is tried in a process of its own: a library that
is built for another machine may kill the process that loads it.
"""

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["Finding", "Mark", "check_imports", "check_requirements", "required_modules"]

DISTRIBUTION = "nightlens"
# A night needs the base install and this extra; developers' tools are none of an operator's business.
NEEDED_EXTRAS = ("", "pipeline")
SKIPPED_EXTRAS = ("dev",)
# Distributions that ship these at the top level do so by mistake.
MISPLACED = ("examples", "tests")

Mark = Literal["✓", "✗", "-"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor. advice: what to do about a ✗."""

    mark: Mark
    name: str
    detail: str
    advice: str = ""


def check_requirements(distribution: str = DISTRIBUTION) -> Iterator[Finding]:
    """Each declared requirement against what is installed."""
    try:
        requirements = _requirements(distribution)
    except PackageNotFoundError:
        yield Finding("✗", distribution, "not installed", f"pip install '{distribution}[pipeline]', or `make run`")
        return
    yield Finding("✓", "python", sys.version.split()[0])
    # The bounds of an extra that is not installed bind nobody: NumPy 2 goes with an OpenCV that `reference` refuses.
    partial = {extra for extra, requirement in requirements if extra not in NEEDED_EXTRAS and _missing(requirement)}
    for extra, requirement in requirements:
        yield _judge(extra, requirement, is_bound=extra not in partial)


def _requirements(distribution: str) -> list[tuple[str, Requirement]]:
    """The requirements that apply here, each with the first extra that asks for it, "" for the base install."""
    metadata = importlib.metadata.metadata(distribution)
    extras = ["", *(extra for extra in metadata.get_all("Provides-Extra") or [] if extra not in SKIPPED_EXTRAS)]
    declared = map(Requirement, importlib.metadata.requires(distribution) or [])
    asking = [(next((e for e in extras if _applies(r, e)), None), r) for r in declared]
    return [(extra, requirement) for extra, requirement in asking if extra is not None]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _judge(extra: str, requirement: Requirement, *, is_bound: bool) -> Finding:
    wanted, name = str(requirement.specifier), str(requirement).split(";")[0].strip()
    name, install = name.removesuffix(wanted).strip(), f"pip install '{name}'"
    missing = _missing(requirement)
    if missing:
        detail = f"not installed, expected {wanted or 'any version'}"
        detail += "" if missing == requirement.name else f" ({missing} is not)"
        if extra in NEEDED_EXTRAS:
            return Finding("✗", name, detail, install)
        return Finding("-", name, f"{detail}; optional: pip install '{DISTRIBUTION}[{extra}]'")
    version = importlib.metadata.version(requirement.name)
    if not requirement.specifier.contains(version, prereleases=True):
        if not is_bound:
            return Finding("-", name, f"{version}, expected {wanted}; optional: pip install '{DISTRIBUTION}[{extra}]'")
        return Finding("✗", name, f"{version}, expected {wanted}", install)
    return Finding("✓", name, f"{version} ({wanted or 'any version'}{f'; extra {extra}' if extra else ''})")


def _missing(requirement: Requirement) -> str | None:
    """What is not installed first of a requirement and of the extras that it asks for; None if all of it is there."""
    try:
        inner = [Requirement(text) for text in importlib.metadata.requires(requirement.name) or []]
    except PackageNotFoundError:
        return requirement.name
    asked = [i for i in inner if not _applies(i, "") and any(_applies(i, extra) for extra in requirement.extras)]
    return next(filter(None, map(_missing, asked)), None)


def check_imports(modules: Sequence[str]) -> Iterator[Finding]:
    """Whether each module can be imported; all in one process as long as that lives."""
    n_good, left = 0, modules
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


def required_modules() -> list[str]:
    """The modules that the installed requirements bring, by import name."""
    try:
        wanted = {canonicalize_name(requirement.name) for _, requirement in _requirements(DISTRIBUTION)}
    except PackageNotFoundError:
        return []
    return sorted(
        module
        for module, providers in importlib.metadata.packages_distributions().items()
        if module.isidentifier() and not module.startswith("_") and module not in MISPLACED
        if wanted.intersection(map(canonicalize_name, providers))
    )
