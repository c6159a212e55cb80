"""Many image files: hashed, looked at and decoded by several threads, in order, each decoded once.

Convention: files are handed to threads in small groups and results come back in the files' order, a few groups ahead of
whoever takes them, so that memory does not grow with the number of files.
"""

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tasks.datasets.conversion import Images
from tasks.datasets.counting import Count
from tasks.datasets.dataset import DatasetError
from tasks.datasets.formats.image_file import ImageHeader, UnreadableImage, decode_image, encode_png, read_header

__all__ = ["ImageFiles", "hash_files", "read_headers"]

N_THREADS = min(8, os.cpu_count() or 1)
GROUP_FILES = 64
GROUP_PIXELS = 2**20

Item = TypeVar("Item")
Result = TypeVar("Result")


def hash_files(files: Sequence[Path], count: Count) -> Iterator[str]:
    """The sha256 of each file. Raises DatasetError for a file that cannot be read."""

    def hash_file(path: Path) -> str:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror}); make it readable or remove it") from error

    for digests in _in_threads(lambda group: list(map(hash_file, group)), _groups(files)):
        count.add(len(digests))
        yield from digests


def read_headers(folder: Path, files: Sequence[Path], count: Count) -> list[ImageHeader]:
    """What each file's header says. Raises DatasetError that names the files that cannot be used."""

    def read(path: Path) -> ImageHeader | UnreadableImage:
        try:
            return read_header(path.read_bytes())
        except UnreadableImage as error:
            return error

    found: list[ImageHeader | UnreadableImage] = []
    for headers in _in_threads(lambda group: list(map(read, group)), _groups(files)):
        count.add(len(headers))
        found += headers
    whole = [header for header in found if isinstance(header, ImageHeader)]
    if len(whole) < len(files):
        _refuse_unreadable(folder, files)
    return whole


def _refuse_unreadable(folder: Path, files: Sequence[Path]) -> None:
    """Raises DatasetError that names every file that cannot be used, where one was found: each is decoded for that."""

    def fault(path: Path) -> UnreadableImage | None:
        try:
            content = path.read_bytes()
            decode_image(content, read_header(content), grey=False)
        except UnreadableImage as error:
            return error
        return None

    faults = itertools.chain.from_iterable(_in_threads(lambda group: list(map(fault, group)), _groups(files, 1)))
    unreadable = [
        f"{path.relative_to(folder)} ({error})" for path, error in zip(files, faults, strict=True) if error is not None
    ]
    more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
    raise DatasetError(
        f"{folder}: {len(unreadable)} of {len(files)} files cannot be used as images: {', '.join(unreadable[:5])}{more}; "
        "replace or remove them"
    )


class ImageFiles:
    """Image files whose headers are known, to be decoded as PNG files of one kind.

    grey: one channel, else three. divisor: see `decode_image`.
    """

    def __init__(
        self, folder: Path, headers: Mapping[Path, ImageHeader], *, grey: bool, divisor: int, count: Count
    ) -> None:
        self.divisor = divisor
        self._folder, self._headers, self._grey, self._count = folder, headers, grey, count

    def rows(self, labelled: Sequence[tuple[Path, int]]) -> Images:
        """The (PNG file, label) of each of these (file, label)."""

        def decoded() -> Iterator[tuple[bytes, int]]:
            pngs = self._decoded(path for path, _ in labelled)
            for png, (_, label) in zip(pngs, labelled, strict=True):
                if isinstance(png, UnreadableImage):
                    _refuse_unreadable(self._folder, list(self._headers))
                else:
                    yield png, label
                    self._count.add(1)

        return decoded

    def _decoded(self, paths: Iterable[Path]) -> Iterator[bytes | UnreadableImage]:
        groups = _in_threads(lambda group: list(map(self._decode, group)), self._groups(paths))
        return itertools.chain.from_iterable(groups)

    def _decode(self, path: Path) -> bytes | UnreadableImage:
        try:
            image = decode_image(path.read_bytes(), self._headers[path], grey=self._grey, divisor=self.divisor)
        except UnreadableImage as error:
            return error
        return encode_png(image)

    def _groups(self, paths: Iterable[Path]) -> Iterator[Sequence[Path]]:
        """Files for one thread at a time, few of them where images are large."""
        group: list[Path] = []
        n_pixels = 0
        for path in paths:
            group.append(path)
            n_pixels += self._headers[path].y * self._headers[path].x
            if len(group) == GROUP_FILES or n_pixels >= GROUP_PIXELS:
                yield group
                group, n_pixels = [], 0
        if group:
            yield group


def _groups(files: Sequence[Path], size: int = GROUP_FILES) -> Iterator[Sequence[Path]]:
    return (files[start : start + size] for start in range(0, len(files), size))


def _in_threads(function: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    """The function of each item in order, computed by threads, at most two a thread ahead."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(N_THREADS) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * N_THREADS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
