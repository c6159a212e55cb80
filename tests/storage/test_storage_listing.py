"""The schema as text: README and golden listing are its, and a sealed store, listed with h5py alone, is the listing."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from example_store import seal, write_parts
from places import REPOSITORY
from storage import SCHEMA_VERSION
from storage.file.methods import METHODS
from storage.file.schema import ROOT_ATTRIBUTES, VARIABLES
from storage.file.schema_listing import (
    BEGIN,
    END,
    ONLY_VIRTUAL,
    full_listing,
    in_document,
    schema_tables,
    write_documents,
)

GOLDEN = REPOSITORY / "tests" / "data" / "schema.txt"
ANEW = "write the texts anew: `python -m storage.file.schema_listing storage/README.md tests/data/schema.txt`"


def test_the_schema_is_the_one_of_its_version() -> None:
    golden = GOLDEN.read_text()
    assert full_listing() == golden, (
        f"the schema is not that of version {SCHEMA_VERSION} any more: stores of that version are out there; raise "
        f"SCHEMA_VERSION, mark what is new `since` it, keep a store of the old version in tests/data, and {ANEW}"
    )


def test_a_sealed_store_is_what_the_listing_says(tmp_path: Path) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 150))
    with h5py.File(tmp_path / "attributions.h5") as file:
        assert listed(file) == GOLDEN.read_text().partition(f"\n{ONLY_VIRTUAL}")[0]


def listed(file: h5py.File, within: str = "/") -> str:
    """The listing of a store from the store, or of what lies within a group: h5py only, nothing of the schema."""
    lines = [f"schema {file.attrs['schema']}", "", "root attributes"]
    lines += sorted(f"    {name}: {kind(value)}" for name, value in file.attrs.items())
    groups: list[h5py.Group] = []
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, node: (datasets if isinstance(node, h5py.Dataset) else groups).append(node))
    groups, datasets = ([node for node in nodes if node.name.startswith(within)] for nodes in (groups, datasets))
    for group in sorted(groups, key=lambda node: node.name):
        assert set(group.attrs) == {"description"}
        lines += ["", f"group {group.name[1:]}", f"    description: {group.attrs['description'].decode()}"]
    for dataset in sorted(datasets, key=lambda node: node.name):
        names = ("long_name", "units", "description", "_Encoding")
        about = {name: dataset.attrs[name].decode() for name in names if name in dataset.attrs}
        whole_rows = dataset.chunks[1:] == dataset.shape[1:] and dataset.maxshape[0] is None
        lines += [
            "",
            f"dataset {dataset.name[1:]}",
            f"    {dtype(dataset)} ({axes(dataset)})" + (", a dimension scale" if dataset.is_scale else ""),
            f"    chunks: {'rows' if whole_rows else 'one' if dataset.chunks == dataset.shape else '?'}; "
            f"filters: {filters(dataset)}",
            *(f"    {name}: {text}" for name, text in about.items()),
        ]
    return "\n".join(lines) + "\n"


def kind(value: object) -> str:
    if isinstance(value, np.integer):
        return "integer"
    assert isinstance(value, bytes)
    try:
        return "json" if isinstance(json.loads(value), dict) else "text"
    except ValueError:
        return "text"


def dtype(dataset: h5py.Dataset) -> str:
    info = h5py.check_string_dtype(dataset.dtype)
    return f"{info.encoding} text" if info else str(dataset.dtype)


def axes(dataset: h5py.Dataset) -> str:
    names = [dataset.name] if dataset.is_scale else [axis[0].name for axis in dataset.dims]
    unlimited = ["*" if size is None else "" for size in dataset.maxshape]
    return ", ".join(f"{name[1:]}{star}" for name, star in zip(names, unlimited, strict=True))


def filters(dataset: h5py.Dataset) -> str:
    pipeline = [f"compression {dataset.compression}", f"compression_opts {dataset.compression_opts}"]
    pipeline += [name for name in ("shuffle", "fletcher32") if getattr(dataset, name)]
    return ", ".join(pipeline)


def test_the_readme_has_the_tables_of_the_schema() -> None:
    readme = (REPOSITORY / "storage" / "README.md").read_text()
    assert in_document(readme, schema_tables()) == readme, ANEW


def test_the_tables_name_everything_once_and_mirror_the_predicted_groups() -> None:
    tables = schema_tables()
    for variable in VARIABLES:
        assert tables.count(f"\n| `{variable.path}` |") == (not variable.group.endswith("/predicted"))
    for attribute in ROOT_ATTRIBUTES:
        assert tables.count(f"\n| `{attribute.name}` |") == 1
    assert all(f"`{method.group}/predicted`" in tables for method in METHODS)
    for table in tables.split("\n\n"):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_documents_are_written_between_their_markers(tmp_path: Path) -> None:
    document, listing = tmp_path / "d.md", tmp_path / "schema.txt"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_documents([document, listing])
        assert document.read_text() == f"before\n{BEGIN}\n\n{schema_tables()}\n\n{END}\nafter\n"
        assert listing.read_text() == full_listing()


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"], ids=["none", "no end", "no begin", "reversed"])
def test_a_document_without_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected the markers"):
        in_document(text, "tables")
