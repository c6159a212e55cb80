"""Imports point one way: flows -> tasks -> {tasks.numerics, storage}, and so does every wing within them; nightlens -> storage.

Read from the source: inside functions too, and behind TYPE_CHECKING. `import storage` loading neither TensorFlow nor Prefect is
tested with the store's schema.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from places import REPOSITORY

DOOR = "nightlens"
OURS = ("flows", "tasks", "storage", DOOR)
MOST_FILES = 12
# wing: the wings of the same package that it may import. A wing's own name stands for itself and for its packages; the name of
# the package alone for the files on its ground floor, which are named where a wing may import one.
WINGS: Mapping[str, tuple[str, ...]] = {
    "storage.file": ("storage.errors",),
    "storage.read": ("storage.errors", "storage.file"),
    "storage.write": ("storage.errors", "storage.file", "storage.read"),
    "storage.check": ("storage.errors", "storage.file", "storage.read"),
    "storage.draw": ("storage.errors", "storage.file", "storage.read"),
    "storage.nights": ("storage.errors", "storage.file", "storage.read", "storage.write"),
    "storage.export": ("storage.errors", "storage.file", "storage.read", "storage.draw"),
    "tasks.process": (),
    "tasks.config": (),
    "tasks.numerics": (),
    "tasks.models": ("tasks.numerics",),
    "tasks.datasets": ("tasks.config",),
    "tasks.night": ("tasks.config", "tasks.numerics"),
    "tasks.contract": ("tasks.config", "tasks.numerics", "tasks.models", "tasks.datasets", "tasks.night"),
    "tasks.parts": (
        "tasks.process",
        "tasks.config",
        "tasks.numerics",
        "tasks.models",
        "tasks.datasets",
        "tasks.contract",
    ),
    "tasks.worth": (
        "tasks.config",
        "tasks.night",
        "tasks.numerics",
        "tasks.models",
        "tasks.datasets",
        "tasks.parts",
    ),
    "tasks.recompute": (
        "tasks.config",
        "tasks.numerics",
        "tasks.models",
        "tasks.datasets",
        "tasks.contract",
        "tasks.parts",
    ),
    "tasks.pages": ("tasks.config", "tasks.contract", "tasks.night", "tasks.numerics", "tasks.parts", "tasks.worth"),
    "tasks.handover": ("tasks.config", "tasks.night", "tasks.pages", "tasks.report"),
    "tasks.report": ("tasks.contract", "tasks.night", "tasks.numerics", "tasks.worth"),
    "tasks.browse": ("tasks.night", "tasks.report", "tasks.worth"),
    "flows.terminal": (),
    "flows.server": (),
    "flows.service": ("flows.parameters", "flows.server", "flows.terminal"),
    "flows.commands": (
        "flows.nightly",
        "flows.floor",
        "flows.parameters",
        "flows.server",
        "flows.service",
        "flows.terminal",
    ),
}
# What of storage a wing of tasks may import; the others may import all of it.
STORAGE_OF: Mapping[str, tuple[str, ...]] = {
    "tasks.process": (),
    "tasks.config": (),
    "tasks.numerics": (),
    "tasks.models": ("storage.file",),
    "tasks.datasets": ("storage.file",),
    "tasks.contract": (),
    "flows.server": ("storage.file",),
}
FOREIGN: Mapping[str, tuple[str, ...]] = {  # what of others a package or wing must not import
    "flows": ("tensorflow", "keras", "h5py", "alibi", "tf_explain"),
    "tasks": ("h5py",),
    "tasks.process": ("h5py", "prefect", "pydantic"),
    "tasks.browse": ("h5py", "prefect", "tensorflow", "keras"),
    "tasks.datasets": ("prefect", "h5py", "alibi", "tf_explain"),
    "tasks.models": ("prefect", "tensorflow_datasets", "alibi", "tf_explain"),
    "tasks.numerics": ("prefect", "h5py", "tensorflow_datasets", "pydantic"),
    "storage": ("tensorflow", "keras", "prefect", "pydantic", "tensorflow_datasets", "alibi", "tf_explain"),
    "nightlens": ("tensorflow", "keras", "prefect", "pydantic", "numpy", "h5py", "pandas", "xarray", "matplotlib"),
}
FILES = [
    Path(f"{DOOR}.py"),
    *sorted(path.relative_to(REPOSITORY) for package in OURS for path in (REPOSITORY / package).rglob("*.py")),
]


def module_name(file: Path) -> str:
    """The dotted name of a file: tasks/ingest.py is tasks.ingest, the __init__.py of a package the package."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """The dotted name of everything a source imports, wherever in it, relative imports resolved."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def longest(module: str, table: Mapping[str, tuple[str, ...]]) -> str:
    """The innermost entry of a table that a module is within, "" for none."""
    return max((entry for entry in table if is_within(module, (entry,))), key=len, default="")


