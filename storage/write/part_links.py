"""Linking the parts of a night into a folder beside its store, when that is sealed with the layout `virtual`.

They are linked under `<stem>.parts.partial`, where what is checked and what is summed is the very file that stays, whatever
happens to the part's first name meanwhile. The folder gets its own name just before the store gets its.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.file.added_tables import PARTS
from storage.file.disk.durable import link_or_copy, make_folder, sync
from storage.file.layout import fixed_texts
from storage.file.methods import CAM_AXES
from storage.file.schema import PICTURES, present
from storage.read.parts.linked_parts import LinkedPart, parts_folder
from storage.read.parts.part_summary import PartSummary, part_path

__all__ = ["clear_parts", "link_parts", "linked_name", "name_parts", "table_columns", "virtual_layouts"]


def link_parts(store: Path, parts: Sequence[PartSummary]) -> tuple[list[PartSummary], list[LinkedPart], int]:
    """Link parts into the partial folder beside a store that is to be, read-only.

    What a killed seal left there is removed. Returns the parts as they are there, their lines of the table, and how many
    had to be copied.
    """
    clear_parts(store)
    folder = make_folder(_partial(store))
    there, lines, n_copied = list[PartSummary](), list[LinkedPart](), 0
    for part in parts:
        name = linked_name(store, part)
        file = folder / Path(name).name
        n_copied += not link_or_copy(part.path, file)
        file.chmod(0o444)
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


def linked_name(store: Path, part: PartSummary) -> str:
    """What a part is called in the table of a store."""
    folder = parts_folder(store)
    return f"{folder.name}/{part_path(folder, part.start, part.stop).name}"


def table_columns(parts: Sequence[LinkedPart]) -> dict[str, NDArray]:
    """The datasets of the table, by path."""
    numbers = {name: np.array([getattr(part, name) for part in parts], np.int64) for name in ("start", "stop", "bytes")}
    texts = {name: fixed_texts([getattr(part, name) for part in parts]) for name in ("name", "sha256")}
    return {f"{PARTS.group}/{name}": column for name, column in (numbers | texts).items()}


def virtual_layouts(
    names: Sequence[str], parts: Sequence[PartSummary], sizes: Mapping[str, int]
) -> dict[str, h5py.VirtualLayout]:
    """Where each picture's rows are, by path, for those that have any. names: of the parts' files. sizes: the store's."""
    layouts = {}
    for variable in present(PICTURES, maps=CAM_AXES[0] in sizes):
        shape = tuple(sizes[scale] for scale in variable.scales)
        if not shape[0]:
            continue
        layout, offset = h5py.VirtualLayout(shape, variable.dtype), 0
        for name, part in zip(names, parts, strict=True):
            n_rows = part.sizes[variable.scales[0]]
            if n_rows:
                source = h5py.VirtualSource(name, variable.path, shape=(n_rows, *shape[1:]))
                layout[offset : offset + n_rows] = source
            offset += n_rows
        layouts[variable.path] = layout
    return layouts
