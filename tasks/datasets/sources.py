"""From a configured source to a prepared dataset and its record.

Convention: `digits` is the embedded dataset; an existing path is that path (write ./digits for a folder called so);
what ends in .npz or starts like a path must exist; the rest is a TFDS name. The record is kept in
<root>/datasets/.records, so that a nightly run does not hash a dataset again whose files have the sizes and
modification times they had.
"""

import hashlib
import io
import json
import logging
import os
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.config import DatasetConfig
from tasks.datasets.arrays import prepare_digits, prepare_npz
from tasks.datasets.conversion import DIGEST_PREFIX, is_prepared, original_names, remarks
from tasks.datasets.dataset import Dataset, DatasetError
from tasks.datasets.folder import prepare_folder
from tasks.datasets.named import NAME, OTHER_SOURCES, display_names, is_known, prepare_named
from tasks.datasets.reading import batches, classification_keys, damage_named, load_builder, locate, open_split
from tasks.datasets.transform import Extent, plan

__all__ = ["prepare"]

logger = logging.getLogger("nightlens")

# Part of the key of every kept record: raise it when the record or the fingerprint changes its meaning.
RECORD = "1"


def prepare(config: DatasetConfig, root: Path) -> Dataset:
    """Brings the configured source to a TFDS-prepared directory, converting or downloading once, and describes it.

    root: folder of the night's files; what is converted or downloaded goes to root/datasets.
    Raises DatasetError if the source cannot be used.
    """
    directory = _prepare_source(config, root).resolve()
    record = _record_path(config, root, directory)
    files = _signature(directory)
    dataset = _kept(record, files)
    if dataset is None:
        dataset = _describe(config, directory)
        _keep(record, files, dataset)
    return dataset.model_copy(update={"source": config.source})


def _prepare_source(config: DatasetConfig, root: Path) -> Path:
    """The prepared directory."""
    source = config.source
    if source == "digits":
        return prepare_digits(root)
    path = Path(source).expanduser()
    if path.exists():
        if is_known(source):
            logger.warning(
                "%s is a file or folder here, not taken as the TFDS name; for that write NAME:VERSION", source
            )
        return _prepare_path(path, root)
    if source.endswith(".npz") or source.startswith((".", "~", "/", os.sep)):
        raise DatasetError(f"{source}: no such file or folder (from {Path.cwd()}); other sources: {OTHER_SOURCES}")
    if not NAME.fullmatch(source) or ("/" in source and not is_known(source)):
        raise DatasetError(f"{source}: neither a path that exists nor a TFDS name; other sources: {OTHER_SOURCES}")
    return prepare_named(source, config.data_dir, root)


def _prepare_path(path: Path, root: Path) -> Path:
    if path.is_dir():
        return path if is_prepared(path) else prepare_folder(path, root)
    if path.suffix == ".npz":
        return prepare_npz(path, root)
    raise DatasetError(f"{path}: expected a .npz file or a folder, got another file; other sources: {OTHER_SOURCES}")


def _describe(config: DatasetConfig, directory: Path) -> Dataset:
    """Reads the whole dataset once: sizes, counts and fingerprint."""
    info = load_builder(directory).info
    image, label = classification_keys(info)
    ranges = {role: locate(info, split) for role, split in _splits(config).items()}
    n_rows = {role: sum(stop - start for _, start, stop in parts) for role, parts in ranges.items()}
    with damage_named(directory):
        extent = _measure(config, directory, info.features[image].shape, n_rows)
    transform = plan(config, extent)
    converted = (info.config_name or "").startswith(DIGEST_PREFIX)
    named = f"{info.name}/{info.config_name}" if info.config_name and not converted else info.name
    names = tuple(info.features[label].names)
    remark = "; ".join(remarks(info.description, "prepared")) if converted else ""
    draft = Dataset(
        name=named,
        version=info.config_name.removeprefix(DIGEST_PREFIX) if converted else str(info.version),
        source=config.source,
        directory=directory,
        train_split=config.train_split,
        test_split=config.test_split,
        class_names=original_names(info.description, names) if converted else display_names(named, names),
        n_train=n_rows["train"],
        n_test=n_rows["test"],
        source_shape=extent.shape,
        shape=transform.shape,
        transform=f"when prepared: {remark}; when read: {transform.text}" if remark else transform.text,
        geometry=transform.geometry,
        grey_to_rgb=transform.grey_to_rgb,
        train_counts=(),
        test_counts=(),
        sha256="",
    )
    sha256, counts = _fingerprint(draft)
    warnings = remarks(info.description, "warning") if converted else []
    warnings += _doubts(draft, counts, ranges)
    return draft.model_copy(
        update={
            "sha256": sha256,
            "train_counts": tuple(counts["train"].tolist()),
            "test_counts": tuple(counts["test"].tolist()),
            "warnings": tuple(warnings),
        }
    )