def allowed(module: str) -> tuple[str, ...]:
    """What of ours a module may import."""
    package, wing = module.partition(".")[0], longest(module, WINGS)
    own = (wing, *WINGS[wing]) if wing else (package,)
    if package == "storage":
        return own
    storage = STORAGE_OF.get(wing, ("storage",))
    if package == DOOR:
        return (*own, *storage)
    return (*own, *storage) if package == "tasks" else (*own, "tasks", *storage)


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module that its layer must not have."""
    forbidden = FOREIGN.get(longest(module, FOREIGN), ())
    return [
        name
        for name in imported(source, module, is_package=is_package)
        if is_within(name, forbidden) or (is_within(name, OURS) and not is_within(name, allowed(module)))
    ]


def circles(imports: Mapping[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, directly or through others."""
    reached: dict[str, set[str]] = {}
    for start in imports:
        seen, waiting = set[str](), list(imports[start])
        while waiting:
            if (module := waiting.pop()) not in seen:
                seen.add(module)
                waiting += imports.get(module, ())
        reached[start] = seen
    found = [{other for other in seen if module in reached.get(other, ())} for module, seen in reached.items()]
    return [circle for number, circle in enumerate(found) if circle and circle not in found[:number]]


def modules_imported(file: Path, known: set[str]) -> set[str]:
    """Which of the known modules a file imports; of a package that it takes names from, the package."""
    module = module_name(file)
    names = imported((REPOSITORY / file).read_text(), module, is_package=file.name == "__init__.py")
    found = {name if name in known else name.rpartition(".")[0] for name in names}
    return (found & known) - {module}


def test_the_walk_finds_every_layer() -> None:
    modules = {module_name(file) for file in FILES}
    assert {DOOR, "flows.nightly", "tasks.explain", "storage.store", *WINGS} <= modules


def test_every_folder_is_a_wing_or_within_one() -> None:
    folders = {module_name(file) for file in FILES if file.name == "__init__.py"} - {*OURS}
    assert {folder for folder in folders if not longest(folder, WINGS)} == set()


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_point_one_way(file: Path) -> None:
    source = (REPOSITORY / file).read_text()
    assert violations(source, module_name(file), is_package=file.name == "__init__.py") == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {module_name(file) for file in FILES}
    assert circles({module_name(file): modules_imported(file, known) for file in FILES}) == []


def test_no_folder_is_crowded() -> None:
    crowded = {folder: n for folder, n in Counter(file.parent for file in FILES).items() if n > MOST_FILES}
    assert crowded == {}


def test_no_two_files_have_the_same_name() -> None:
    """A flow may have the name of the task that it is about."""
    names = Counter(file.stem for file in FILES if file.stem != "__init__" and file.parent != Path("flows"))
    assert {name for name, n in names.items() if n > 1} == set()


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_no_module_is_named_like_a_library(file: Path) -> None:
    assert file.stem not in ("prefect", "keras", "tensorflow", "h5py", "alibi", "numpy", "pandas", "xarray")


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("flows.nightly", "import tensorflow as tf", ["tensorflow"]),
        ("flows.cli", "def show():\n    import h5py", ["h5py"]),
        ("flows.cli", "from keras.models import load_model", ["keras.models.load_model"]),
        ("tasks.explain", "from flows.nightly import nightly", ["flows.nightly.nightly"]),
        ("tasks.explain", "import h5py", ["h5py"]),
        ("tasks.numerics.network.cnn", "from storage import open_store", ["storage.open_store"]),
        ("tasks.numerics.network.cnn", "from tasks.parts.plan import Plan", ["tasks.parts.plan.Plan"]),
        ("tasks.numerics.network.cnn", "from ...parts.plan import Plan", ["tasks.parts.plan.Plan"]),
        ("tasks.numerics.network.cnn", "if True:\n    from prefect import task", ["prefect.task"]),
        ("tasks.datasets.prepared_rows", "from prefect import task", ["prefect.task"]),
        ("tasks.contract.evidence", "from tasks.parts.plan import Plan", ["tasks.parts.plan.Plan"]),
        ("tasks.parts.plan", "import tasks.explain", ["tasks.explain"]),
        (
            "storage.draw.panels",
            "if TYPE_CHECKING:\n    from storage.store import open_store",
            ["storage.store.open_store"],
        ),
        ("storage.read.tables", "from storage.draw.figures import INK", ["storage.draw.figures.INK"]),
        ("tasks.models.weights", "import h5py", []),
        ("tasks.models.weights", "from tasks.parts.plan import Plan", ["tasks.parts.plan.Plan"]),
        ("storage.write.sealing", "from tasks.parts import plan", ["tasks.parts.plan"]),
        ("storage.write.sealing", "import pydantic, json", ["pydantic"]),
        ("storage.write.sealing", "import importlib\nimportlib.import_module('keras')", ["keras"]),
        ("storage.write.sealing", "from storage.read.parts.part_summary import check_part\nimport h5py", []),
        ("nightlens", "from storage import open_store\nfrom importlib.metadata import version", []),
        ("nightlens", "from tasks.recompute import recompute", ["tasks.recompute.recompute"]),
        ("nightlens", "from flows.cli import main", ["flows.cli.main"]),
        ("nightlens", "import h5py", ["h5py"]),
        ("storage.write.sealing", "from nightlens import open_store", ["nightlens.open_store"]),
        ("tasks.explain", "import nightlens", ["nightlens"]),
        ("flows.cli", "import nightlens", ["nightlens"]),
        ("storage.write.sealing", "from .arrays import checked_arrays", []),
        ("tasks.numerics.network.cnn", "import keras\nfrom tasks.numerics.network.scores import score_model", []),
    ],
    ids=lambda value: value.replace("\n", "; ") if isinstance(value, str) else ("bad" if value else "good"),
)
def test_the_checker_sees_what_it_must(module: str, source: str, found: list[str]) -> None:
    assert violations(source, module) == found


def test_the_search_for_circles_finds_them() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
