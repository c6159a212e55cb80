"""The folder that holds all nights: where things lie under the root, and which night is the latest.

    <root>/nights/<utc>-<id>/attributions.h5    <root>/latest -> nights/...
    <root>/models/    <root>/datasets/    <root>/parts/<digest>/

Where the file system has no symbolic links `latest` is a file that says nights/... instead; whatever takes a path here
follows it.
Ids become names of folders, so an id that could lead out of the root is refused.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.errors import StoreNotFound
from storage.file.disk.durable import NO_LINKS, point_symlink, replacing

STORE_NAME = "attributions.h5"
REPORT_NAME = "report.html"
LATEST = "latest"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# What a file `latest` holds, and more bytes than that can be.
POINTER = re.compile(rf"nights/({SAFE_NAME.pattern})\n".encode())
POINTER_BYTES = 256


@dataclass(frozen=True)
class Catalog:
    """The layout under one root. Nothing is created by asking for a path."""

    root: Path

    @property
    def nights(self) -> Path:
        """Where every night has its folder."""
        return Path(self.root) / "nights"

    @property
    def models(self) -> Path:
        """The registry of models."""
        return Path(self.root) / "models"

    @property
    def datasets(self) -> Path:
        """The prepared datasets."""
        return Path(self.root) / "datasets"

    def night_dir(self, night_id: str) -> Path:
        """The folder of a night. Raises ValueError for an id that is no plain name."""
        return self.nights / _safe(night_id, "a night's id")

    def parts_dir(self, digest: str) -> Path:
        """The folder of the parts of one dataset, model and configuration. Raises ValueError as night_dir does."""
        return Path(self.root) / "parts" / _safe(digest, "a digest")

    def list_nights(self) -> list[Path]:
        """The folders of all nights that have a sealed store, oldest first."""
        return sorted(folder.parent for folder in self.nights.glob(f"*/{STORE_NAME}"))

    def latest_name(self) -> str | None:
        """The id of the night that `latest` names, which may be gone; None where there is no `latest`."""
        pointer = Path(self.root) / LATEST
        return pointer.readlink().name if pointer.is_symlink() else night_in_file(pointer)

    def latest(self) -> Path | None:
        """The folder of the latest sealed night, or None before the first. Raises StoreNotFound if it was removed."""
        name = self.latest_name()
        if name is None:
            return None
        link = Path(self.root) / LATEST
        night = self.nights / (link.resolve().name if link.is_symlink() else name)
        if not (night / STORE_NAME).is_file():
            raise StoreNotFound(f"{link} points to {Path('nights') / name}, which has no {STORE_NAME}; {_known(self)}")
        return night

    def point_latest(self, night_dir: Path) -> bool:
        """Make `latest` point to a sealed night, in one step. Returns whether by a symbolic link, else by a file.

        Raises ValueError for a folder that is no night of this root, StoreNotFound for one without a store.
        """
        night_dir, pointer = Path(night_dir), Path(self.root) / LATEST
        if night_dir.resolve().parent != self.nights.resolve():
            raise ValueError(f"expected a night in {self.nights}, got {night_dir}")
        if not (night_dir / STORE_NAME).is_file():
            raise StoreNotFound(f"{night_dir} has no {STORE_NAME}; seal the night before making it the latest")
        target = Path("nights") / night_dir.resolve().name
        try:
            point_symlink(pointer, target)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with replacing(pointer) as temporary:
                temporary.write_bytes(f"{target.as_posix()}\n".encode())
            return False
        return True


def night_in_file(pointer: Path) -> str | None:
    """The id of the night that a file `latest` names; None if it is no such file."""
    try:
        with pointer.open("rb") as file:
            return night_in_text(file.read(POINTER_BYTES))
    except OSError:
        return None


def night_in_text(text: bytes) -> str | None:
    """The same, given how such a file begins."""
    found = POINTER.fullmatch(text)
    return found[1].decode() if found else None


def new_night_id(now_utc: datetime, suffix: str) -> str:
    """The id of a night that begins now, e.g. 20261123T020000Z-ab12cd: sorted by name is sorted by time.

    Raises ValueError for a time without a zone, or a suffix that is no plain name.
    """
    if now_utc.tzinfo is None:
        raise ValueError(f"expected a time with a time zone, got {now_utc!r}; use datetime.now(UTC)")
    return f"{now_utc.astimezone(UTC):%Y%m%dT%H%M%SZ}-{_safe(suffix, 'a suffix')}"


def resolve_store(path: Path | str) -> Path:
    """The attributions.h5 that is meant by a file, a night's folder, `latest`, a path below it, or the root.

    The night is fixed by this call: a `latest` that moves later does not change what is returned.
    Raises StoreNotFound, saying what to do.
    """
    path = _followed(Path(path))
    for candidate in (path, path / STORE_NAME, _followed(path / LATEST / STORE_NAME)):
        if candidate.is_file():
            return candidate.resolve()
    if path.is_dir():
        raise StoreNotFound(f"{path}: neither {STORE_NAME} nor latest/{STORE_NAME} is in it; {_known(Catalog(path))}")
    raise StoreNotFound(
        f"{path}: no such file or folder; give {STORE_NAME}, the folder of a night, or the root of nights"
    )


def _followed(path: Path) -> Path:
    """A path that leads through a file `latest`, as it would lead through the symbolic link; any other as it is."""
    for pointer in (path, *path.parents):
        if pointer.name == LATEST and (night := night_in_file(pointer)):
            return pointer.parent / "nights" / night / path.relative_to(pointer)
    return path


def _known(catalog: Catalog) -> str:
    nights = [night.name for night in catalog.list_nights()]
    return f"the latest sealed nights are {nights[-3:]}" if nights else "no night was sealed here yet: `nightlens run`"


def _safe(name: str, what: str) -> str:
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(f"expected {what} of letters, digits, '.', '_' and '-', got {name!r}")
    return name
