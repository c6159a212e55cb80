"""A packed night made a night of a root: every checksum compared while it is written, and nothing there before all were right.

All of it is written into a hidden folder of the root. Then the model goes to the registry, where nothing is replaced, and at the
end the night's folder gets its name, in one step. What a killed unpacking left is cleared by the next one of the same night, or
by `nightlens prune`.
"""

import errno
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storage.errors import StoreCorrupt, StoreError, StoreFormatError, StoreNotFound
from storage.file.catalog import STORE_NAME, Catalog
from storage.file.disk.durable import make_folder, sync
from storage.file.layout import read_attributes
from storage.nights.night_entries import working_on
from storage.nights.pack_manifest import AGAIN, DOCUMENTS, MANIFEST, Entry, Manifest, checked_entries, read_manifest
from storage.nights.packed_files import HANDOVER, model_digest
from storage.read import checked
from storage.read.parts.linked_parts import parts_folder
from storage.read.progress_line import Progress

__all__ = ["UNPACKING", "Unpacked", "unpack_night"]

UNPACKING = ".unpacking"
BLOCK_BYTES = 1 << 20
SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class Unpacked:
    """A night that was unpacked. sha256: of its manifest. is_latest: whether `latest` points to it now.

    models: where its model is, none for one without. was_there: whether the registry had the model already.
    """

    night: str
    folder: Path
    bytes: int
    n_files: int
    sha256: str
    without: tuple[str, ...]
    is_latest: bool
    models: tuple[Path, ...]
    was_there: bool


def unpack_night(path: Path, root: Path, *, progress: Progress = lambda what, done, total: None) -> Unpacked:
    """Add a packed night to a root, which is made if it is not there. `latest` points to it if it did to none.

    progress: called with "unpack", bytes done and bytes in all.
    Raises StoreNotFound, StoreFormatError for what is no pack, StoreCorrupt naming an entry that is not what was packed,
    FileExistsError for a night that the root has, LockBusy, OSError for a full disk; the root is then as it was.
    """
    if not path.is_file():
        raise StoreNotFound(f"{path}: no such file; give a night as `nightlens pack` makes it")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise StoreFormatError(
            f"{path}: expected a night as `nightlens pack` makes it, got what is no whole zip ({error}); {AGAIN}"
        ) from error
    with archive:
        manifest, text = read_manifest(archive, str(path))
        entries = checked_entries(archive, manifest, str(path))
        catalog = Catalog(root)
        folder = catalog.night_dir(manifest.night)
        if os.path.lexists(folder):
            raise FileExistsError(f"{folder} is there already and is never replaced; unpack into another root")
        _check_room(root, manifest.bytes + len(text))
        with _root_at_hand(root), working_on(catalog, manifest.night):
            written = _cleared(root / UNPACKING / manifest.night)
            try:
                _write(archive, entries, written, str(path), progress)
                _check_night(written, manifest, str(path))
                (written / "night" / HANDOVER / MANIFEST).write_bytes(text)
                _make_durable(written)
                make_folder(catalog.nights)
                models, was_there = _place_models(written / "models", catalog, manifest)
                os.rename(written / "night", folder)
                sync(catalog.nights)
            finally:
                shutil.rmtree(written, ignore_errors=True)
                _remove_if_empty(written.parent)
            is_latest = catalog.latest_name() is None
            if is_latest:
                catalog.point_latest(folder)
    return Unpacked(
        manifest.night,
        folder,
        manifest.bytes,
        len(entries) + 1,
        hashlib.sha256(text).hexdigest(),
        manifest.without,
        is_latest,
        models,
        was_there,
    )


def _check_room(root: Path, n_bytes: int) -> None:
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < n_bytes + SLACK_BYTES:
        reason = f"{os.strerror(errno.ENOSPC)}: {n_bytes / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free"
        raise OSError(errno.ENOSPC, reason, str(root))


