"""Sealing: the parts of a night become one store, and nobody ever sees half of it.

Order: parts are checked to be each row once; the store is filled under `<name>.partial` with complete = 0; it is flushed
to the disk; complete becomes 1; the checksum file is written beside it; the store is made read-only and gets its name.
How it is filled: filling.py.

With the layout `virtual` (see storage.read.parts.linked_parts) the large variables stay in the parts, which are linked into a
folder beside the store: under `<stem>.parts.partial` first, where each chunk's checksum is compared, as if it was copied,
and each file's sha256 is taken; then under its name; after that the store gets its own. What a killed seal left is cleared
by the next.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from storage.file.disk.durable import make_folder, replacing
from storage.file.layout import fixed_texts, to_json
from storage.file.schema import (
    ROOT_ATTRIBUTES,
    SCHEMA_VERSION,
)
from storage.read.parts.linked_parts import LinkedPart
from storage.write.filling import NO_TABLES, check_parts, fill_store
from storage.write.part_links import clear_parts, link_parts, name_parts
from storage.write.table_arrays import checked_tables

__all__ = ["Layout", "SealSummary", "seal_store"]

Layout = Literal["single", "virtual"]


@dataclass(frozen=True)
class SealSummary:
    """What was sealed. bytes: size of the file, and of its parts; seconds: the time it took; sha256: of the file.

    n_copied: parts of a virtual store that could not be linked, and so take their size a second time.
    """

    path: Path
    rows: int
    bytes: int
    seconds: float
    sha256: str
    n_copied: int = 0


def seal_store(
    path: Path,
    parts: Sequence[Path],
    *,
    class_names: Sequence[str],
    attributes: Mapping[str, object],
    expected_rows: tuple[int, int] | None = None,
    layout: Layout = "single",
    tables: Mapping[str, ArrayLike] = NO_TABLES,
) -> SealSummary:
    """Join parts into the store `path`, read-only, with its checksum file `<path>.sha256` beside it.

    parts: in any order; together each row from the first to the last exactly once, of one digest and one image shape.
    class_names: the name of each class, in the order of the model's outputs.
    attributes: all of the schema's root attributes that are `given`; texts, JSON-like values for configuration and
        software, or integers. For a text, None is written as the empty text.
    expected_rows: (start, stop) the store must hold. Without it a missing first or last part cannot be noticed.
    layout: "single" copies all rows into the file; "virtual" leaves images, attributions and maps in the parts, which are
        linked into the folder `<stem>.parts` beside it, and read-only from then on.
    tables: what was found when all rows were looked at, by path, as of `checked_tables`.
    Raises StoreIncomplete naming missing or repeated rows, StoreFormatError for parts that do not belong together,
    another StoreError for a damaged part, ValueError for bad names or attributes, and FileExistsError if `path` is there:
    a sealed store is never replaced. On any error nothing is left but the parts, of which no byte is ever changed.
    """
    began = time.perf_counter()
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is sealed already and is never replaced; seal into the folder of a new night")
    summaries = check_parts(parts, expected_rows)
    about = _checked_attributes(attributes, summaries[0].digest)
    names, sizes = fixed_texts(class_names), summaries[0].sizes
    if len(class_names) != sizes["class"]:
        raise ValueError(f"expected {sizes['class']} class names, got {len(class_names)}")
    added = checked_tables(tables, summaries[-1].stop - summaries[0].start, sizes["class"])
    make_folder(path.parent)
    partial, checksum_file = (path.with_name(path.name + suffix) for suffix in (".partial", ".sha256"))
    linked, n_copied = list[LinkedPart](), 0
    try:
        if layout == "virtual":
            summaries, linked, n_copied = link_parts(path, summaries)
        with replacing(path, temporary=partial, mode=0o444):
            partial.unlink(missing_ok=True)
            fill_store(partial, summaries, sizes, names, about, linked, added)
            if linked:
                name_parts(path)
            sha256 = _write_checksum(checksum_file, partial, path.name, linked)
    except BaseException:
        if not path.exists():
            checksum_file.unlink(missing_ok=True)
            if layout == "virtual":
                clear_parts(path)
        raise
    n_bytes = path.stat().st_size + sum(part.bytes for part in linked)
    rows = summaries[-1].stop - summaries[0].start
    return SealSummary(path, rows, n_bytes, time.perf_counter() - began, sha256, n_copied)


def _checked_attributes(attributes: Mapping[str, object], digest: str) -> dict[str, object]:
    """The root attributes of the sealed store, complete as 0."""
    given = {attribute.name for attribute in ROOT_ATTRIBUTES if attribute.given}
    missing, unknown = sorted(given - attributes.keys()), sorted(attributes.keys() - given)
    if missing or unknown:
        raise ValueError(f"expected the root attributes of the schema; missing: {missing}, unknown: {unknown}")
    title = f"nightlens attributions of {attributes['dataset_name']}, {attributes['dataset_split']} split"
    values = {name: _attribute_value(name, attributes[name]) for name in attributes}
    return {"schema": SCHEMA_VERSION, "complete": 0, "title": title, "digest": digest, **values}


def _attribute_value(name: str, value: object) -> str | int:
    kind = next(attribute.kind for attribute in ROOT_ATTRIBUTES if attribute.name == name)
    if kind == "json":
        return to_json(value)
    if kind == "integer":
        if isinstance(value, int):
            return value
        raise ValueError(f"attribute {name}: expected an integer, got {value!r}")
    if value is None or isinstance(value, str):
        return value or ""
    raise ValueError(f"attribute {name}: expected a text, got {value!r}")


def _write_checksum(checksum_file: Path, partial: Path, name: str, linked: Sequence[LinkedPart] = ()) -> str:
    """Write the checksums of the store that is about to be called `name`, and of its parts, as sha256sum does.

    Returns the store's.
    """
    with partial.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    lines = [f"{sha256}  {name}\n", *(f"{part.sha256}  {part.name}\n" for part in linked)]
    with replacing(checksum_file) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return sha256
