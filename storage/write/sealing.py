"""Sealing: the parts of a night become one store, and nobody ever sees half of it.

Order: parts are checked to be each row once; the store is filled under `<name>.partial` with complete = 0; it is flushed
to the disk; complete becomes 1; the checksum file is written beside it; the store is made read-only and gets its name.
Large variables move as compressed chunks, neither unpacked nor recompressed: write_part unpacked each once, and so did
check_part where a part was reused. What is compared on the way is each chunk's Fletcher-32, which covers the very bytes
that are copied, so that a part that was damaged after it was checked cannot be sealed. What is not copied raw is read by
HDF5, which compares the same checksum. A part is opened twice: for its sizes, because those of all parts say how the store is
laid out, and for its rows. One is open at a time: neither memory nor the number of open files grows with rows.

With the layout `virtual` (see storage.read.linked_parts) the large variables stay in the parts, which are linked into a
folder beside the store: under `<stem>.parts.partial` first, where each chunk's checksum is compared, as if it was copied,
and each file's sha256 is taken; then under its name; after that the store gets its own. What a killed seal left is cleared
by the next.
"""

import hashlib
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from storage.errors import StoreFormatError, StoreIncomplete, name_rows
from storage.file.chunks import n_processors, put_chunk
from storage.file.durable import make_folder, replacing, sync
from storage.file.layout import create_reserved, fixed_texts, index_coordinates, lay_out, to_json, write_attributes
from storage.file.schema import (
    BY_PATH,
    PARTS_GROUP,
    PARTS_TABLE,
    ROOT_ATTRIBUTES,
    SCHEMA_VERSION,
    copied_raw,
    part_variables,
    predicted_scales,
    row_bytes,
    row_scales,
    variables_of,
)
from storage.file.variable import Variable
from storage.read import checked
from storage.read.linked_parts import LinkedPart
from storage.read.part_summary import PartSummary, summarise
from storage.write.chunk_writer import ChunkWriter
from storage.write.part_links import clear_parts, link_parts, name_parts, table_columns, virtual_layouts

__all__ = ["Layout", "SealSummary", "seal_store"]

Layout = Literal["single", "virtual"]
# A store is no larger than its parts together, but for texts, class names and unfinished chunks.
SLACK_BYTES = 4 << 20
# What the mapping of a part takes in a virtual store, at most: a few hundred bytes for each picture variable.
MAPPING_BYTES = 4 << 10
PART_LAYOUT = part_variables()
ROW_SIZES = row_scales(PART_LAYOUT)


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
) -> SealSummary:
    """Join parts into the store `path`, read-only, with its checksum file `<path>.sha256` beside it.

    parts: in any order; together each row from the first to the last exactly once, of one digest and one image shape.
    class_names: the name of each class, in the order of the model's outputs.
    attributes: all of the schema's root attributes that are `given`; texts, JSON-like values for configuration and
        software, or integers. For a text, None is written as the empty text.
    expected_rows: (start, stop) the store must hold. Without it a missing first or last part cannot be noticed.
    layout: "single" copies all rows into the file; "virtual" leaves images, attributions and maps in the parts, which are
        linked into the folder `<stem>.parts` beside it, and read-only from then on.
    Raises StoreIncomplete naming missing or repeated rows, StoreFormatError for parts that do not belong together,
    another StoreError for a damaged part, ValueError for bad names or attributes, and FileExistsError if `path` is there:
    a sealed store is never replaced. On any error nothing is left but the parts, of which no byte is ever changed.
    """
    began = time.perf_counter()
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is sealed already and is never replaced; seal into the folder of a new night")
    summaries = _checked_parts(parts, expected_rows)
    about = _checked_attributes(attributes, summaries[0].digest)
    names, sizes = fixed_texts(class_names), summaries[0].sizes
    if len(class_names) != sizes["class"]:
        raise ValueError(f"expected {sizes['class']} class names, got {len(class_names)}")
    make_folder(path.parent)
    partial, checksum_file = (path.with_name(path.name + suffix) for suffix in (".partial", ".sha256"))
    linked, n_copied = list[LinkedPart](), 0
    try:
        if layout == "virtual":
            summaries, linked, n_copied = link_parts(path, summaries)
        with replacing(path, temporary=partial, mode=0o444):
            partial.unlink(missing_ok=True)
            _fill(partial, summaries, sizes, names, about, linked)
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