def _splits(config: DatasetConfig) -> dict[str, str]:
    return {"train": config.train_split, "test": config.test_split}


def _measure(config: DatasetConfig, directory: Path, shape: tuple[int | None, ...], n_rows: dict[str, int]) -> Extent:
    """The extent of the stored images; where TFDS does not declare their size, from the header of every one."""
    y, x, n_channels = shape
    if y is not None and x is not None and n_channels is not None:
        return Extent(y, y, x, x, n_channels)
    sizes = set()
    for role, split in _splits(config).items():
        for encoded, _ in open_split(directory, split, 0, n_rows[role], decode=False):
            with Image.open(io.BytesIO(encoded.numpy())) as image:
                sizes.add(image.size)
    ys, xs = [size[1] for size in sizes], [size[0] for size in sizes]
    return Extent(min(ys), max(ys), min(xs), max(xs), n_channels or 3)


def _fingerprint(dataset: Dataset) -> tuple[str, dict[str, npt.NDArray[np.int64]]]:
    """The sha256 that Dataset defines, and the images of each class in train and test."""
    digest, counts = hashlib.sha256(), {}
    for role in ("train", "test"):
        shape = (dataset.n_rows(role), *dataset.shape)
        digest.update(f"{role} {' '.join(str(length) for length in shape)}\n".encode())
        parts = []
        for images, labels in batches(dataset, role):
            digest.update(np.ascontiguousarray(images).data)
            parts.append(labels)
        labels = np.concatenate(parts)
        outside = np.flatnonzero((labels < 0) | (labels >= dataset.n_classes))
        if outside.size:
            raise DatasetError(
                f"{dataset.name}: labels must lie in 0..{dataset.n_classes - 1}, got {labels[outside[0]]} in row "
                f"{outside[0]} of split {dataset.split(role)}; choose a labelled split"
            )
        digest.update(labels.astype("<i8").tobytes())
        counts[role] = np.bincount(labels, minlength=dataset.n_classes)
    return digest.hexdigest(), counts


def _doubts(
    dataset: Dataset, counts: dict[str, npt.NDArray[np.int64]], ranges: dict[str, list[tuple[str, int, int]]]
) -> list[str]:
    """What is allowed and yet worth a look."""
    doubts = []
    for role in ("train", "test"):
        absent = [dataset.class_names[index] for index in np.flatnonzero(counts[role] == 0)]
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            doubts.append(f"no image of class {', '.join(absent[:5])}{more} in the {role} split")
    shared = sum(
        max(0, min(stop, other_stop) - max(start, other_start))
        for name, start, stop in ranges["train"]
        for other, other_start, other_stop in ranges["test"]
        if name == other
    )
    if shared:
        doubts.append(f"{shared} rows of the test split are in the train split too")
    return doubts


def _record_path(config: DatasetConfig, root: Path, directory: Path) -> Path:
    decisive: dict[str, Any] = config.model_dump(mode="json", exclude={"source", "data_dir"})
    decisive |= {"directory": str(directory), "record": RECORD}
    decisive |= {name: version(name) for name in ("tensorflow", "tensorflow-datasets")}
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return root / "datasets" / ".records" / f"{key[:16]}.json"


def _signature(directory: Path) -> list[list[Any]]:
    """Name, size and modification time of the files of a prepared directory."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _kept(record: Path, files: list[list[Any]]) -> Dataset | None:
    """The record, if it was kept for these very files."""
    if not record.is_file():
        return None
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        return Dataset.model_validate(kept["dataset"]) if kept["files"] == files else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read and is made again (%s)", record, error)
        return None


def _keep(record: Path, files: list[list[Any]], dataset: Dataset) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_name(f"{record.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(json.dumps({"files": files, "dataset": dataset.model_dump(mode="json")}), encoding="utf-8")
    partial.replace(record)
