"""What can be wrong with a store or a part, as one small family of exceptions.

Bad arguments raise Python's own ValueError, IndexError or TypeError; these are for bad files. Every message says what
was expected, what came and what to do about it, so that an operator needs no traceback.
"""

import errno
import os
from collections.abc import Iterable

# What HDF5 and Arrow put into words only.
WORDED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
MOST_RUNS = 8


class StoreError(Exception):
    """A file of the attribution store cannot be used as it is."""


class StoreNotFound(StoreError):
    """There is no store where one was expected."""


class StoreUnreachable(StoreError):
    """The store has an address that does not answer, or not to us: connection, rights, or a server without ranges."""


class StoreFormatError(StoreError):
    """The file is no HDF5 file, not one of ours, or its datasets are not those of the schema."""


class StoreIncomplete(StoreError):
    """The file was not written to its end, or rows are missing or there twice."""


class StoreVersionError(StoreError):
    """The file follows a schema version that this nightlens does not read."""


class StoreCorrupt(StoreError):
    """The bytes are not those that were written: a checksum or a read failed."""


def name_rows(rows: Iterable[int]) -> str:
    """Row numbers for a message, runs drawn together: "3, 7-12, 90". After MOST_RUNS runs there is only their number."""
    runs: list[list[int]] = []
    count = 0
    for row in sorted(int(row) for row in rows):
        count += 1
        if runs and row <= runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs[:MOST_RUNS])
    return shown if len(runs) <= MOST_RUNS else f"{shown}, ... ({count} rows)"


def system_code(error: OSError) -> int | None:
    """The number of an operating system's error, also where a library has only its words; None if it is none of these."""
    if error.errno is not None:
        return error.errno
    return next((code for code in WORDED if os.strerror(code) in str(error)), None)
