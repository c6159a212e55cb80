"""Verifying the parts of a virtual store: that each file is there and is the one that was sealed, byte by byte, and that the
virtual datasets lead other programs to the rows that the table of the parts has for them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.check.findings import Finding, noted
from storage.errors import StoreCorrupt, StoreError, StoreFormatError
from storage.file.variable import Variable
from storage.read import checked
from storage.read.parts.linked_parts import LinkedPart, offsets_of, wrong_mappings
from storage.read.parts.part_files import PartFiles
from storage.read.progress_line import Progress

__all__ = ["CheckedParts"]


class CheckedParts:
    """The parts of a store that is verified. folder: the one that they are named from."""

    def __init__(self, files: PartFiles, folder: Path) -> None:
        self._files, self._folder = files, folder
        self._lost: set[int] = set()

    def check_files(self, progress: Progress) -> list[Finding]:
        """Each part there, of its rows and digest, and of the sha256 in the table. progress: called with "parts"."""
        findings = []
        done, total = 0, sum(part.bytes for part in self._files.parts)
        for number, part in enumerate(self._files.parts):
            try:
                with self._files.opened(number):
                    pass
            except StoreError as error:
                self._lost.add(number)
                findings.append(_finding("part", part, str(error)))
            if (self._folder / part.name).is_file():
                sha256 = self._sha256(part)
                if sha256 != part.sha256:
                    detail = f"expected {part.sha256}, got {sha256}: the bytes are not those that were sealed"
                    findings.append(_finding("sha256", part, f"{detail}; {checked.RESTORE}"))
            done += part.bytes
            progress("parts", done, total)
        return findings

    def check_mappings(
        self, file: h5py.File, path: Path, variables: Sequence[Variable], numbers: Mapping[str, NDArray[np.int64]]
    ) -> list[Finding]:
        """Whether each picture is virtual, and mapped as the table says. numbers: as of read_columns."""
        findings: list[Finding] = []
        for variable in variables:
            if not variable.holds_pictures or variable.scales[0] not in numbers:
                continue
            with noted(findings, "schema", path, variable.path):
                dataset = file[variable.path]
                if len(dataset) and not dataset.is_virtual:
                    detail = "expected a virtual dataset over the parts, got one with values of its own"
                    findings.append(Finding("schema", variable.path, detail))
                elif len(dataset):
                    offsets = offsets_of(self._files.parts, numbers[variable.scales[0]])
                    wrong = wrong_mappings(dataset, self._files.parts, offsets)
                    findings += [Finding("schema", variable.path, detail) for detail in wrong]
        return findings

    def pieces(
        self, variable: Variable, n_rows: int, numbers: NDArray[np.int64] | None, findings: list[Finding]
    ) -> Iterator[tuple[int, int, h5py.Dataset | None]]:
        """Offset and number of rows of a picture's piece in each part, and its dataset, None where that is lost.

        numbers: the row number of each of the n_rows positions. A loss that is new is put into the findings.
        """
        if not n_rows:
            return
        if numbers is None:
            raise StoreCorrupt(f"{variable.path}: {variable.scales[0]} is lost, which says the rows of each part")
        offsets = offsets_of(self._files.parts, numbers)
        if (offsets[0], offsets[-1]) != (0, n_rows):
            raise StoreCorrupt(f"{variable.path}: {variable.scales[0]} has rows that are in none of the parts")
        for number, (first, last) in enumerate(zip(offsets, offsets[1:], strict=False)):
            if number in self._lost:
                yield int(first), int(last - first), None
                continue
            try:
                with self._files.opened(number) as part:
                    dataset = self._files.dataset(part, variable, number, int(last - first))
                    if dataset.chunks is None or dataset.chunks[1:] != dataset.shape[1:]:
                        raise StoreFormatError(f"{variable.path}: expected chunks of whole rows, got {dataset.chunks}")
                    yield int(first), int(last - first), dataset
            except StoreError as error:
                findings.append(_finding("part", self._files.parts[number], str(error)))
                yield int(first), int(last - first), None

    def _sha256(self, part: LinkedPart) -> str:
        with (self._folder / part.name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _finding(check: str, part: LinkedPart, detail: str) -> Finding:
    return Finding(check, part.name, detail, tuple(part.rows))
