"""Whether a file is what the schema says: names, dtypes, axes, scales, texts, filters, attributes, and nothing beyond.

The structure only: no row is read here.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import h5py

from storage.check.findings import Finding, noted
from storage.file.added_tables import PARTS
from storage.file.layout import FILTERS, read_attributes
from storage.file.schema import LEFT_OUT, attributes_of, groups_of, variables_of
from storage.file.variable import TEXT, Attribute, Variable
from storage.read import checked

__all__ = ["check_structure"]

CHECK = "schema"
# What HDF5's dimension scales and netCDF-4 write for themselves.
FOREIGN_ATTRIBUTES = {
    "CLASS", "NAME", "DIMENSION_LIST", "DIMENSION_LABELS", "REFERENCE_LIST",
    "_NCProperties", "_Netcdf4Coordinates", "_Netcdf4Dimid", "_nc3_strict",
}  # fmt: skip


def check_structure(
    file: h5py.File, path: Path, schema: int, *, is_virtual: bool = False
) -> tuple[list[Finding], list[Variable]]:
    """All findings, and the variables whose values can be read: there, of the right dtype, axes and chunks.

    schema: the version the file says it follows. is_virtual: whether its pictures are in parts, which the file has a table
    of; then chunks and filters are those of the parts.
    """
    findings: list[Finding] = []
    maps = images = True
    with noted(findings, CHECK, path, "the root group"):
        maps = checked.has_maps(file, path, schema)
    with noted(findings, CHECK, path, "the root attributes"):
        images = checked.has_images(read_attributes(file), path)
    with noted(findings, CHECK, path, "the root attributes"):
        findings += _check_root(file, schema)
    findings += _check_layer(file, maps=maps)
    tables = [PARTS] if is_virtual else []
    with noted(findings, CHECK, path, "the root group"):
        tables += checked.tables_in(file, path, schema)
    added = [variable for table in tables for variable in table.variables]
    usable, variables = [], (*variables_of(schema, maps=maps, images=images), *added)
    groups = groups_of(variables)
    sizes = _dimension_sizes(file, path, variables, findings)
    for variable in variables:
        with noted(findings, CHECK, path, variable.path):
            node = file.get(variable.path)
            if not isinstance(node, h5py.Dataset):
                findings.append(Finding(CHECK, variable.path, "the dataset is missing"))
                continue
            elsewhere = is_virtual and variable.holds_pictures and node.is_virtual
            wrong = _check_shape(node, variable, sizes) + ([] if elsewhere else _check_chunks(node))
            usable += [] if wrong else [variable]
            wrong += [] if elsewhere else _check_filters(node)
            findings += [Finding(CHECK, variable.path, detail) for detail in wrong]
        with noted(findings, CHECK, path, f"{variable.path}, its attributes"):
            findings += _check_texts(node, variable.path, variable.about(schema))
        with noted(findings, CHECK, path, f"{variable.path}, its dimension scales"):
            findings += [Finding(CHECK, variable.path, detail) for detail in _check_scales(file, node, variable)]
    for group, description in groups.items():
        with noted(findings, CHECK, path, group):
            if isinstance(file.get(group), h5py.Group):
                findings += _check_texts(file[group], group, {"description": description})
    known = {variable.path for variable in variables} | groups.keys()
    for group in ("", *groups):
        with noted(findings, CHECK, path, group or "the root group"):
            findings += _check_members(file, group, known)
    return findings, usable


def _check_root(file: h5py.File, schema: int) -> list[Finding]:
    there, known = read_attributes(file), {attribute.name: attribute for attribute in attributes_of(schema)}
    missing = [Finding(CHECK, name, "the root attribute is missing") for name in known if name not in there]
    unknown = [
        Finding(CHECK, name, f"a root attribute that schema {schema} does not have")
        for name in there
        if name not in known and name not in FOREIGN_ATTRIBUTES and name != LEFT_OUT
    ]
    kinds = [
        Finding(CHECK, name, f"expected the root attribute to be {known[name].kind}, got {wrong}")
        for name, value in there.items()
        if name in known and (wrong := _wrong_kind(file, known[name], value))
    ]
    return missing + unknown + kinds


def _check_layer(file: h5py.File, *, maps: bool) -> list[Finding]:
    """Whether maps are there if the configuration names their layer, and only then; of others it says nothing."""
    try:
        layer = json.loads(str(read_attributes(file)["configuration"]))["resolved"]["grad_cam_layer"]
    except (*checked.DAMAGE, TypeError):
        return []  # damage is a finding already; another's configuration need not have it
    if bool(layer) == maps:
        return []
    expected = f"maps of the layer {layer!r}" if layer else "no maps"
    came = "maps" if maps else "none"
    return [Finding(CHECK, "maps", f"expected {expected}, as the configuration says, got {came}")]


def _wrong_kind(file: h5py.File, attribute: Attribute, value: object) -> str:
    """What came instead of the attribute's kind; empty where it is right."""
    if attribute.kind == "integer":
        return "" if isinstance(value, int) and not isinstance(value, bool) else repr(value)
    if not isinstance(value, str):
        return repr(value)
    if not _is_fixed_text(file, attribute.name):
        return "a text of variable length, which no checksum guards"
    if attribute.kind == "json":
        try:
            json.loads(value)
        except ValueError as error:
            return f"what is no JSON ({error})"
    return ""


