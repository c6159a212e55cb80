"""A part: one HDF5 file with the rows [start, stop) of a night, so that a crash loses no more than one.

A part follows the schema of the sealed store, without class names; it has Grad-CAM if the night has. Its name tells its
rows; its attribute `digest` tells of which dataset, model and explanation configuration it is, so that a rerun takes over
what is whole and belongs to it.
Under its final name a part is complete; a killed writer leaves at most a `*.tmp` beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import h5py
from numpy.typing import ArrayLike, NDArray

from storage import reading
from storage.arrays import checked_arrays, dimension_sizes
from storage.durable import make_folder, replacing
from storage.errors import StoreCorrupt, StoreError, StoreIncomplete
from storage.layout import create_file, index_coordinates, lay_out, read_attributes, write_attributes
from storage.schema import GRAD_CAM, SCHEMA_VERSION, TEXT, VARIABLES, Variable, present

PART_LAYOUT = tuple(variable for variable in VARIABLES if variable.dtype != TEXT)
PART_ATTRIBUTES = ("complete", "digest", "start", "stop", "part_rows")


@dataclass(frozen=True)
class PartSummary:
    """What a part says of itself. sizes: the length of each dimension, by the path of its coordinate."""

    path: Path
    start: int
    stop: int
    digest: str
    part_rows: int
    sizes: Mapping[str, int]

    @property
    def has_grad_cam(self) -> bool:
        """Whether its rows have Grad-CAM maps."""
        return f"{GRAD_CAM}/predicted/row" in self.sizes

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The datasets that are in it."""
        return present(PART_LAYOUT, grad_cam=self.has_grad_cam)


def part_path(folder: Path, start: int, stop: int) -> Path:
    """The file of the rows [start, stop), e.g. rows-000000-000256.h5."""
    return Path(folder) / f"rows-{start:06d}-{stop:06d}.h5"


def write_part(
    path: Path, start: int, stop: int, arrays: Mapping[str, ArrayLike], *, digest: str, part_rows: int
) -> None:
    """Check the arrays of the rows [start, stop) and write them as one part: wholly, or not at all.

    arrays: every row-wise variable of the schema but `row`, by path, in the schema's dtype and axes: "image"
        (row, y, x, channel) ... "integrated_gradients/predicted/row" (misclassified rows) and so on; without Grad-CAM none
        of "grad_cam/...".
    digest: of dataset, model and explanation configuration; only parts of one digest are sealed together.
    part_rows: rows of every part of the night but the last, which may be shorter.
    Raises ValueError naming variable and rows for arrays that must not be stored, StoreCorrupt if what was written does
    not read back, OSError if it cannot be written; then nothing is left behind. An older part is replaced.
    """
    if not stop - start <= part_rows:
        raise ValueError(f"expected at most part_rows={part_rows} rows in a part, got {stop - start}")
    if not digest:
        raise ValueError("expected the digest of dataset, model and explanation configuration, got an empty text")
    checked = checked_arrays(arrays, start, stop)
    about: dict[str, str | int] = {"digest": digest, "start": start, "stop": stop, "part_rows": part_rows}
    make_folder(path.parent)
    with replacing(path) as temporary:
        # In memory first: a full disk is then met by Python, which survives it, and not by HDF5, which does not.
        temporary.write_bytes(_as_hdf5(checked, about))
        if reason := check_part(temporary, digest=digest, start=start, stop=stop):
            raise StoreCorrupt(f"what was written does not read back: {reason}; check the disk")


def _as_hdf5(arrays: Mapping[str, NDArray], about: Mapping[str, str | int]) -> bytes:
    image, sizes = BytesIO(), dimension_sizes(arrays)
    variables = present(PART_LAYOUT, grad_cam="cam_y" in sizes)
    with create_file(image) as file:
        lay_out(file, variables, sizes, part_rows=int(about["part_rows"]))
        index_coordinates(file, variables)
        for name, array in arrays.items():
            file[name][...] = array
        write_attributes(file, {"schema": SCHEMA_VERSION, "complete": 1, **about})
    return image.getvalue()


def read_part_summary(path: Path) -> PartSummary:
    """Range, digest and sizes of a part, without reading its rows. Raises a StoreError for what is no whole part."""
    with reading.open_file(path) as file:
        return summarise(file, path)


def summarise(
    file: h5py.File,
    path: Path,
    variables: Sequence[Variable] = PART_LAYOUT,
    datasets: Mapping[str, h5py.Dataset | None] | None = None,
    *,
    oldest: int = SCHEMA_VERSION,
) -> PartSummary:
    """The same of an open file.

    variables: what is looked at, and whose sizes are told, those of Grad-CAM if the part has it; `row` and the rows of the
        `predicted` groups are among them. datasets: the file's, where they are open.
    oldest: the first schema version that is taken; a part that is to be sealed is of this one.
    """
    with reading.named_damage(path, "the root attributes"):
        attributes = read_attributes(file)
    schema = reading.check_header(path, attributes, PART_ATTRIBUTES, "a part", oldest=oldest)
    variables = present(variables, grad_cam=reading.has_grad_cam(file, path, schema))
    sizes = reading.check_datasets(file if datasets is None else datasets, path, variables)
    with reading.named_damage(path, "the root attributes"):
        start, stop, part_rows = (int(str(attributes[name])) for name in ("start", "stop", "part_rows"))
    if sizes["row"] != stop - start:
        raise StoreIncomplete(
            f"{path}: expected the rows {start}-{stop - 1}, got {sizes['row']} rows; compute it again"
        )
    return PartSummary(path, start, stop, str(attributes["digest"]), part_rows, sizes)


def check_rows(file: h5py.File, summary: PartSummary) -> None:
    """Compare every checksum of a part. Raises StoreCorrupt naming the dataset and rows that are damaged."""
    for variable in summary.variables:
        with reading.named_damage(summary.path, variable.path):
            dataset = file[variable.path]
        reading.check_chunks(dataset, row_numbers(file, summary, variable))


def row_numbers(file: h5py.File, summary: PartSummary, variable: Variable) -> Sequence[int]:
    """The row number of each position of a variable's first axis, for messages; the position itself if it has none."""
    if variable.is_ragged and not variable.is_coordinate:
        with reading.named_damage(summary.path, variable.scales[0]):
            return file[variable.scales[0]][:].tolist()
    return (
        range(summary.start, summary.stop) if variable.scales[0] == "row" else range(summary.sizes[variable.scales[0]])
    )


def check_part(path: Path, *, digest: str, start: int, stop: int) -> str | None:
    """None if the file is a whole, undamaged part of these rows and this digest; otherwise the reason why not.

    Reads everything, so that every checksum is compared. A damaged, truncated, foreign or missing file is a reason, too.
    """
    try:
        with reading.open_file(path) as file:
            summary = summarise(file, path)
            if summary.digest != digest:
                return f"{path}: expected the digest {digest}, got {summary.digest}: it is of another configuration"
            if (summary.start, summary.stop) != (start, stop):
                return f"{path}: expected the rows {start}-{stop - 1}, got {summary.start}-{summary.stop - 1}"
            check_rows(file, summary)
    except StoreError as error:
        return str(error)
    return None
