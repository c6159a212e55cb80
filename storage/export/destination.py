"""Where an export goes: never into the folders that nights live in, never out of the current folder by "..", never half."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.catalog import STORE_NAME
from storage.durable import make_folder, sync

OURS = ("nights", "parts", "models", "datasets", "prefect", ".running", ".pruned")


def destination(store: Path | str, run_id: str, to: str, folder: Path | None) -> Path:
    """The folder of an export, absolute: the one that is given, or exports/<night>-<format> in the store's root.

    store: the file's path, or its address; beside an address or a file that lies in no root, nothing is guessed.
    Raises ValueError for a folder that leads out of the current one by "..", or into what belongs to a root.
    """
    root = _root_of(store)
    if folder is None:
        if root is None:
            raise ValueError(f"{store} lies in no root of nights; say where the export goes: --to {to} DIR")
        return root / "exports" / f"{Path(run_id).name}-{to}"
    chosen = folder.expanduser()
    resolved = chosen.resolve()
    if not chosen.is_absolute() and ".." in chosen.parts and not resolved.is_relative_to(Path.cwd().resolve()):
        raise ValueError(f"{folder} leads out of the current folder; if that is meant, give an absolute path")
    for parent in (resolved, *resolved.parents):
        if parent.name in OURS and (parent.parent / "nights").is_dir():
            raise ValueError(f"{folder} lies in {parent}, which belongs to the nights; export somewhere else")
    return resolved


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `folder`, which gets its name when the block ends, or is removed if it fails.

    Raises FileExistsError if there is something under that name, unless it is an empty folder or to be overwritten.
    """
    if folder.exists() and not (folder.is_dir() and (overwrite or not any(folder.iterdir()))):
        raise FileExistsError(f"{folder} is there already; give another folder, or --overwrite")
    temporary = make_folder(folder.parent) / f".{folder.name}.{secrets.token_hex(4)}.partial"
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync(path)
        sync(temporary)
        _replace(folder, temporary)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    sync(folder.parent)


def _replace(folder: Path, temporary: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.replaced")
    folder.rename(aside)
    temporary.rename(folder)
    shutil.rmtree(aside)


def _root_of(store: Path | str) -> Path | None:
    """The root that a store lies in as nights/<id>/attributions.h5, or None."""
    if not isinstance(store, Path):
        return None
    path = store.resolve()
    in_a_root = path.name == STORE_NAME and path.parents[1].name == "nights"
    return path.parents[2] if in_a_root else None
