"""The files that a virtual store's pictures are in, opened as they are read.

A few are kept open between reads. Each reader has the file it reads to itself while it does: it is taken out of those that
are kept, or opened once more, so that threads neither wait for each other nor close what another one reads.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreCorrupt, StoreError, StoreIncomplete, StoreNotFound
from storage.file.methods import CAM_AXES
from storage.file.schema import OLDEST_SCHEMA
from storage.file.variable import Variable
from storage.read import checked
from storage.read.parts.linked_parts import COPY, LinkedPart, check_size
from storage.read.parts.part_summary import summarise
from storage.read.remote.address import RemoteFile

__all__ = ["OpenPart", "PartFiles"]

KEPT_OPEN = 8


@dataclass(frozen=True)
class OpenPart:
    """A part that is open. source: the file behind an address, None on the disk."""

    file: h5py.File
    source: RemoteFile | None

    def close(self) -> None:
        self.file.close()
        if self.source is not None:
            self.source.close()


class PartFiles:
    """The parts of one store. digest and sizes: the store's; a part that has others is not one of it."""

    def __init__(
        self,
        path: Path | str,
        parts: Sequence[LinkedPart],
        digest: str,
        sizes: dict[str, int],
        source: RemoteFile | None = None,
    ) -> None:
        """path: what the store is called, on the disk its file. source: the store's file behind an address."""
        self.parts = tuple(parts)
        self._path, self._digest, self._sizes, self._source = path, digest, sizes, source
        self._idle: OrderedDict[int, OpenPart] = OrderedDict()
        self._lock, self._closed = threading.Lock(), False

    def close(self) -> None:
        """Close all that is kept open; what is being read is closed when that is done."""
        with self._lock:
            self._closed, idle = True, list(self._idle.values())
            self._idle.clear()
        for part in idle:
            part.close()

    def gather(
        self, variable: Variable, positions: NDArray[np.int64], numbers: Sequence[int] | NDArray, offsets: NDArray
    ) -> NDArray:
        """The given positions of a picture's first axis, as checked.gather_rows gives them from a single file.

        numbers: the row number of each position of the axis. offsets: of the parts along it, as linked_parts.offsets_of.
        Raises StoreError naming the part's file and the rows that are lost.
        """
        numbered = np.searchsorted(offsets, positions, side="right") - 1
        order = np.argsort(numbered, kind="stable")
        blocks = np.split(order, np.flatnonzero(np.diff(numbered[order])) + 1) if len(order) else []
        if len(blocks) == 1:
            return self._gather_part(variable, int(numbered[0]), positions, numbers, offsets)
        shape = tuple(self._sizes[scale] for scale in variable.scales[1:])
        gathered = np.empty((len(positions), *shape), variable.dtype)
        for block in blocks:
            number = int(numbered[block[0]])
            gathered[block] = self._gather_part(variable, number, positions[block], numbers, offsets)
        return gathered

    def _gather_part(
        self,
        variable: Variable,
        number: int,
        positions: NDArray[np.int64],
        numbers: Sequence[int] | NDArray,
        offsets: NDArray,
    ) -> NDArray:
        """The same of positions that are all in one part."""
        first, last = offsets[number], offsets[number + 1]
        with self.opened(number) as part:
            prefetch = part.source.prefetch if part.source else None
            dataset = self.dataset(part, variable, number, int(last - first))
            return checked.gather_rows(dataset, positions - first, numbers[first:last], prefetch)

    def dataset(self, part: OpenPart, variable: Variable, number: int, n_rows: int) -> h5py.Dataset:
        """A picture's dataset in a part, where it has n_rows rows. Raises StoreCorrupt if it has others."""
        with checked.named_damage(part.file.filename, variable.path):
            dataset = part.file[variable.path]
            if len(dataset) != n_rows:
                raise StoreCorrupt(
                    f"{part.file.filename}: {self.parts[number]}: expected {variable.path} of {n_rows} rows, "
                    f"got {len(dataset)}: it was replaced; {COPY}"
                )
        return dataset

    @contextmanager
    def opened(self, number: int) -> Iterator[OpenPart]:
        """A part, to be read by this thread alone. Raises StoreError naming its file and rows if it is not what it was."""
        with self._lock:
            part = self._idle.pop(number, None)
        if part is None:
            part = self._open(self.parts[number])
        kept = False
        try:
            yield part
            kept = True
        finally:
            surplus = self._put_back(number, part) if kept else [part]
            for each in surplus:
                each.close()

    def _put_back(self, number: int, part: OpenPart) -> list[OpenPart]:
        """Keep a part open; returns those that are to be closed instead."""
        with self._lock:
            if self._closed:
                return [part]
            surplus = [self._idle.pop(number)] if number in self._idle else []
            self._idle[number] = part
            while len(self._idle) > KEPT_OPEN:
                surplus.append(self._idle.popitem(last=False)[1])
            return surplus

    def _open(self, part: LinkedPart) -> OpenPart:
        try:
            opened = self._open_local(part) if self._source is None else self._open_remote(part, self._source)
        except StoreNotFound as error:
            raise StoreIncomplete(f"{self._path}: the {part}, is missing; {COPY}") from error
        except StoreError as error:
            raise _of_part(error, part) from error
        try:
            self._check(opened.file, part)
        except StoreError as error:
            opened.close()
            raise _of_part(error, part) from error
        return opened

    def _open_local(self, part: LinkedPart) -> OpenPart:
        path = Path(self._path).parent / part.name
        file = checked.opened(path)
        try:
            check_size(part, path.stat().st_size, self._path)
        except StoreError:
            file.close()
            raise
        return OpenPart(file, None)

    def _open_remote(self, part: LinkedPart, store: RemoteFile) -> OpenPart:
        source = store.beside(part.name)
        try:
            check_size(part, source.size, self._path)
            return OpenPart(checked.opened_hdf5(source, source.shown), source)
        except BaseException:
            source.close()
            raise

    def _check(self, file: h5py.File, part: LinkedPart) -> None:
        """Raises StoreError if a file does not say that it is the part that was sealed."""
        there = summarise(file, Path(file.filename), lambda variable: variable.holds_pictures, oldest=OLDEST_SCHEMA)
        if CAM_AXES[0] in self._sizes and not there.maps:
            raise StoreCorrupt(f"{file.filename}: expected maps, got none: it was replaced; {COPY}")
        expected = {"digest": self._digest, "start": part.start, "stop": part.stop}
        expected |= {scale: size for scale, size in self._sizes.items() if scale in there.sizes and "row" not in scale}
        for what, value in expected.items():
            came = there.sizes[what] if what in there.sizes else getattr(there, what)
            if came != value:
                raise StoreCorrupt(f"{file.filename}: expected {what} {value}, got {came}: it was replaced; {COPY}")


def _of_part(error: StoreError, part: LinkedPart) -> StoreError:
    """The error with the part and its rows in its message."""
    text = str(error)
    return error if str(part) in text else type(error)(f"{part}: {text}")
