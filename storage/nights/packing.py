"""A night as one file to hand over: its folder, its model, what computed it, and the sha256 of each.

The zip is written under a hidden name and gets its own when it is whole. It stores entries as they are and needs no more memory
for a large night than for a small one. A store of several files goes with its parts, so that its bytes stay those that were
sealed; one that is to go without its images is written anew, as one file.
"""

import errno
import hashlib
import os
import shutil
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import StoreCorrupt, StoreIncomplete
from storage.file.catalog import SAFE_NAME, STORE_NAME
from storage.file.disk.durable import replacing
from storage.file.disk.lock import LockBusy, hold
from storage.nights.night_records import NIGHT_RECORD, read_result
from storage.nights.pack_manifest import MANIFEST, Entry, Manifest, comment_of
from storage.nights.pack_texts import documents_of
from storage.nights.packed_files import model_files, night_files, sample_file
from storage.read import checked
from storage.read.progress_line import Progress
from storage.read.store_file import StoreFile
from storage.write.leaving_out import write_without_images

__all__ = ["LEAVABLE", "SUFFIX", "Packed", "pack_night"]

SUFFIX = ".nightlens.zip"
LEAVABLE = ("model", "images")
BLOCK_BYTES = 1 << 20
SLACK_BYTES = 1 << 20
EPOCH = (1980, 1, 1, 0, 0, 0)
PLAIN_FILE = 0o100644 << 16
LARGE = 1 << 30


@dataclass(frozen=True)
class Packed:
    """A night that was packed. sha256: of the manifest, which says the checksum of all else."""

    path: Path
    night: str
    bytes: int
    n_files: int
    sha256: str
    without: tuple[str, ...]


def pack_night(
    store: Path,
    target: Path | None = None,
    *,
    root: Path | None = None,
    model: Path | None = None,
    without: Collection[str] = (),
    progress: Progress = lambda what, done, total: None,
) -> Packed:
    """Pack a sealed night into one file.

    store: its attributions.h5. target: the file, by default NIGHT.nightlens.zip in the current folder. root: where its model is
    looked for, too. model: the model's path, by default found by its sha256. without: of LEAVABLE.
    progress: called with what is written, bytes done and bytes in all.
    Raises StoreIncomplete for a night that is not finished, StoreNotFound for a model that is not there, StoreCorrupt for a store
    whose bytes are not those that were sealed, FileExistsError for a target that is there, OSError for a full disk.
    """
    if unknown := sorted(set(without) - set(LEAVABLE)):
        raise ValueError(f"expected {' or '.join(LEAVABLE)} to be left out, got {unknown[0]!r}")
    with closing(_opened(store)) as opened:
        attributes = opened.attributes
        night = str(attributes["run_id"])
        if not SAFE_NAME.fullmatch(night) or not read_result(store.parent):
            raise StoreIncomplete(
                f"{store.parent}: no {NIGHT_RECORD} in it: the night did not finish; finish it with `nightlens run --resume`"
            )
        target = (target or Path(f"{night}{SUFFIX}")).absolute()
        _refuse_existing(target)
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{target.parent}: no such folder; make it, or give another")
        images = "images" not in without and opened.has_images
        files = dict(night_files(store, images=images or not opened.has_images))
        files |= {} if "model" in without else dict(model_files(attributes, store, root, model))
        sample = sample_file(attributes, store) if images else None
        files |= {"sample.npz": sample} if sample else {}
        left = tuple(sorted({*without, *([] if opened.has_images else ["images"])}))
        with _only_packer(target) as partial, _kept_aside(target) as aside:
            if opened.has_images and not images:
                _check_room(target, 2 * opened.n_bytes + _bytes(files.values()))
                write_without_images(opened, aside, progress)
                files[f"night/{STORE_NAME}"] = aside
            _check_room(target, _bytes(files.values()))
            with replacing(target, temporary=partial):
                sha256, n_files = _write(partial, target.name, files, attributes, night, left, progress)
                _refuse_existing(target)
    return Packed(target, night, target.stat().st_size, n_files, sha256, left)


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is there already and is never overwritten; give another name")


