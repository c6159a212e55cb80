"""Which files make a night that can be handed over: those of its folder, its model's, and the sample of training images."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from storage.errors import StoreNotFound
from storage.file.catalog import REPORT_NAME, STORE_NAME, Catalog
from storage.nights.night_entries import PIN, UNFINISHED
from storage.nights.pack_manifest import is_plain
from storage.read.parts.linked_parts import parts_folder

__all__ = ["HANDOVER", "model_digest", "model_files", "night_files", "own_root", "sample_file"]

# What an unpacked night has beside its own files: the documents of its pack.
HANDOVER = "handover"
SUFFIXES = ("*.keras", "*.h5", "*.hdf5")


def own_root(store: Path) -> Path | None:
    """The root that a store lies in, None for one elsewhere."""
    nights = store.absolute().parent.parent
    return nights.parent if nights.name == "nights" else None


def night_files(store: Path, *, images: bool) -> Iterator[tuple[str, Path]]:
    """The files of a night's folder by their entry's name, but pins, leftovers, and the papers of an earlier pack.

    images: false leaves out the store and all that shows pictures of its images: the report and the gallery.
    Raises ValueError for a link, and for a name that not every system can write.
    """
    folder = store.parent
    shown = () if images else (STORE_NAME, f"{STORE_NAME}.sha256", parts_folder(store).name, REPORT_NAME, "gallery")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        top = name.partition("/")[0]
        if top in (PIN, HANDOVER, *shown) or path.suffix in UNFINISHED or top.startswith("."):
            continue
        if path.is_symlink():
            raise ValueError(f"{path} is a link, and a packed night holds files only; put the file in its place")
        if path.is_file():
            yield _entry(f"night/{name}", path), path


def model_files(
    attributes: Mapping[str, Any], store: Path, root: Path | None, given: Path | None
) -> Iterator[tuple[str, Path]]:
    """The model's file, or those of its folder, with its record and its code, by their entry's name.

    root: where models are looked for, too. given: the model's path, by default found by its sha256.
    Raises StoreNotFound if the model of that sha256 is not there, or its code.
    """
    resolved = attributes.get("configuration", {}).get("resolved", {})
    path = _find_model(attributes, resolved, (root, own_root(store)), given)
    inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in inside:
        yield _entry(f"models/{file.relative_to(path.parent).as_posix()}", file), file
    record = path.with_suffix(".json")
    if record.is_file() and _sha256_in(record) == attributes["model_sha256"]:
        yield _entry(f"models/{record.name}", record), record
    if resolved.get("model_code_sha256"):
        yield _code(resolved, path)


def _find_model(
    attributes: Mapping[str, Any], resolved: Mapping[str, Any], roots: tuple[Path | None, ...], given: Path | None
) -> Path:
    sha256, recorded = attributes["model_sha256"], resolved.get("model_path")
    candidates = [given] if given else [Path(recorded)] if recorded else []
    folders = [Catalog(root).models for root in roots if root and not given]
    for folder in folders:
        candidates += [path for pattern in SUFFIXES for path in sorted(folder.glob(pattern))]
        candidates += [path.parent for path in sorted(folder.glob("*/saved_model.pb"))]
    for path in candidates:
        if path.exists() and model_digest(path) == sha256:
            return path
    where = " nor in ".join(map(str, [candidates[0] if candidates else "its recorded place", *folders]))
    raise StoreNotFound(
        f"the model {attributes['model_name']} with the sha256 {sha256} is neither at {where}; give its file with --model, or "
        "pack the night with `--without model`"
    )


def _code(resolved: Mapping[str, Any], model: Path) -> tuple[str, Path]:
    recorded = Path(str(resolved.get("model_code")))
    for path in (recorded, model.parent / recorded.name):
        if path.is_file() and model_digest(path) == resolved["model_code_sha256"]:
            return _entry(f"models/{path.name}", path), path
    raise StoreNotFound(
        f"the code that the model needs is not at {recorded} as it was; put it there, or pack the night with `--without model`"
    )


def model_digest(path: Path) -> str:
    """As tasks.models.digest_file: the sha256 of a file; of a folder that over the path and the sha256 of each of its files."""
    if path.is_dir():
        digest = hashlib.sha256()
        for name, inside in sorted((f.relative_to(path).as_posix(), f) for f in path.rglob("*") if f.is_file()):
            digest.update(f"{model_digest(inside)}  {name}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_in(record: Path) -> object:
    """What a model's record says of it; None for a .json that is somebody else's."""
    try:
        about = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return about.get("sha256") if isinstance(about, dict) else None


def sample_file(attributes: Mapping[str, Any], store: Path) -> Path | None:
    """The sample of training images on which the contract is proved: as recorded, or as it came with the night."""
    dataset = attributes.get("configuration", {}).get("resolved", {}).get("dataset", {})
    recorded = dataset.get("sample") if isinstance(dataset, Mapping) else None
    candidates = [store.parent / HANDOVER / "sample.npz", *([Path(recorded)] if recorded else [])]
    if recorded and (root := own_root(store)):
        candidates.append(Catalog(root).datasets / ".records" / Path(recorded).name)
    return next((path for path in candidates if path.is_file()), None)


def _entry(name: str, path: Path) -> str:
    if not is_plain(name):
        raise ValueError(f"{path}: not every system can write a file of this name; rename it, and pack again")
    return name
