"""The layout `virtual`: a sealed store whose pictures stay in the files of the parts, beside it.

For nights whose copy is the wrong shape: one file of tens of gigabytes, written a second time at seal, and moved as one.
In the night's folder there are then

    attributions.h5            all that is a few numbers a row, copied as ever, and the table of the parts
    attributions.parts/        rows-000000-000064.h5 ...: images, attributions and maps, one file for each part
    attributions.h5.sha256     the checksums of all of them; `sha256sum -c` reads it

Which variables: those whose row is a picture (Variable.holds_pictures), those of the misclassified rows among them. That is
decided by the schema and not by size, so that the same rows make the same kind of file at any size. They are HDF5 virtual
datasets over the parts, by relative name: h5py, xarray, h5dump and netCDF read them as any other, and the folder can be
moved or copied as a whole. Their `row` axis is not unlimited as that of the others is; a sealed store never grows.

The parts are hard links to those under <root>/parts: no byte is written twice, and no clean-up of <root>/parts can take one
away. That is safe because no part is ever written in place: what computes one anew writes another file and renames it,
which leaves the linked one alone; the links are read-only, against others' programs. Where no link is possible (another file
system, or one without links) the part is copied, and the summary of the seal says how many were.

The trap: HDF5 reads a part that is missing as fill values, without an error. For HDF5 alone, floating-point pictures are
NaN there, which no one takes for an attribution; an image has no such value. So nothing of ours reads through the virtual
datasets. The reader and `verify` have the table of the parts (rows, size and sha256 of each), open the files themselves and
compare each chunk's Fletcher-32 as in a single file. A part that is missing or of another size is an error when the store
is opened; one that says it is of other rows or another digest, when it is first read; one whose bytes were replaced by
others that are whole in themselves, when `verify` compares the sha256. At an address, where each question is a request, all
of that waits for the first read of the part.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreCorrupt, StoreFormatError, StoreIncomplete, name_rows
from storage.file.added_tables import PARTS
from storage.file.catalog import SAFE_NAME
from storage.file.layout import read_texts
from storage.file.schema import PICTURES
from storage.read import checked
from storage.read.parts.part_summary import part_path

__all__ = [
    "LinkedPart",
    "check_size",
    "check_there",
    "offsets_of",
    "parts_folder",
    "read_table",
    "wrong_mappings",
]

PART_NAME = re.compile(r"([^/]+)/(rows-(\d{6,})-(\d{6,})\.h5)")
COPY = "copy the store's folder as a whole, or restore the file"


@dataclass(frozen=True)
class LinkedPart:
    """A line of the table: a part as it was when it was sealed. name: of its file, as seen from the store's folder."""

    name: str
    start: int
    stop: int
    bytes: int
    sha256: str

    @property
    def rows(self) -> range:
        return range(self.start, self.stop)

    def __str__(self) -> str:
        return f"part {self.name}, rows {name_rows(self.rows)}"


def parts_folder(store: Path) -> Path:
    """The folder of a store's parts: attributions.parts for attributions.h5. Raises ValueError for a name unfit for it."""
    if not SAFE_NAME.fullmatch(store.stem):
        raise ValueError(f"expected a store's name of letters, digits, '.', '_' and '-', got {store.name!r}")
    return store.with_suffix(".parts")


def read_table(file: h5py.File, path: Path | str) -> tuple[LinkedPart, ...]:
    """The parts of a store, in the order of their rows; () for one whose pictures are in the file itself.

    Raises StoreFormatError for a table that is incomplete, or names what is no part beside the store; StoreCorrupt where
    it cannot be read, or the parts do not follow each other.
    """
    with checked.named_damage(path, PARTS.group):
        if PARTS.group not in file:
            return _none_needed(file, path)
    checked.check_datasets(file, path, PARTS.variables)
    columns = {v.path: checked.read_whole(file[v.path], range(len(file[v.path]))) for v in PARTS.variables}
    with checked.named_damage(path, PARTS.group):
        names, sums = (read_texts(columns[f"{PARTS.group}/{name}"]) for name in ("name", "sha256"))
    starts, stops, sizes = (columns[f"{PARTS.group}/{name}"].tolist() for name in ("start", "stop", "bytes"))
    parts = tuple(map(LinkedPart, names, starts, stops, sizes, sums))
    _check_table(parts, path)
    return parts