def _opened(path: Path) -> StoreFile:
    file = checked.opened(path)
    try:
        return StoreFile(file, path, (str(path), None))
    except BaseException:
        file.close()
        raise


@contextmanager
def _only_packer(target: Path) -> Iterator[Path]:
    """The hidden name to write under, locked: what a killed packer left there is overwritten, a living one is not."""
    partial = target.with_name(f".{target.name}.partial")
    lock = target.with_name(f".{target.name}.lock")
    with lock.open("w") as held:
        if not hold(held, lock):
            raise LockBusy(
                f"{target}: another process packs into this file; wait until it is done, or give another name"
            )
        try:
            yield partial
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _kept_aside(target: Path) -> Iterator[Path]:
    """A hidden file beside the target for a store that is written anew."""
    aside = target.with_name(f".{target.name}.store")
    aside.unlink(missing_ok=True)
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _check_room(target: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < n_bytes + SLACK_BYTES:
        reason = f"{os.strerror(errno.ENOSPC)}: {n_bytes / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free"
        raise OSError(errno.ENOSPC, reason, str(target))


def _write(
    partial: Path,
    name: str,
    files: dict[str, Path],
    attributes: dict[str, Any],
    night: str,
    without: tuple[str, ...],
    progress: Progress,
) -> tuple[str, int]:
    """Write the zip; the sha256 of its manifest, and how many entries it has."""
    done, total = 0, _bytes(files.values())
    entries: dict[str, Entry] = {}
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for entry, path in files.items():
            digest, n_bytes = hashlib.sha256(), 0
            with path.open("rb") as source, archive.open(_info(entry), "w", force_zip64=_is_large(path)) as out:
                while block := source.read(BLOCK_BYTES):
                    digest.update(block)
                    out.write(block)
                    n_bytes += len(block)
                    progress("pack", done + n_bytes, total)
            done += n_bytes
            entries[entry] = Entry(n_bytes, digest.hexdigest())
        _check_sums(files, entries)
        if f"night/{STORE_NAME}.sha256" not in entries:
            line = f"{entries[f'night/{STORE_NAME}'].sha256}  {STORE_NAME}\n".encode()
            _put(archive, f"night/{STORE_NAME}.sha256", line, entries)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(night, str(attributes["model_sha256"]), made, without, entries)
        code = next((e.partition("/")[2] for e in entries if e.startswith("models/") and e.endswith(".py")), "")
        for document, text in documents_of(attributes, manifest, code, name).items():
            _put(archive, document, text, entries)
        text = manifest.text()
        archive.writestr(_info(MANIFEST), text)
        archive.comment = comment_of(text)
    return hashlib.sha256(text).hexdigest(), len(entries) + 1


def _check_sums(files: dict[str, Path], entries: dict[str, Entry]) -> None:
    """Raises StoreCorrupt if a file of the store is not the one that was sealed, as its checksum file has it."""
    sums = files.get(f"night/{STORE_NAME}.sha256")
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines() if sums else []
    for sha256, _, name in (line.partition("  ") for line in lines):
        entry = entries.get(f"night/{name}")
        if entry is None or entry.sha256 != sha256:
            came = entry.sha256 if entry else "no such file"
            raise StoreCorrupt(
                f"{sums}: {name}: expected the sha256 {sha256}, got {came}: not what was sealed; `nightlens verify` says what is "
                "wrong, and a damaged night is not handed over"
            )


def _put(archive: zipfile.ZipFile, name: str, text: bytes, entries: dict[str, Entry]) -> None:
    archive.writestr(_info(name), text)
    entries[name] = Entry(len(text), hashlib.sha256(text).hexdigest())


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = PLAIN_FILE
    return info


def _is_large(path: Path) -> bool:
    return path.stat().st_size > LARGE
