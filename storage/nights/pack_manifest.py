"""What a packed night's file holds, and how each of its entries is known: the manifest, and which names are let through.

A pack is a zip whose entries are stored as they are, so that nothing of it has to be unpacked to be looked at:

    README.txt                 for the person who receives it
    night/...                  the night's folder: store, checksums, report, gallery, records
    models/...                 the model's file or folder, its record, its code
    sample.npz                 the training images on which the contract is proved
    contract.json, environment.json, requirements.txt
    manifest.json              bytes and sha256 of each of these; its own sha256 is the zip's comment, and is printed

Whoever changes an entry is noticed by the manifest, and whoever changes the manifest, too, has another checksum to print.
"""

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from storage.errors import StoreCorrupt, StoreFormatError
from storage.file.catalog import SAFE_NAME

__all__ = ["DOCUMENTS", "MANIFEST", "Entry", "Manifest", "checked_entries", "is_plain", "read_manifest"]

VERSION = 1
MANIFEST = "manifest.json"
# What goes beside the night, into its folder `handover`.
DOCUMENTS = ("README.txt", "contract.json", "environment.json", "requirements.txt", "sample.npz")
FOLDERS = ("night", "models")
COMMENT = re.compile(r"nightlens pack (\d+), manifest sha256 ([0-9a-f]{64})")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_MANIFEST_BYTES = 256 << 20
ENCRYPTED = 1
AGAIN = "ask for the file again, or copy it again"


@dataclass(frozen=True)
class Entry:
    """bytes, sha256: of an entry as it is in the file and on the disk."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """night: its id. model_sha256: of its model. without: what was left out. entries: by name, but the manifest itself."""

    night: str
    model_sha256: str
    made_utc: str
    without: tuple[str, ...]
    entries: Mapping[str, Entry]

    def text(self) -> bytes:
        """As it is written."""
        about: dict[str, Any] = asdict(self) | {"nightlens_pack": VERSION}
        return json.dumps(about, indent=1, sort_keys=True).encode()

    @property
    def bytes(self) -> int:
        """Of all entries together."""
        return sum(entry.bytes for entry in self.entries.values())


def comment_of(text: bytes) -> bytes:
    """The zip's comment, by which the text of a manifest is known."""
    return f"nightlens pack {VERSION}, manifest sha256 {hashlib.sha256(text).hexdigest()}".encode()


def is_plain(name: str) -> bool:
    """Whether an entry's name leads to a file below the folder that it is written into, on any system."""
    parts = name.split("/")
    return all(
        part not in ("", ".", "..") and part.isprintable() and not set(part) & set('\\:*?"<>|') for part in parts
    )


def read_manifest(archive: zipfile.ZipFile, shown: str) -> tuple[Manifest, bytes]:
    """The manifest of a pack that is open, and its text, once its checksum is compared. shown: what the file is called.

    Raises StoreFormatError for what is no pack, or one of a later version, StoreCorrupt for one that was changed.
    """
    said = COMMENT.fullmatch(archive.comment.decode("ascii", errors="replace"))
    found = [info for info in archive.infolist() if info.filename == MANIFEST]
    if said is None or len(found) != 1:
        raise StoreFormatError(f"{shown}: expected a night as `nightlens pack` makes it, got another zip; {AGAIN}")
    if int(said[1]) != VERSION:
        raise StoreFormatError(f"{shown}: a pack of version {said[1]}, expected {VERSION}; install a newer nightlens")
    if found[0].file_size > MOST_MANIFEST_BYTES or _refused(found[0]):
        raise StoreFormatError(f"{shown}: {MANIFEST}: expected a manifest of at most 256 MB; {AGAIN}")
    try:
        text = archive.read(found[0])
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise StoreCorrupt(f"{shown}: {MANIFEST} was changed ({error}); {AGAIN}") from error
    if hashlib.sha256(text).hexdigest() != said[2]:
        raise StoreCorrupt(f"{shown}: {MANIFEST} was changed: its sha256 is not the one in the zip's comment; {AGAIN}")
    return _parsed(text, shown), text


def _parsed(text: bytes, shown: str) -> Manifest:
    try:
        about = json.loads(text)
        entries = {str(name): Entry(int(e["bytes"]), str(e["sha256"])) for name, e in about["entries"].items()}
        manifest = Manifest(
            night=str(about["night"]),
            model_sha256=str(about["model_sha256"]),
            made_utc=str(about["made_utc"]),
            without=tuple(map(str, about["without"])),
            entries=entries,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreFormatError(f"{shown}: {MANIFEST} is no manifest of a night ({error}); {AGAIN}") from error
    if not SAFE_NAME.fullmatch(manifest.night):
        raise StoreFormatError(f"{shown}: {MANIFEST}: expected the id of a night, got {manifest.night!r}; {AGAIN}")
    for name, entry in entries.items():
        if entry.bytes < 0 or not SHA256.fullmatch(entry.sha256):
            raise StoreFormatError(f"{shown}: {MANIFEST}: {name!r} has no size and sha256; {AGAIN}")
    return manifest


def checked_entries(archive: zipfile.ZipFile, manifest: Manifest, shown: str) -> list[tuple[zipfile.ZipInfo, Entry]]:
    """The entries of a pack, but its manifest, with what they must be, once it is sure that all of them may be written.

    Raises StoreCorrupt naming an entry that is missing, additional, there twice or of another size, one that leads out of its
    folder, and one that is a link, a folder, packed or encrypted.
    """
    found = list[tuple[zipfile.ZipInfo, Entry]]()
    names = set[str]()
    for info in archive.infolist():
        # Of a name with a NUL zipfile keeps what is before it; a name that it cannot decode is another than the manifest's.
        name = info.filename
        top, _, below = name.partition("/")
        if not is_plain(name) or not (name in (*DOCUMENTS, MANIFEST) or (top in FOLDERS and below)):
            raise StoreCorrupt(f"{shown}: the entry {info.orig_filename!r} may not be written anywhere; {AGAIN}")
        if name in names:
            raise StoreCorrupt(f"{shown}: the entry {name!r} is there twice; {AGAIN}")
        if wrong := _refused(info):
            raise StoreCorrupt(f"{shown}: the entry {name!r} is {wrong}; {AGAIN}")
        names.add(name)
        if name == MANIFEST:
            continue
        entry = manifest.entries.get(name)
        if entry is None:
            raise StoreCorrupt(f"{shown}: the entry {name!r} is not in its manifest; {AGAIN}")
        if info.file_size != entry.bytes or info.compress_size != entry.bytes:
            came = f"expected {entry.bytes:,} bytes, got {info.file_size:,}"
            raise StoreCorrupt(f"{shown}: the entry {name!r} was changed: {came}; {AGAIN}")
        found.append((info, entry))
    if missing := sorted(manifest.entries.keys() - names):
        raise StoreCorrupt(f"{shown}: the entry {missing[0]!r} is missing, {len(missing)} in all; {AGAIN}")
    return found


def _refused(info: zipfile.ZipInfo) -> str:
    """What an entry is that no pack has; empty for a plain file."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link"
    if info.is_dir() or kind not in (0, stat.S_IFREG):
        return "no plain file"
    if info.flag_bits & ENCRYPTED:
        return "encrypted"
    return "" if info.compress_type == zipfile.ZIP_STORED else "compressed, and a pack's are not"
