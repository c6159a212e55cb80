"""A store filled from parts, marked complete at the end: by the seal, and as a draft that is never sealed.

Large variables move as compressed chunks, neither unpacked nor recompressed: write_part unpacked each once, and so did
check_part where a part was reused. What is compared on the way is each chunk's Fletcher-32, which covers the very bytes
that are copied, so that a part that was damaged after it was checked cannot be sealed. What is not copied raw is read by
HDF5, which compares the same checksum. A part is opened twice: for its sizes, because those of all parts say how the store is
laid out, and for its rows. One is open at a time: neither memory nor the number of open files grows with rows.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreFormatError, StoreIncomplete, name_rows
from storage.file.added_tables import TABLES
from storage.file.chunks import n_processors, put_chunk
from storage.file.disk.durable import sync
from storage.file.layout import create_reserved, index_coordinates, lay_out, write_attributes
from storage.file.schema import (
    BY_PATH,
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
from storage.read.parts.linked_parts import LinkedPart
from storage.read.parts.part_summary import PartSummary, summarise
from storage.write.chunk_writer import ChunkWriter
from storage.write.part_links import table_columns, virtual_layouts

__all__ = ["NO_TABLES", "check_parts", "fill_store"]

# A store is no larger than its parts together, but for texts, class names and unfinished chunks.
SLACK_BYTES = 4 << 20
# What the mapping of a part takes in a virtual store, at most: a few hundred bytes for each picture variable.
MAPPING_BYTES = 4 << 10
PART_LAYOUT = part_variables()
ROW_SIZES = row_scales(PART_LAYOUT)
NO_TABLES: Mapping[str, NDArray] = {}


def check_parts(paths: Sequence[Path], expected_rows: tuple[int, int] | None) -> list[PartSummary]:
    """The parts in the order of their rows, once it is sure that they fit together.

    expected_rows: (start, stop) that they must be. Raises StoreIncomplete, StoreFormatError.
    """
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


def fill_store(
    partial: Path,
    parts: Sequence[PartSummary],
    sizes: Mapping[str, int],
    names: np.ndarray,
    about: Mapping[str, object],
    linked: Sequence[LinkedPart] = (),
    tables: Mapping[str, NDArray] = NO_TABLES,
) -> None:
    """Write the whole store `partial`, to the disk, and only then mark it complete.

    sizes: those of the first part. names: of the classes. about: the root attributes, complete as 0.
    linked: the parts as they are called in a virtual store, none for a single file. tables: of `checked_tables`.
    """
    whole = dict(sizes) | {path: sum(part.sizes[path] for part in parts) for path in ROW_SIZES if path in sizes}
    stored = variables_of(SCHEMA_VERSION, maps=parts[0].maps)
    table = {**tables, **(table_columns(linked) if linked else {})}
    virtual = virtual_layouts([part.name for part in linked], parts, whole) if linked else {}
    added = [each for each in TABLES if each.variables[-1].path in table]
    variables = (*stored, *(variable for each in added for variable in each.variables))
    texts = {"class_name": names.dtype} | {path: column.dtype for path, column in table.items()}
    with create_reserved(partial, _bytes_needed(parts, whole, linked, table)) as file:
        write_attributes(file, about)
        lay_out(
            file,
            variables,
            whole | _sizes_of(table),
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


def _sizes_of(table: Mapping[str, NDArray]) -> dict[str, int]:
    """The length of each axis that only tables have, by the path of its coordinate."""
    variables = {variable.path: variable for each in TABLES for variable in each.variables}
    return {
        scale: size
        for path, values in table.items()
        for scale, size in zip(variables[path].scales, values.shape, strict=True)
        if scale not in ROW_SIZES
    }


def _bytes_needed(
    parts: Sequence[PartSummary], whole: Mapping[str, int], linked: Sequence[LinkedPart], table: Mapping[str, NDArray]
) -> int:
    """At most. whole: the sizes of the store."""
    beside = SLACK_BYTES + sum(values.nbytes for values in table.values())
    if not linked:
        return sum(part.path.stat().st_size for part in parts) + beside
    small = (v for v in _row_variables(parts[0]) if not v.holds_pictures)
    shapes = {variable: tuple(whole[scale] for scale in variable.scales) for variable in small}
    values = sum(shape[0] * row_bytes(variable, shape[1:]) for variable, shape in shapes.items())
    return values + len(linked) * MAPPING_BYTES + beside


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