def _none_needed(file: h5py.File, path: Path | str) -> tuple[LinkedPart, ...]:
    for variable in PICTURES:
        node = file.get(variable.path)
        if isinstance(node, h5py.Dataset) and node.is_virtual:
            raise StoreFormatError(
                f"{path}: {variable.path} is in other files, and the table {PARTS.group} of them is missing; "
                f"{checked.RESTORE}"
            )
    return ()


def _check_table(parts: Sequence[LinkedPart], path: Path | str) -> None:
    if not parts:
        raise StoreFormatError(f"{path}: the table {PARTS.group} names no part; {checked.RESTORE}")
    for part in parts:
        named = PART_NAME.fullmatch(part.name)
        # Nothing in a file leads a reader out of its folder.
        if not named or named[1] == ".." or (int(named[3]), int(named[4])) != (part.start, part.stop):
            expected = f"a file FOLDER/{part_path(Path(), part.start, part.stop).name} beside the store"
            raise StoreFormatError(f"{path}: {PARTS.group}/name: expected {expected}, got {part.name!r}")
    for part, following in zip(parts, parts[1:], strict=False):
        if not part.start < part.stop == following.start:
            raise StoreCorrupt(f"{path}: {following} does not follow {part}; {checked.RESTORE}")


def check_there(parts: Iterable[LinkedPart], path: Path) -> None:
    """Raises StoreIncomplete naming parts that are missing, and their rows, StoreCorrupt for one of another size."""
    missing = [part for part in parts if not (path.parent / part.name).is_file()]
    if missing:
        rows = name_rows(row for part in missing for row in part.rows)
        those = f"part {missing[0].name}" + (f" and {len(missing) - 1} more parts" if len(missing) > 1 else "")
        verb = "are" if len(missing) > 1 else "is"
        raise StoreIncomplete(f"{path}: the {those}, rows {rows}, {verb} missing; {COPY}")
    for part in parts:
        check_size(part, (path.parent / part.name).stat().st_size, path)


def check_size(part: LinkedPart, n_bytes: int, path: Path | str) -> None:
    """Raises StoreCorrupt if the file of a part is not as large as it was."""
    if n_bytes != part.bytes:
        came = f"expected {part.bytes} bytes, got {n_bytes}: it is truncated or was replaced"
        raise StoreCorrupt(f"{path}: the {part}: {came}; {COPY}")


def offsets_of(parts: Sequence[LinkedPart], numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each part begins along an axis of rows, and where the last one ends: (part + 1,).

    numbers: the row number of each position of that axis, ascending.
    """
    return np.searchsorted(numbers, [parts[0].start, *(part.stop for part in parts)])


def wrong_mappings(dataset: h5py.Dataset, parts: Sequence[LinkedPart], offsets: NDArray[np.int64]) -> list[str]:
    """Where a virtual dataset does not say what the table says, in words: programs that read by HDF5 alone go by it."""
    expected = [
        (part.name, str(dataset.name).lstrip("/"), (int(first), int(last) - 1))
        for part, first, last in zip(parts, offsets, offsets[1:], strict=False)
        if last > first
    ]
    said = sorted(
        (
            (source.file_name, source.dset_name.lstrip("/"), _rows_of(source.vspace))
            for source in dataset.virtual_sources()
        ),
        key=lambda mapped: mapped[2],
    )
    return [
        f"expected positions {e[2][0]}-{e[2][1]} from {e[1]} in {e[0]}, got {s[2][0]}-{s[2][1]} from {s[1]} in {s[0]}"
        for e, s in zip(expected, said, strict=False)
        if e != s
    ] + ([f"expected {len(expected)} mapped parts, got {len(said)}"] if len(expected) != len(said) else [])


def _rows_of(space: h5py.h5s.SpaceID) -> tuple[int, int]:
    first, last = space.get_select_bounds()
    whole = space.get_select_npoints() == np.prod([b - a + 1 for a, b in zip(first, last, strict=True)])
    return (int(first[0]), int(last[0])) if whole and not any(first[1:]) else (-1, -1)
