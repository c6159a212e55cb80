"""Imports point one way: flows -> tasks -> {tasks.numerics, storage}. Read from the source, inside functions too.

`import storage` loading neither TensorFlow nor Prefect is tested with the store's schema.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OURS = ("flows", "tasks", "storage")
RULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # package: (what of ours it may import, what of others it must not)
    "flows": (("flows", "tasks", "storage"), ("tensorflow", "keras", "h5py", "alibi", "tf_explain")),
    "tasks": (("tasks", "storage"), ("h5py",)),
    "tasks.datasets": (("tasks.datasets", "tasks.config", "storage"), ("prefect", "h5py", "alibi", "tf_explain")),
    "tasks.model_files": (
        ("tasks.model_files", "tasks.numerics"),
        ("prefect", "pydantic", "tensorflow_datasets", "alibi", "tf_explain"),
    ),
    "tasks.numerics": (("tasks.numerics",), ("prefect", "h5py", "tensorflow_datasets", "pydantic")),
    "storage": (
        ("storage",),
        ("tensorflow", "keras", "prefect", "pydantic", "tensorflow_datasets", "alibi", "tf_explain"),
    ),
}
FILES = sorted(path.relative_to(REPOSITORY) for package in OURS for path in (REPOSITORY / package).rglob("*.py"))


def module_name(file: Path) -> str:
    """The dotted name of a file: tasks/numerics/cnn.py is tasks.numerics.cnn, a package's __init__.py the package."""
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


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module that its layer must not have."""
    layer = max((package for package in RULES if is_within(module, (package,))), key=len)
    allowed, forbidden = RULES[layer]
    return [
        name
        for name in imported(source, module, is_package=is_package)
        if is_within(name, forbidden) or (is_within(name, OURS) and not is_within(name, allowed))
    ]


def test_the_walk_finds_every_layer() -> None:
    modules = [module_name(file) for file in FILES]
    assert {"flows.nightly", "tasks.explain", "tasks.numerics.grad_cam", "tasks.datasets", "storage.seal"} <= {*modules}


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_point_one_way(file: Path) -> None:
    source = (REPOSITORY / file).read_text()
    assert violations(source, module_name(file), is_package=file.name == "__init__.py") == []


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
        ("tasks.numerics.cnn", "from storage import open_store", ["storage.open_store"]),
        ("tasks.numerics.cnn", "from tasks.plan import Plan", ["tasks.plan.Plan"]),
        ("tasks.numerics.cnn", "from ..plan import Plan", ["tasks.plan.Plan"]),
        ("tasks.numerics.cnn", "if True:\n    from prefect import task", ["prefect.task"]),
        ("tasks.datasets.reading", "from prefect import task", ["prefect.task"]),
        ("tasks.model_files.weights", "import h5py", []),
        ("tasks.model_files.weights", "from tasks.registry import load_model", ["tasks.registry.load_model"]),
        ("storage.seal", "from tasks import plan", ["tasks.plan"]),
        ("storage.seal", "import pydantic, json", ["pydantic"]),
        ("storage.seal", "import importlib\nimportlib.import_module('keras')", ["keras"]),
        ("storage.seal", "from storage.part import check_part\nimport h5py", []),
        ("storage.seal", "from .part import check_part", []),
        ("tasks.numerics.cnn", "import keras\nfrom tasks.numerics.scores import score_model", []),
    ],
    ids=lambda value: value.replace("\n", "; ") if isinstance(value, str) else ("bad" if value else "good"),
)
def test_the_checker_sees_what_it_must(module: str, source: str, found: list[str]) -> None:
    assert violations(source, module) == found