def _checked_parts(paths: Sequence[Path], expected_rows: tuple[int, int] | None) -> list[PartSummary]:
    """The parts in the order of their rows, once it is sure that they fit together."""
    summaries = sorted((_size_summary(Path(path)) for path in paths), key=lambda part: (part.start, part.stop))
    if not summaries:
        raise StoreIncomplete("expected the parts of a night, got none; compute them first")
    first, last = summaries[0], summaries[-1]
    for part in summaries:
        _check_belongs(part, first)
    start, stop = expected_rows or (first.start, last.stop)
    there, times = np.unique(np.concatenate([np.arange(p.start, p.stop) for p in summaries]), return_counts=True)
    for rows, wrong in (
        (np.setdiff1d(np.arange(start, stop), there), "missing; compute their parts"),
        (there[times > 1], "there more than once; leave out a part"),
        (there[(there < start) | (there >= stop)], "not among them; leave out their parts"),
    ):
        if len(rows):
            expected = f"{first.path.parent}: expected each of the rows {start}-{stop - 1} once"
            raise StoreIncomplete(f"{expected}; the rows {name_rows(rows)} are {wrong}")
    for part in summaries[:-1]:
        if part.stop - part.start != part.part_rows:
            expected = f"{part.part_rows} rows in every part but the last"
            raise StoreFormatError(f"{part.path}: expected {expected}, got {part.stop - part.start}; compute it again")
    return summaries


def _size_summary(path: Path) -> PartSummary:
    """What a part says of its sizes; its other datasets are looked at when they are copied."""
    with checked.open_file(path) as file:
        return summarise(file, path, lambda variable: variable.is_coordinate)


def _check_belongs(part: PartSummary, first: PartSummary) -> None:
    """Same digest and part_rows, maps in both or in neither, and the same sizes but for those of rows."""
    for what, expected, came in (
        ("digest", first.digest, part.digest),
        ("part_rows", first.part_rows, part.part_rows),
        ("maps", *("of every row" if each.maps else "of no row" for each in (first, part))),
    ):
        _check_same(part.path, what, expected, came, f"as in {first.path.name}")
    for path, size in first.sizes.items():
        if path not in ROW_SIZES:
            _check_same(part.path, path, size, part.sizes[path], "as in the first part")


def _check_same(path: Path, what: str, expected: object, came: object, where: str) -> None:
    if expected != came:
        reason = f"expected {what} {expected}, {where}, got {came}"
        raise StoreFormatError(f"{path}: {reason}; parts of different nights are never mixed")


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


def _fill(
    partial: Path,
    parts: Sequence[PartSummary],
    sizes: Mapping[str, int],
    names: np.ndarray,
    about: Mapping[str, object],
    linked: Sequence[LinkedPart],
) -> None:
    """Write the whole store, to the disk, and only then mark it complete. sizes: those of the first part.

    linked: the parts as they are called in a virtual store, none for a single file.
    """
    whole = dict(sizes) | {path: sum(part.sizes[path] for part in parts) for path in ROW_SIZES if path in sizes}
    stored = variables_of(SCHEMA_VERSION, maps=parts[0].maps)
    table = table_columns(linked) if linked else {}
    virtual = virtual_layouts([part.name for part in linked], parts, whole) if linked else {}
    variables = (*stored, *PARTS_TABLE) if linked else stored
    texts = {"class_name": names.dtype} | {path: column.dtype for path, column in table.items()}
    with create_reserved(partial, _bytes_needed(parts, whole, linked)) as file:
        write_attributes(file, about)
        lay_out(
            file,
            variables,
            whole | {f"{PARTS_GROUP}/part": len(linked)},
            part_rows=parts[0].part_rows,
            text_dtypes=texts,
            virtual=virtual,
        )
        index_coordinates(file, variables)
        for path, column in {"class_name": names, **table}.items():
            file[path][...] = column
        with ThreadPoolExecutor(n_processors()) as packers:
            targets = _targets(file, sizes, parts[0], packers, without=virtual)
            for part in parts:
                with checked.open_file(part.path) as source:
                    _append_part(source, part, targets, part.start - parts[0].start, virtual)
            for target in targets.values():
                if isinstance(target, ChunkWriter):
                    target.finish()
        file.flush()
        sync(partial)
        file.attrs.modify("complete", np.int64(1))


