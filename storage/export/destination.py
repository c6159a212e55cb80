"""Where an export goes: a folder that is there whole, or not at all.

It is written under a hidden name beside its place and renamed when every byte of it is on the disk, so that an export that
was killed, or met a full disk, never looks finished. The file MARK in it says that the folder is ours: nothing else is ever
overwritten. An earlier export changes names with the new one in one step; where the file system cannot do that it is put
aside first, and an export that is killed right then leaves it there, for whoever exports to that place next to put back.
"""

import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from storage.errors import system_code
from storage.file.catalog import SAFE_NAME
from storage.file.disk.durable import exchange, make_folder, sync
from storage.file.disk.lock import NoLocks, hold

__all__ = ["MARK", "default_destination", "prepared_destination", "whole_folder"]

MARK = "export.json"
# How the hidden folders beside a place end: what is being written, and what was there before.
PARTIAL, EARLIER = "partial", "earlier"
# What the nights need to find as they left it; `nights` or `parts` in a folder show that it is a root.
MANAGED = ("nights", "parts", "models", "datasets")
SIGNS_OF_A_ROOT = ("nights", "parts")


def default_destination(store: Path | str, run_id: str, format: str) -> Path:
    """exports/<night>-<format> under the root of the store, beside the store where it is in no root.

    store: the attributions.h5. run_id: the night's id in the store, which names the folder where it is a plain name.
    Raises ValueError for a store at an address: nothing can be written there.
    """
    if isinstance(store, str):
        raise ValueError(f"{store} is an address; say which folder of this machine the export goes to")
    night = store.absolute().parent
    if night.parent.name == "nights":
        return night.parent.parent / "exports" / f"{night.name}-{format}"
    return night / "exports" / f"{run_id if SAFE_NAME.fullmatch(run_id) else store.stem}-{format}"


def prepared_destination(path: Path, store: Path | str, *, overwrite: bool = False) -> Path:
    """The absolute path of an export's folder, once it is sure that it may be written; nothing is created, but an
    earlier export that was put aside is put back.

    store: the attributions.h5 that is exported, or its address. overwrite: whether an earlier export may be replaced.
    Raises ValueError for a relative path that leaves the current folder by `..`, and for a folder that belongs to the
    nights; FileExistsError for one that is not empty, unless it is an export and `overwrite` is given.
    """
    resolved = path.resolve()
    _put_back(resolved)
    if not path.is_absolute() and ".." in path.parts and not resolved.is_relative_to(Path.cwd().resolve()):
        raise ValueError(f"{path} leaves the current folder by '..'; if you mean it, give its absolute path {resolved}")
    for folder in (resolved, *resolved.parents):
        if folder.name in MANAGED and any((folder.parent / sign).is_dir() for sign in SIGNS_OF_A_ROOT):
            raise ValueError(f"{path} is in {folder}, where nightlens keeps its {folder.name}; give a folder elsewhere")
    if isinstance(store, Path) and store.resolve().is_relative_to(resolved):
        raise ValueError(f"{path} holds the store {store}; give a folder of its own for the export")
    if resolved.exists() and not resolved.is_dir():
        raise FileExistsError(f"{path} is a file; give a folder")
    if resolved.is_dir() and any(resolved.iterdir()):
        if not (resolved / MARK).is_file():
            raise FileExistsError(f"{path} is not empty and is no export of nightlens (no {MARK}); give another folder")
        if not overwrite:
            raise FileExistsError(f"{path} holds an earlier export; replace it by --overwrite or give another folder")
    return resolved


@contextmanager
def whole_folder(path: Path, about: Mapping[str, object]) -> Iterator[Path]:
    """Yield a hidden folder to write to; when the block ends it is made durable, marked, and renamed to `path`.

    path: as prepared_destination returned it; an export that is there is replaced at the very end.
    about: what the mark says of the export, JSON-like.
    If the block or the renaming fails, for whatever reason, the hidden folder is removed and the error passes on, the
    operating system's with `path` as its file name; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{PARTIAL}")
    with ExitStack() as locking:
        try:
            make_folder(path.parent)
            _put_back(path)
            _remove_abandoned(path)
            temporary.mkdir()
            hold(locking.enter_context(_opened(temporary)), path.parent, waits=True)
            yield temporary
            (temporary / MARK).write_text(
                json.dumps(about, ensure_ascii=False, indent=1, sort_keys=True), encoding="utf-8"
            )
            for folder, _, names in os.walk(temporary):
                for name in names:
                    sync(Path(folder, name))
                sync(Path(folder))
            _replace(temporary, path)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) and not isinstance(error, NoLocks) and (code := system_code(error)):
                raise OSError(code, os.strerror(code), str(path)) from error
            raise
    sync(path.parent)


def _put_back(path: Path) -> None:
    """Give an earlier export its name again, where the one that was to replace it was killed in between."""
    aside = [folder for folder in _hidden(path, EARLIER) if (folder / MARK).is_file()]
    if aside and not path.exists() and not any(_is_written(folder) for folder in _hidden(path, PARTIAL)):
        os.replace(max(aside, key=lambda folder: folder.stat().st_mtime_ns), path)
        sync(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed exports to the same place have left: hidden folders that no living process holds locked."""
    for folder in _hidden(path, PARTIAL):
        if not _is_written(folder):
            shutil.rmtree(folder, ignore_errors=True)
    if path.exists() and not any(_is_written(folder) for folder in _hidden(path, PARTIAL)):
        for folder in _hidden(path, EARLIER):
            _discard(folder)


def _hidden(path: Path, kind: str) -> list[Path]:
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.{kind}"))


def _is_written(folder: Path) -> bool:
    """Whether a living process has a hidden folder locked."""
    try:
        with _opened(folder) as descriptor:
            return not hold(descriptor, folder.parent)
    except FileNotFoundError:
        return False


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(temporary: Path, path: Path) -> None:
    """Rename over an empty folder or nothing, or change names with an earlier export, which is removed afterwards."""
    if not path.is_dir() or not any(path.iterdir()):
        os.replace(temporary, path)
        return
    if exchange(temporary, path):
        sync(path.parent)
        _discard(temporary)
        return
    earlier = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{EARLIER}")
    os.replace(path, earlier)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(earlier, path)
        raise
    sync(path.parent)
    _discard(earlier)


def _discard(folder: Path) -> None:
    """Remove an earlier export; half of one is not put back, for it has lost its mark. Another process may do so, too."""
    (folder / MARK).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
