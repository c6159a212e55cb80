"""A part: one HDF5 file with the rows [start, stop) of a night, so that a crash loses no more than one.

A part follows the schema of the sealed store, without class names; it has maps if the night has. Its name says its
rows; its attribute `digest` of which dataset, model and explanation configuration it is, so that a rerun takes over
what is whole and belongs to it.
Under its final name a part is complete; a killed writer leaves at most a `*.tmp` beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from storage.errors import StoreError, StoreIncomplete
from storage.file.layout import read_attributes
from storage.file.schema import SCHEMA_VERSION, part_variables, row_scales
from storage.file.variable import Variable
from storage.read import checked

PART_ATTRIBUTES = ("complete", "digest", "start", "stop", "part_rows")


@dataclass(frozen=True)
class PartSummary:
    """What a part says of itself. sizes: the length of each dimension, by the path of its coordinate.

    schema: its version. maps: whether its rows have maps.
    """

    path: Path
    start: int
    stop: int
    digest: str
    part_rows: int
    sizes: Mapping[str, int]
    schema: int
    maps: bool

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The datasets that are in it."""
        return part_variables(self.schema, maps=self.maps)


def part_path(folder: Path, start: int, stop: int) -> Path:
    """The file of the rows [start, stop), e.g. rows-000000-000256.h5."""
    return Path(folder) / f"rows-{start:06d}-{stop:06d}.h5"


def read_part_summary(path: Path) -> PartSummary:
    """Range, digest and sizes of a part, without reading its rows. Raises a StoreError for what is no whole part."""
    with checked.open_file(path) as file:
        return summarise(file, path)


def summarise(
    file: h5py.File,
    path: Path,
    looked_at: Callable[[Variable], bool] = lambda variable: True,
    datasets: Mapping[str, h5py.Dataset | None] | None = None,
    *,
    oldest: int = SCHEMA_VERSION,
) -> PartSummary:
    """The same of an open file.

    looked_at: which datasets are checked, and their sizes returned; the coordinates of rows always are.
    datasets: the file's, where they are open.
    oldest: the first schema version that is taken; a part that is to be sealed is of this one.
    """
    with checked.named_damage(path, "the root attributes"):
        attributes = read_attributes(file)
    schema = checked.check_header(path, attributes, PART_ATTRIBUTES, "a part", oldest=oldest)
    maps = checked.has_maps(file, path, schema)
    variables = part_variables(schema, maps=maps)
    rows = row_scales(variables)
    chosen = [variable for variable in variables if variable.path in rows or looked_at(variable)]
    sizes = checked.check_datasets(file if datasets is None else datasets, path, chosen)
    with checked.named_damage(path, "the root attributes"):
        start, stop, part_rows = (int(str(attributes[name])) for name in ("start", "stop", "part_rows"))
    if sizes["row"] != stop - start:
        raise StoreIncomplete(
            f"{path}: expected the rows {start}-{stop - 1}, got {sizes['row']} rows; compute it again"
        )
    return PartSummary(path, start, stop, str(attributes["digest"]), part_rows, sizes, schema, maps)


def check_rows(file: h5py.File, summary: PartSummary) -> None:
    """Compare every checksum of a part. Raises StoreCorrupt naming the dataset and rows that are damaged."""
    for variable in summary.variables:
        with checked.named_damage(summary.path, variable.path):
            dataset = file[variable.path]
        checked.check_chunks(dataset, row_numbers(file, summary, variable))


def row_numbers(file: h5py.File, summary: PartSummary, variable: Variable) -> Sequence[int]:
    """The row number of each position of a variable's first axis, for messages; the position itself if it has none."""
    if variable.is_ragged and not variable.is_coordinate:
        with checked.named_damage(summary.path, variable.scales[0]):
            return file[variable.scales[0]][:].tolist()
    return (
        range(summary.start, summary.stop) if variable.scales[0] == "row" else range(summary.sizes[variable.scales[0]])
    )


def check_part(path: Path, *, digest: str, start: int, stop: int) -> str | None:
    """None if the file is a whole, undamaged part of these rows and this digest; otherwise the reason why not.

    Reads everything, so that every checksum is compared. A damaged, truncated, foreign or missing file is a reason, too.
    """
    try:
        with checked.open_file(path) as file:
            summary = summarise(file, path)
            if summary.digest != digest:
                return f"{path}: expected the digest {digest}, got {summary.digest}: it is of another configuration"
            if (summary.start, summary.stop) != (start, stop):
                return f"{path}: expected the rows {start}-{stop - 1}, got {summary.start}-{summary.stop - 1}"
            check_rows(file, summary)
    except StoreError as error:
        return str(error)
    return None