def _bytes_needed(parts: Sequence[PartSummary], whole: Mapping[str, int], linked: Sequence[LinkedPart]) -> int:
    """At most. whole: the sizes of the store."""
    if not linked:
        return sum(part.path.stat().st_size for part in parts) + SLACK_BYTES
    small = (v for v in _row_variables(parts[0]) if not v.holds_pictures)
    shapes = {variable: tuple(whole[scale] for scale in variable.scales) for variable in small}
    values = sum(shape[0] * row_bytes(variable, shape[1:]) for variable, shape in shapes.items())
    return values + len(linked) * MAPPING_BYTES + SLACK_BYTES


def _targets(
    file: h5py.File, sizes: Mapping[str, int], first: PartSummary, packers: Executor, *, without: Container[str]
) -> dict[Variable, h5py.Dataset | ChunkWriter]:
    """Where the rows of each variable go: the dataset itself, if its chunks are copied raw, or a writer of new chunks.

    first: the first part. without: the paths of the variables that stay in the parts.
    """
    targets: dict[Variable, h5py.Dataset | ChunkWriter] = {}
    for variable in _row_variables(first):
        if variable.path in without:
            continue
        dataset, row_shape = file[variable.path], tuple(sizes[scale] for scale in variable.scales[1:])
        raw = copied_raw(variable, row_shape, first.part_rows)
        targets[variable] = dataset if raw else ChunkWriter(dataset, packers)
    return targets


def _row_variables(part: PartSummary) -> tuple[Variable, ...]:
    """What of a part has rows, and so is put behind the rows of the parts before."""
    return tuple(variable for variable in part.variables if variable.is_per_row)


def _append_part(
    file: h5py.File,
    part: PartSummary,
    targets: Mapping[Variable, h5py.Dataset | ChunkWriter],
    offset: int,
    left: Iterable[str],
) -> None:
    """Put all rows of a part behind those that are there. offset: of the first row.

    left: the paths of the variables that stay in the part; their checksums are compared all the same.
    """
    datasets = checked.open_datasets(file, part.path, PART_LAYOUT)
    now = summarise(file, part.path, datasets=datasets)
    if now != part:
        raise StoreFormatError(f"{part.path}: the part was replaced while it was being sealed; seal again")
    numbers: dict[str, Sequence[int]] = {"row": range(part.start, part.stop)}
    for path in predicted_scales(PART_LAYOUT):
        numbers[path] = checked.read_whole(datasets[path], range(now.sizes[path])).tolist()
    for variable, target in targets.items():
        source, rows = datasets[variable.path], numbers[variable.scales[0]]
        if isinstance(target, ChunkWriter):
            target.append(checked.read_whole(source, rows))
        else:
            _copy_chunks(source, target, offset, rows)
    for path in left:
        for _ in checked.checked_chunks(datasets[path], numbers[BY_PATH[path].scales[0]]):
            pass


def _copy_chunks(source: h5py.Dataset, target: h5py.Dataset, offset: int, numbers: Sequence[int]) -> None:
    """Copy all chunks of `source`, packed as they are, once their checksums are compared. offset: of the first row."""
    if source.chunks != target.chunks:
        expected = f"expected {source.name} in chunks {target.chunks}"
        raise StoreFormatError(f"{source.file.filename}: {expected}, got {source.chunks}; compute it again")
    for first, filter_mask, packed in checked.checked_chunks(source, numbers):
        put_chunk(target, offset + first, packed, filter_mask)


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
