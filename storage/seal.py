"""Sealing: the parts of a night become one store, and nobody ever sees half of it.

Order: parts are checked to be each row once; the store is filled under `<name>.partial` with complete = 0; it is flushed
to the disk; complete becomes 1; the checksum file is written beside it; the store is made read-only and gets its name.
Large variables move as compressed chunks, without recompression, but every chunk is unpacked once on the way, so that a
part that was damaged after it was checked cannot be sealed. One part is open at a time: memory does not grow with rows.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from storage import reading
from storage.durable import make_folder, replacing, sync
from storage.errors import StoreFormatError, StoreIncomplete, name_rows
from storage.layout import create_reserved, fixed_texts, index_coordinates, lay_out, to_json, write_attributes
from storage.part import PartSummary, check_rows, read_part_summary, summarise
from storage.schema import PREDICTED_ROWS, ROOT_ATTRIBUTES, SCHEMA_VERSION, VARIABLES, Variable, copied_raw

# A store is no larger than its parts together, but for texts, class names and unfinished chunks.
SLACK_BYTES = 4 << 20
ROW_VARIABLES = tuple(variable for variable in VARIABLES if variable.is_per_row)


@dataclass(frozen=True)
class SealSummary:
    """What was sealed. bytes: size of the file; seconds: the time it took; sha256: as in the checksum file."""

    path: Path
    rows: int
    bytes: int
    seconds: float
    sha256: str


def seal_store(
    path: Path,
    parts: Sequence[Path],
    *,
    class_names: Sequence[str],
    attributes: Mapping[str, object],
    expected_rows: tuple[int, int] | None = None,
) -> SealSummary:
    """Join parts into the store `path`, read-only, with its checksum file `<path>.sha256` beside it.

    parts: in any order; together each row from the first to the last exactly once, of one digest and one image shape.
    class_names: the name of each class, in the order of the model's outputs.
    attributes: all of the schema's root attributes that are `given`; texts, JSON-like values for configuration and
        software, or integers. For a text, None is written as the empty text.
    expected_rows: (start, stop) the store must hold. Without it a missing first or last part cannot be noticed.
    Raises StoreIncomplete naming missing or repeated rows, StoreFormatError for parts that do not belong together,
    another StoreError for a damaged part, ValueError for bad names or attributes, and FileExistsError if `path` is there:
    a sealed store is never replaced. On any error nothing is left but the parts, which are never touched.
    """
    began = time.perf_counter()
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is sealed already and is never replaced; seal into the folder of a new night")
    summaries = _checked_parts(parts, expected_rows)
    about = _checked_attributes(attributes, summaries[0].digest)
    names = fixed_texts(class_names)
    if len(class_names) != summaries[0].sizes["class"]:
        raise ValueError(f"expected {summaries[0].sizes['class']} class names, got {len(class_names)}")
    make_folder(path.parent)
    partial, checksum_file = (path.with_name(path.name + suffix) for suffix in (".partial", ".sha256"))
    try:
        with replacing(path, temporary=partial, mode=0o444):
            partial.unlink(missing_ok=True)
            _fill(partial, summaries, names, about)
            sha256 = _write_checksum(checksum_file, partial, path.name)
    except BaseException:
        if not path.exists():
            checksum_file.unlink(missing_ok=True)
        raise
    rows = summaries[-1].stop - summaries[0].start
    return SealSummary(path, rows, path.stat().st_size, time.perf_counter() - began, sha256)


def _checked_parts(paths: Sequence[Path], expected_rows: tuple[int, int] | None) -> list[PartSummary]:
    """The parts in the order of their rows, once it is sure that they fit together."""
    summaries = sorted((read_part_summary(Path(path)) for path in paths), key=lambda part: (part.start, part.stop))
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


def _check_belongs(part: PartSummary, first: PartSummary) -> None:
    """Same digest, part_rows and sizes, but for the sizes that count rows."""
    ragged = {"row", *PREDICTED_ROWS}
    for what, expected, came in (
        ("digest", first.digest, part.digest),
        ("part_rows", first.part_rows, part.part_rows),
        *((path, size, part.sizes[path]) for path, size in first.sizes.items() if path not in ragged),
    ):
        if expected != came:
            reason = f"expected {what} {expected}, as in {first.path.name}, got {came}"
            raise StoreFormatError(f"{part.path}: {reason}; parts of different nights are never mixed")


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


def _fill(partial: Path, parts: Sequence[PartSummary], names: np.ndarray, about: Mapping[str, object]) -> None:
    """Write the whole store, to the disk, and only then mark it complete."""
    start, part_rows = parts[0].start, parts[0].part_rows
    sizes = dict(parts[0].sizes) | {path: sum(part.sizes[path] for part in parts) for path in ("row", *PREDICTED_ROWS)}
    with create_reserved(partial, sum(part.path.stat().st_size for part in parts) + SLACK_BYTES) as file:
        write_attributes(file, about)
        lay_out(file, VARIABLES, sizes, part_rows=part_rows, class_name_dtype=names.dtype)
        index_coordinates(file, VARIABLES)
        file["class_name"][...] = names
        filled = dict.fromkeys(PREDICTED_ROWS, 0)
        # Datasets stay open over all parts: closing one would compress its unfinished last chunk again each time.
        targets = {variable: file[variable.path] for variable in ROW_VARIABLES}
        for part in parts:
            offsets = {"row": part.start - start, **filled}
            with reading.open_file(part.path) as source:
                _check_unchanged(summarise(source, part.path), part)
                check_rows(source, part)
                for variable, target in targets.items():
                    _append(source[variable.path], target, offsets[variable.scales[0]], part_rows, variable)
            filled = {path: filled[path] + part.sizes[path] for path in filled}
        file.flush()
        sync(partial)
        file.attrs.modify("complete", np.int64(1))


def _check_unchanged(now: PartSummary, before: PartSummary) -> None:
    if now != before:
        raise StoreFormatError(f"{now.path}: the part was replaced while it was being sealed; seal again")


def _append(source: h5py.Dataset, target: h5py.Dataset, offset: int, part_rows: int, variable: Variable) -> None:
    """Put all rows of `source` into `target` from position `offset` on."""
    if not copied_raw(variable, source.shape[1:], part_rows):
        target[offset : offset + len(source)] = source[...]
        return
    if source.chunks != target.chunks:
        raise StoreFormatError(
            f"{source.file.filename}: expected chunks {target.chunks} of {variable.path}, got {source.chunks}"
        )
    for index in range(source.id.get_num_chunks()):
        first, *rest = source.id.get_chunk_info(index).chunk_offset
        filter_mask, packed = source.id.read_direct_chunk((first, *rest))
        target.id.write_direct_chunk((offset + first, *rest), packed, filter_mask)


def _write_checksum(checksum_file: Path, partial: Path, name: str) -> str:
    """Write the checksum of the store that is about to be called `name`, as sha256sum does; returns the checksum."""
    with partial.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    with replacing(checksum_file) as temporary:
        temporary.write_text(f"{sha256}  {name}\n", encoding="utf-8")
    return sha256
