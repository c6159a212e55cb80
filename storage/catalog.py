"""The folder that holds all nights: where things lie under the root, and which night is the latest.

    <root>/nights/<utc>-<id>/attributions.h5    <root>/latest -> nights/...
    <root>/models/    <root>/datasets/    <root>/parts/<digest>/

Ids become names of folders, so an id that could lead out of the root is refused.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.durable import point_symlink
from storage.errors import StoreNotFound

STORE_NAME = "attributions.h5"
REPORT_NAME = "report.html"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


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

    def latest(self) -> Path | None:
        """The folder of the latest sealed night, or None before the first. Raises StoreNotFound if it was removed."""
        link = Path(self.root) / "latest"
        if not link.is_symlink():
            return None
        if not (link / STORE_NAME).is_file():
            raise StoreNotFound(f"{link} points to {link.readlink()}, which has no {STORE_NAME}; {_known(self)}")
        return self.nights / link.resolve().name

    def point_latest(self, night_dir: Path) -> None:
        """Make `latest` point to a sealed night, in one step.

        Raises ValueError for a folder that is no night of this root, StoreNotFound for one without a store.
        """
        night_dir = Path(night_dir)
        if night_dir.resolve().parent != self.nights.resolve():
            raise ValueError(f"expected a night in {self.nights}, got {night_dir}")
        if not (night_dir / STORE_NAME).is_file():
            raise StoreNotFound(f"{night_dir} has no {STORE_NAME}; seal the night before making it the latest")
        point_symlink(Path(self.root) / "latest", Path("nights") / night_dir.resolve().name)


def new_night_id(now_utc: datetime, suffix: str) -> str:
    """The id of a night that begins now, e.g. 20261123T020000Z-ab12cd: sorted by name is sorted by time.

    Raises ValueError for a time without a zone, or a suffix that is no plain name.
    """
    if now_utc.tzinfo is None:
        raise ValueError(f"expected a time with a time zone, got {now_utc!r}; use datetime.now(UTC)")
    return f"{now_utc.astimezone(UTC):%Y%m%dT%H%M%SZ}-{_safe(suffix, 'a suffix')}"


def resolve_store(path: Path | str) -> Path:
    """The attributions.h5 that is meant by a file, a night's folder, the `latest` symlink or the root.

    The night is fixed by this call: a `latest` that moves later does not change what is returned.
    Raises StoreNotFound, saying what to do.
    """
    path = Path(path)
    for candidate in (path, path / STORE_NAME, path / "latest" / STORE_NAME):
        if candidate.is_file():
            return candidate.resolve()
    if path.is_dir():
        raise StoreNotFound(f"{path}: neither {STORE_NAME} nor latest/{STORE_NAME} is in it; {_known(Catalog(path))}")
    raise StoreNotFound(
        f"{path}: no such file or folder; give {STORE_NAME}, the folder of a night, or the root of nights"
    )


def _known(catalog: Catalog) -> str:
    nights = [night.name for night in catalog.list_nights()]
    return f"the latest sealed nights are {nights[-3:]}" if nights else "no night was sealed here yet: `nightlens run`"


def _safe(name: str, what: str) -> str:
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(f"expected {what} of letters, digits, '.', '_' and '-', got {name!r}")
    return name