def _is_fixed_text(node: h5py.Group | h5py.Dataset, name: str) -> bool:
    info = h5py.check_string_dtype(node.attrs.get_id(name).dtype)
    return info is not None and info.length is not None


def _check_texts(node: h5py.Group | h5py.Dataset, where: str, expected: Mapping[str, str]) -> list[Finding]:
    there = read_attributes(node)
    found = [
        Finding(CHECK, where, f"expected the attribute {name} to be {text!r}, got {there.get(name)!r}")
        for name, text in expected.items()
        if there.get(name) != text or not _is_fixed_text(node, name)
    ]
    unknown = sorted(there.keys() - expected.keys() - FOREIGN_ATTRIBUTES)
    return found + [Finding(CHECK, where, f"the attribute {name} is not in the schema") for name in unknown]


def _dimension_sizes(
    file: h5py.File, path: Path, variables: tuple[Variable, ...], findings: list[Finding]
) -> dict[str, int]:
    sizes = {}
    for variable in variables:
        if variable.is_coordinate:
            with noted(findings, CHECK, path, variable.path):
                node = file.get(variable.path)
                if isinstance(node, h5py.Dataset) and node.shape is not None and len(node.shape) == 1:
                    sizes[variable.path] = node.shape[0]
    if sizes.get("row") == 0:
        findings.append(Finding(CHECK, "row", "the store has no rows"))
    return sizes


def _check_shape(dataset: h5py.Dataset, variable: Variable, sizes: Mapping[str, int]) -> list[str]:
    wrong = []
    if not checked.is_dtype(dataset.dtype, variable.dtype):
        wrong.append(f"expected the dtype {variable.dtype}, got {dataset.dtype}")
    expected, shape = tuple(sizes.get(scale) for scale in variable.scales), dataset.shape
    agrees = shape is not None and len(shape) == len(expected)
    if not agrees or any(e not in (None, n) for e, n in zip(expected, shape, strict=True)):
        named = ", ".join(f"{d} {'?' if n is None else n}" for d, n in zip(variable.dimensions, expected, strict=True))
        wrong.append(f"expected the axes ({named}), got the shape {shape}")
    return wrong


def _check_chunks(dataset: h5py.Dataset) -> list[str]:
    per_row = () if dataset.shape is None else dataset.shape[1:]
    rows, is_right = ("...", *per_row), dataset.chunks is not None and dataset.chunks[1:] == per_row
    return [] if is_right else [f"expected chunks of whole rows, {rows}, got {dataset.chunks}"]


def _check_filters(dataset: h5py.Dataset) -> list[str]:
    return [
        f"expected the filter {name} = {value}, got {getattr(dataset, name)}"
        for name, value in FILTERS.items()
        if getattr(dataset, name) != value
    ]


def _check_scales(file: h5py.File, dataset: h5py.Dataset, variable: Variable) -> list[str]:
    if variable.is_coordinate:
        name = variable.dimensions[0]
        if not dataset.is_scale:
            return [f"expected a dimension scale called {name}, got none"]
        called = h5py.h5ds.get_scale_name(dataset.id).decode()
        return [] if called == name else [f"expected a dimension scale called {name}, got {called}"]
    # From the attributes: HDF5's own functions for scales end the process where the heap they are in is damaged.
    attached = [[file[reference].name for reference in axis] for axis in dataset.attrs.get("DIMENSION_LIST", [])]
    labels = [_text(label) for label in dataset.attrs.get("DIMENSION_LABELS", [])]
    scales = [[f"/{scale}"] for scale in variable.scales]
    wrong = []
    if attached != scales:
        wrong.append(f"expected the dimension scales {_listed(scales)}, got {_listed(attached) or 'none'}")
    if labels != list(variable.dimensions):
        wrong.append(f"expected the axes to be labelled {', '.join(variable.dimensions)}, got {labels or 'none'}")
    return wrong


def _listed(scales: list[list[str]]) -> str:
    return ", ".join(" and ".join(str(name) for name in axis) or "none" for axis in scales)


def _text(label: object) -> str:
    return label.decode(TEXT, errors="replace") if isinstance(label, bytes) else str(label)


def _check_members(file: h5py.File, group: str, known: set[str]) -> list[Finding]:
    """Findings for what the schema does not know; into a group that is unknown itself nobody looks.

    Where a known member cannot be found the names may be damaged, and HDF5 1.14 ends the process when it lists them.
    """
    node = file.get(group) if group else file
    members = [path for path in known if path.rpartition("/")[0] == group]
    if node is None or any(file.get(member) is None for member in members):
        return []
    found = []
    for name in node:
        path = f"{group}/{name}".lstrip("/")
        if not isinstance(node.get(name, getlink=True), h5py.HardLink):
            found.append(Finding(CHECK, path, "a link to elsewhere; a store holds all it has"))
        elif path not in known:
            kind = "dataset" if isinstance(node[name], h5py.Dataset) else "group"
            found.append(Finding(CHECK, path, f"a {kind} that the schema does not have"))
    return found
