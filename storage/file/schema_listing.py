"""The schema as text: the tables of storage/README.md, and the full listing that the tests hold every store to.

`python -m storage.file.schema_listing storage/README.md tests/data/schema.txt` writes both anew: in a Markdown file what stands
between the two markers, any other file as a whole. Neither is ever edited by hand.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from storage.file.added_tables import CLUSTERS, DRIFT, PARTS, Table
from storage.file.layout import FILTERS
from storage.file.methods import CAM_AXES, METHODS
from storage.file.schema import (
    IMAGE,
    LEFT_OUT,
    ROOT_ATTRIBUTES,
    SCHEMA_VERSION,
    VARIABLES,
    groups_of,
    present,
)
from storage.file.variable import ROW_DIMENSIONS, TEXT, Variable

__all__ = ["full_listing", "in_document", "schema_tables"]

BEGIN = (
    "<!-- from storage/file/schema.py by `python -m storage.file.schema_listing storage/README.md`; not edited here -->"
)
END = "<!-- end of what comes from storage/file/schema.py -->"
MIRRORED = (
    "The groups {groups} hold the same for the predicted class, for the misclassified rows only, along `predicted_row`; before "
    "schema 5 each had a `row` of its own instead. For every other row the predicted class is the true class."
)
OPTIONAL = (
    "Maps are there as a whole or not at all, since schema 4: a night of a model without any map, or with "
    "`grad_cam.layer: none`, has no group {methods}, and neither {axes}."
)
WITHOUT_IMAGES = (
    f"A store that was handed over without its images (see A night to hand over) has no dataset `{IMAGE}`, and the root "
    f"attribute `{LEFT_OUT}`, which is `{IMAGE}`; all others have no such attribute."
)
ONLY_VIRTUAL = "only in a store of the layout virtual, whose images, attributions and maps are virtual datasets"
VIRTUAL = (
    f"A store of the layout `virtual` (see One file or many) has a group `{PARTS.group}` more, since schema 3: of the file of "
    "each part its {names}. The datasets of images, attributions and maps are virtual there and have neither chunks nor "
    "filters of their own."
)

ONLY_WITH_CLUSTERS = "only in a store in which strategies were found"
ONLY_WITH_DRIFT = "only in a store of a night whose model is another than the night's before it"
CHANGES = "Only in a store of a night whose model is another than that of the night before on the same images, since schema 7:"
STRATEGIES = "Only in a store in which strategies were found, since schema 7, along axes of the group's own:"


def schema_tables() -> str:
    """The Markdown tables: every dataset, the predicted groups as one line, the root attributes."""
    shown = [variable for variable in VARIABLES if not variable.is_ragged or variable.is_coordinate]
    datasets = (
        (f"`{v.path}`", _dtype(v), " ".join(v.dimensions), v.units, _since(v.description, v.since)) for v in shown
    )
    attributes = ((f"`{a.name}`", a.kind, _since(a.description, a.since)) for a in ROOT_ATTRIBUTES)
    groups = ", ".join(f"`{method.group}/predicted`" for method in METHODS)
    maps = " or ".join(f"`{method.group}`" for method in METHODS if method.is_map)
    blocks = [
        _table(("dataset", "dtype", "axes", "units", "what it is"), datasets),
        MIRRORED.format(groups=groups),
        OPTIONAL.format(methods=maps, axes=" nor ".join(f"`{axis}`" for axis in CAM_AXES)),
        VIRTUAL.format(names=", ".join(f"`{v.name}`" for v in PARTS.variables if not v.is_coordinate)),
        WITHOUT_IMAGES,
        STRATEGIES,
        _added(CLUSTERS),
        CHANGES,
        _added(DRIFT),
        _table(("root attribute", "kind", "what it is"), attributes),
    ]
    return "\n\n".join(blocks)


def _added(table: Table) -> str:
    shown = (variable for variable in table.variables if not variable.is_coordinate)
    return _table(
        ("dataset", "dtype", "axes", "units", "what it is"),
        ((f"`{v.path}`", _dtype(v), " ".join(v.dimensions), v.units, v.description) for v in shown),
    )


def full_listing(*, maps: bool = True) -> str:
    """Every dataset with dtype, axes, chunks, filters and texts, every group and root attribute, a line each.

    An axis is named by the path of its scale, "*" behind it where it is unlimited. Chunks span whole rows. What only a store
    of the layout virtual has comes behind the line ONLY_VIRTUAL, strategies behind ONLY_WITH_CLUSTERS, changes
    behind ONLY_WITH_DRIFT.
    maps: whether what only a store with maps has is listed too.
    """
    filters = ", ".join(name if value is True else f"{name} {value}" for name, value in FILTERS.items())
    lines = [f"schema {SCHEMA_VERSION}", "", "root attributes"]
    lines += sorted(f"    {attribute.name}: {attribute.kind}" for attribute in ROOT_ATTRIBUTES)
    lines += [
        *_listed(present(VARIABLES, maps=maps), filters),
        "",
        ONLY_VIRTUAL,
        *_listed(PARTS.variables, filters),
        "",
        ONLY_WITH_CLUSTERS,
        *_listed(CLUSTERS.variables, filters),
        "",
        ONLY_WITH_DRIFT,
        *_listed(DRIFT.variables, filters),
    ]
    return "\n".join(lines) + "\n"


def _listed(variables: Sequence[Variable], filters: str) -> list[str]:
    lines = list[str]()
    for path, description in sorted(groups_of(variables).items()):
        lines += ["", f"group {path}", f"    description: {description}"]
    for variable in sorted(variables, key=lambda v: v.path):
        scales = ", ".join(f"{scale}*" if scale in ROW_DIMENSIONS else scale for scale in variable.scales)
        lines += [
            "",
            f"dataset {variable.path}",
            f"    {_dtype(variable)} ({scales})" + (", a dimension scale" if variable.is_coordinate else ""),
            f"    chunks: {'rows' if variable.is_per_row else 'one'}; filters: {filters}",
            *(f"    {name}: {text}" for name, text in variable.about(SCHEMA_VERSION).items()),
        ]
    return lines


def in_document(document: str, tables: str) -> str:
    """The document with `tables` between its two markers. Raises ValueError if it does not have both, in order."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected the markers {BEGIN!r} and {END!r}, one after the other; write them where tables go")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def write_documents(paths: Sequence[Path]) -> None:
    """Bring files up to the schema: Markdown between its markers, any other as the full listing."""
    for path in paths:
        is_markdown = path.suffix == ".md"
        text = in_document(path.read_text(encoding="utf-8"), schema_tables()) if is_markdown else full_listing()
        path.write_text(text, encoding="utf-8")


def _dtype(variable: Variable) -> str:
    return f"{TEXT} text" if variable.dtype == TEXT else variable.dtype


def _since(description: str, since: int) -> str:
    return description if since == 1 else f"{description} Since schema {since}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    write_documents([Path(name) for name in sys.argv[1:]])
