"""How large what lies under a folder is, while others write there: a file that goes meanwhile counts as nothing."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["files_below", "size_below"]


def files_below(path: Path) -> Iterator[os.stat_result]:
    """The status of the file `path`, or of every file below the folder `path`. Links are not followed."""
    within = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in within if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            yield file.lstat()


def size_below(path: Path) -> int:
    """The bytes of all these files, a file with two names counted twice."""
    return sum(status.st_size for status in files_below(path))
