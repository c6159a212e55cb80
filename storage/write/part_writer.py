"""Writing a part: its arrays are checked, laid out as the schema says, and read back, before it has its name."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from numpy.typing import ArrayLike, NDArray

from storage.errors import StoreCorrupt
from storage.file.disk.durable import make_folder, replacing
from storage.file.layout import create_file, index_coordinates, lay_out, write_attributes
from storage.file.methods import CAM_AXES
from storage.file.schema import SCHEMA_VERSION, part_variables
from storage.read.parts.part_summary import check_part
from storage.write.arrays import checked_arrays, dimension_sizes

__all__ = ["write_part"]


def write_part(
    path: Path, start: int, stop: int, arrays: Mapping[str, ArrayLike], *, digest: str, part_rows: int
) -> None:
    """Check the arrays of the rows [start, stop) and write them as one part: wholly, or not at all.

    arrays: every row-wise variable of the schema but `row`, by path, in the schema's dtype and axes: "image"
        (row, y, x, channel) ... "predicted_row" (the numbers of the misclassified rows) and so on; those of maps all or none.
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
    variables = part_variables(maps=CAM_AXES[0] in sizes)
    with create_file(image) as file:
        lay_out(file, variables, sizes, part_rows=int(about["part_rows"]))
        index_coordinates(file, variables)
        for name, array in arrays.items():
            file[name][...] = array
        write_attributes(file, {"schema": SCHEMA_VERSION, "complete": 1, **about})
    return image.getvalue()