@contextmanager
def _root_at_hand(root: Path) -> Iterator[None]:
    """The root, made if need be; one that was made for nothing goes again."""
    was_there = os.path.lexists(root)
    make_folder(root)
    try:
        yield
    except BaseException:
        for folder in (root / ".running", *([] if was_there else [root])):
            _remove_if_empty(folder)
        raise


def _cleared(folder: Path) -> Path:
    """An empty folder; whoever wrote there before is dead, for this process has the night's lock."""
    if folder.exists():
        shutil.rmtree(folder)
    return make_folder(folder)


def _write(
    archive: zipfile.ZipFile,
    entries: list[tuple[zipfile.ZipInfo, Entry]],
    folder: Path,
    shown: str,
    progress: Progress,
) -> None:
    done, total = 0, sum(entry.bytes for _, entry in entries)
    for info, entry in entries:
        name = f"night/{HANDOVER}/{info.filename}" if info.filename in DOCUMENTS else info.filename
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        try:
            with archive.open(info) as source, target.open("xb") as out:
                while block := source.read(BLOCK_BYTES):
                    digest.update(block)
                    out.write(block)
                    done += len(block)
                    progress("unpack", done, total)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise StoreCorrupt(f"{shown}: the entry {info.filename!r} was changed ({error}); {AGAIN}") from error
        if digest.hexdigest() != entry.sha256:
            came = f"expected the sha256 {entry.sha256}, got {digest.hexdigest()}"
            raise StoreCorrupt(f"{shown}: the entry {info.filename!r} was changed: {came}; {AGAIN}")


def _check_night(folder: Path, manifest: Manifest, shown: str) -> None:
    """The store is one, and of the night that the manifest names; it becomes read-only, as a seal leaves it."""
    store = folder / "night" / STORE_NAME
    try:
        with checked.open_file(store) as file, checked.named_damage(store, "the root attributes"):
            came = read_attributes(file).get("run_id")
    except StoreError as error:
        raise StoreCorrupt(f"{shown}: there is no store in it that can be read: {error}") from error
    if came != manifest.night:
        raise StoreCorrupt(f"{shown}: expected the store of night {manifest.night}, got that of {came}; {AGAIN}")
    for path in (store, *parts_folder(store).glob("*")):
        path.chmod(0o444)
    (folder / "night" / HANDOVER).mkdir(exist_ok=True)


def _make_durable(folder: Path) -> None:
    for below, _, names in os.walk(folder):
        for name in names:
            sync(Path(below, name))
        sync(Path(below))


def _place_models(written: Path, catalog: Catalog, manifest: Manifest) -> tuple[tuple[Path, ...], bool]:
    """Give the model's files a place in the registry, and say where, and whether they were all there before.

    Where another model has the name, all get one with the model's sha256 behind it.
    """
    if not written.is_dir():
        return (), False
    new, folder = sorted(written.iterdir(), key=_by_kind), make_folder(catalog.models)
    mark, places = "", [folder / path.name for path in new]
    # A record says where its model was, and so may differ.
    if any(_differ(path, place) for path, place in zip(new, places, strict=True) if path.suffix != ".json"):
        mark = f"-{manifest.model_sha256[:8]}"
        places = [folder / f"{path.stem}{mark}{path.suffix}" for path in new]
    was_there = True
    for path, place in zip(new, places, strict=True):
        if os.path.lexists(place):
            if mark and _differ(path, place):
                raise FileExistsError(
                    f"{place} is there already and is another file; move it, or unpack into another root"
                )
            continue
        was_there = False
        os.rename(path, place)
    sync(folder)
    return tuple(places), was_there


def _by_kind(path: Path) -> tuple[bool, str]:
    """The model before its record and its code."""
    return path.suffix in (".json", ".py"), path.name


def _differ(path: Path, place: Path) -> bool:
    return os.path.lexists(place) and (not place.exists() or model_digest(path) != model_digest(place))


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
