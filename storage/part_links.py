"""Linking the parts of a night into a folder beside its store, when that is sealed with the layout `virtual`.

They are linked under `<stem>.parts.partial`, where what is checked and what is summed is the very file that stays, whatever
happens to the part's first name meanwhile. The folder gets its own name just before the store gets its.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from storage import reading
from storage.durable import link_or_copy, make_folder, sync
from storage.part import PART_LAYOUT, PartSummary, row_numbers, summarise
from storage.virtual import LinkedPart, linked_name, parts_folder

__all__ = ["clear_parts", "link_parts", "name_parts"]


def link_parts(store: Path, parts: Sequence[PartSummary]) -> tuple[list[PartSummary], list[LinkedPart], int]:
    """Link parts into the partial folder beside a store that is to be, read-only, every picture's checksums compared.

    What a killed seal left there is removed. Returns the parts as they are there, their lines of the table, and how many
    had to be copied. Raises StoreError for a damaged part.
    """
    clear_parts(store)
    folder = make_folder(_partial(store))
    there, lines, n_copied = list[PartSummary](), list[LinkedPart](), 0
    for part in parts:
        name = linked_name(store, part)
        file = folder / Path(name).name
        n_copied += not link_or_copy(part.path, file)
        file.chmod(0o444)
        _check_pictures(file)
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        there.append(replace(part, path=file))
        lines.append(LinkedPart(name, part.start, part.stop, file.stat().st_size, sha256))
    sync(folder)
    return there, lines, n_copied


def name_parts(store: Path) -> None:
    """Give the folder of the linked parts its name, durably."""
    os.replace(_partial(store), parts_folder(store))
    sync(store.parent)


def clear_parts(store: Path) -> None:
    """Remove the folders of parts of a store that is not there: its seal failed, or was killed."""
    for folder in (_partial(store), parts_folder(store)):
        if folder.exists():
            shutil.rmtree(folder)


def _partial(store: Path) -> Path:
    folder = parts_folder(store)
    return folder.with_name(f"{folder.name}.partial")


def _check_pictures(path: Path) -> None:
    with reading.open_file(path) as file:
        datasets = reading.open_datasets(file, path, PART_LAYOUT)
        summary = summarise(file, path, datasets=datasets)
        for variable in (variable for variable in summary.variables if variable.holds_pictures):
            for _ in reading.checked_chunks(datasets[variable.path], row_numbers(file, summary, variable)):
                pass
