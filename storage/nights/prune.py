"""Pruning a root: old nights, the parts that no night refers to, models likewise, and what killed writers left behind.

Never touched: `latest`, pinned nights, running nights, and unfinished ones that are newer than the last sealed night and
can be resumed; nor what cannot be read, be it a night, its record or a model's.
A night that has a store and did not pass its audit stays as long as a sealed one in its place would, that is while fewer
than `keep` sealed nights are newer. It does not count as one of those, so bad nights never push out good ones; of its own
kind the newest `keep` stay.
As long as a night runs, or a night that stays does not say what it refers to, parts and models are left alone. A night is
moved aside before it is deleted: nobody sees half of one.
"""

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storage.file.catalog import STORE_NAME, Catalog
from storage.file.disk.durable import make_folder
from storage.file.disk.lock import locked
from storage.file.disk.sizes import files_below, size_below
from storage.nights.night_entries import NightEntry, read_nights, root_lock
from storage.read.parts.linked_parts import parts_folder

LEFTOVERS = (
    *("nights/*/*.tmp", "nights/*/*.partial", "nights/*/gallery/*.tmp"),
    *("parts/*/*.tmp", "parts/*/*.lock", "parts/*.draft.h5", ".running/*.lock"),
    *("models/*.tmp", "models/.*.partial.keras", "models/.*.lock", "latest.*.tmp", ".unpacking/*"),
)


@dataclass(frozen=True)
class Removal:
    """A file or folder that is to go, or went: its size and why."""

    path: Path
    bytes: int
    why: str


@dataclass(frozen=True)
class Pruning:
    """What is to be removed, and what was left alone although it might have been expected to go, in words.

    bytes: what that frees on the disk: less than the sizes together where a file has another name that stays, as a part has
    that is linked into a night.
    """

    removals: tuple[Removal, ...]
    spared: tuple[str, ...]
    bytes: int


@contextmanager
def pruning(catalog: Catalog, keep: int) -> Iterator[Pruning]:
    """What pruning to the newest `keep` sealed nights would remove; no night begins while the context lasts.

    Raises LockBusy if another clean-up goes on, ValueError if keep is less than 1.
    """
    if keep < 1:
        raise ValueError(f"expected to keep at least 1 night, got {keep}")
    with locked(root_lock(catalog), "a clean-up", patience_s=5.0):
        yield _decide(catalog, keep)


def remove(catalog: Catalog, removals: Sequence[Removal]) -> None:
    """Delete what `pruning` decided, within its context."""
    aside = make_folder(Path(catalog.root) / ".pruned")
    for removal in removals:
        if removal.path == aside:
            continue
        if removal.path.is_dir():
            removal.path.rename(aside / f"{removal.path.name}.{secrets.token_hex(4)}")
        else:
            removal.path.unlink(missing_ok=True)
    shutil.rmtree(aside)


def _decide(catalog: Catalog, keep: int) -> Pruning:
    nights, root = read_nights(catalog), Path(catalog.root)
    stay = _staying(nights, keep)
    removals = [
        Removal(night.folder, night.bytes, f"{night.state} night, older than the {keep} that are kept")
        for night in nights
        if night not in stay
    ]
    spared = [f"{night.id} {why}" for night, why in stay.items() if why]
    running = [night.id for night in stay if night.state == "running"]
    mute = [night.id for night in stay if night.digest is None and (night.has_store or night.state == "damaged")]
    if running or mute:
        reason = f"{', '.join(running)} still running" if running else f"{', '.join(mute)} cannot say which are its own"
        spared.append(f"parts, models and leftovers of killed writers: {reason}")
        return Pruning(tuple(removals), tuple(spared), _freed(removals))
    digests, models = {night.digest for night in stay}, {night.model_sha256 for night in stay}
    for folder in sorted((root / "parts").glob("*")):
        if folder.is_dir() and not folder.is_symlink() and folder.name not in digests:
            removals.append(_removal(folder, "parts that no night refers to"))
    removals += _models(catalog.models, models, spared)
    gone = {removal.path for removal in removals}
    left = (path for path in _leftovers(root) if not gone & {path, *path.parents})
    removals += [_removal(path, "left behind by a killed writer") for path in left]
    if (root / ".pruned").is_dir():
        removals.append(_removal(root / ".pruned", "left behind by a killed clean-up"))
    return Pruning(tuple(removals), tuple(spared), _freed(removals))


def _leftovers(root: Path) -> Iterator[Path]:
    for pattern in LEFTOVERS:
        yield from sorted(root.glob(pattern))
    for store in sorted(folder / STORE_NAME for folder in root.glob("nights/*")):
        if parts_folder(store).is_dir() and not store.exists():
            yield parts_folder(store)


def _staying(nights: Sequence[NightEntry], keep: int) -> dict[NightEntry, str]:
    """The nights that stay, newest first, with the reason where it is another than being among the newest."""
    sealed = [night for night in nights if night.state == "sealed"]
    newest = sealed[0].id if sealed else ""
    oldest = sealed[keep - 1].id if len(sealed) >= keep else ""
    unaudited = [night for night in nights if night.has_store and night.state in ("failed", "interrupted")][:keep]
    stay: dict[NightEntry, str] = {}
    for night in nights:
        if night in sealed[:keep]:
            stay[night] = ""
        elif night.is_latest:
            stay[night] = "is the latest"
        elif night.is_pinned:
            stay[night] = "is pinned"
        elif night.state == "running":
            stay[night] = "is running"
        elif night.state == "damaged":
            stay[night] = (
                f"is damaged, and what cannot be read is not removed: {night.note}; mend it, or remove it yourself"
            )
        elif night.can_resume and night.id > newest:
            stay[night] = (
                f"is {night.state} and newer than the last sealed night: `nightlens run --resume` continues it"
            )
        elif night in unaudited and night.id > oldest:
            stay[night] = f"is {night.state}, but has a store, which is kept as long as a sealed night's"
    return stay


def _models(folder: Path, referred: set[str | None], spared: list[str]) -> Iterator[Removal]:
    """The files of the models that no night refers to; a model is a .keras file and the record beside it."""
    for record in sorted(folder.glob("*.json")):
        try:
            sha256 = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            sha256 = None
        if not isinstance(sha256, str):
            spared.append(f"{record.name}: no model record that can be read")
            continue
        if sha256 not in referred:
            there = (path for path in (record.with_suffix(".keras"), record) if path.is_file())
            yield from (_removal(path, "model that no night refers to") for path in there)


def _removal(path: Path, why: str) -> Removal:
    return Removal(path, size_below(path), why)


def _freed(removals: Sequence[Removal]) -> int:
    """The bytes of the files that lose all of their names."""
    found = [status for removal in removals for status in files_below(removal.path)]
    names = Counter((status.st_dev, status.st_ino) for status in found)
    by_file = {(status.st_dev, status.st_ino): status for status in found}
    return sum(status.st_size for file, status in by_file.items() if names[file] == status.st_nlink)
