"""From a configured source to a prepared dataset and its record.

Convention: `digits` is the embedded dataset; an existing path is that path (write ./digits for a folder called so);
what ends in .npz or starts like a path must exist; the rest is a TFDS name. The record is kept in
<root>/datasets/.records, so that a nightly run does not hash a dataset again whose files have the sizes and
modification times they had.
"""

import hashlib
import json
import logging
import os
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.config import DatasetConfig
from tasks.datasets.class_order import OWN, Order, in_order
from tasks.datasets.conversion import DIGEST_PREFIX, is_prepared, original_names, remarks
from tasks.datasets.counting import Report
from tasks.datasets.dataset import Dataset, DatasetError
from tasks.datasets.formats.digits import prepare_digits
from tasks.datasets.formats.folder import prepare_folder
from tasks.datasets.formats.named import NAME, OTHER_SOURCES, display_names, is_known, prepare_named
from tasks.datasets.formats.npz import prepare_npz
from tasks.datasets.prepared_rows import classification_keys, damage_named, load_builder, stored_labels
from tasks.datasets.sample import keep_sample
from tasks.datasets.splits import count, locate
from tasks.datasets.survey import measure, survey
from tasks.datasets.transform import InputShape, follows_model, plan

__all__ = ["prepare"]

logger = logging.getLogger("nightlens")

# Part of the key of every kept record: raise it when the record or the fingerprint changes its meaning.
RECORD = "2"


def prepare(
    config: DatasetConfig, root: Path, input_shape: InputShape | None = None, report: Report | None = None
) -> Dataset:
    """Brings the configured source to a TFDS-prepared directory, converting or downloading once, and describes it.

    root: folder of the night's files; what is converted or downloaded goes to root/datasets.
    input_shape: (y, x, channel) of a given model, which transform auto follows; None for none, in it for any size.
    report: called from time to time where it takes long.
    Raises DatasetError if the source cannot be used.
    """
    directory = _prepare_source(config, root, report).resolve()
    record = _record_path(config, root, directory, input_shape)
    files = _signature(directory)
    dataset = _kept(record, files)
    if dataset is None:
        record.parent.mkdir(parents=True, exist_ok=True)
        dataset = _describe(config, directory, record, input_shape, report)
        _keep(record, files, dataset)
    return dataset.model_copy(update={"source": config.source})


def _prepare_source(config: DatasetConfig, root: Path, report: Report | None) -> Path:
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
        return _prepare_path(path, root, report)
    if source.endswith(".npz") or source.startswith((".", "~", "/", os.sep)):
        raise DatasetError(f"{source}: no such file or folder (from {Path.cwd()}); other sources: {OTHER_SOURCES}")
    if not NAME.fullmatch(source) or ("/" in source and not is_known(source)):
        raise DatasetError(f"{source}: neither a path that exists nor a TFDS name; other sources: {OTHER_SOURCES}")
    return prepare_named(source, config.data_dir, root)


def _prepare_path(path: Path, root: Path, report: Report | None) -> Path:
    if path.is_dir():
        return path if is_prepared(path) else prepare_folder(path, root, report)
    if path.suffix == ".npz":
        return prepare_npz(path, root, report)
    raise DatasetError(f"{path}: expected a .npz file or a folder, got another file; other sources: {OTHER_SOURCES}")


def _describe(
    config: DatasetConfig, directory: Path, record: Path, input_shape: InputShape | None, report: Report | None
) -> Dataset:
    """Reads the whole dataset once, and keeps a sample of it beside the record."""
    info = load_builder(directory).info
    image, label = classification_keys(info)

    def read_labels(split: str) -> npt.NDArray[np.int64]:
        return stored_labels(directory, [(split, 0, info.splits[split].num_examples)])

    ranges = {
        role: locate(info, split, read_labels)
        for role, split in (("train", config.train_split), ("test", config.test_split))
    }
    with damage_named(directory):
        extent = measure(directory, info.features[image].shape, ranges, report)
    transform = plan(config, extent, input_shape)
    converted = (info.config_name or "").startswith(DIGEST_PREFIX)
    named = f"{info.name}/{info.config_name}" if info.config_name and not converted else info.name
    order = _class_order(config, info, named, tuple(info.features[label].names), converted=converted)
    remark = "; ".join(remarks(info.description, "prepared")) if converted else ""
    draft = Dataset(
        name=named,
        version=info.config_name.removeprefix(DIGEST_PREFIX) if converted else str(info.version),
        source=config.source,
        directory=directory,
        train_split=config.train_split,
        test_split=config.test_split,
        train_ranges=ranges["train"],
        test_ranges=ranges["test"],
        class_names=order.names,
        class_order=order.text,
        label_mapping=order.mapping,
        n_train=count(ranges["train"]),
        n_test=count(ranges["test"]),
        source_shape=extent.shape,
        shape=transform.shape,
        transform=f"when prepared: {remark}; when read: {transform.text}" if remark else transform.text,
        geometry=transform.geometry,
        grey_to_rgb=transform.grey_to_rgb,
        rgb_to_grey=transform.rgb_to_grey,
        train_counts=(),
        test_counts=(),
        sha256="",
        sample=record.with_suffix(".sample.npz"),
    )
    found = survey(draft, report)
    keep_sample(draft.model_copy(update={"sha256": found.sha256}), found.sample)
    warnings = remarks(info.description, "warning") if converted else []
    return draft.model_copy(
        update={
            "sha256": found.sha256,
            "train_counts": tuple(found.counts["train"].tolist()),
            "test_counts": tuple(found.counts["test"].tolist()),
            "warnings": (*warnings, *found.warnings),
        }
    )


def _class_order(config: DatasetConfig, info: Any, name: str, stored: tuple[str, ...], *, converted: bool) -> Order:
    """The classes in the order that is set, or in the dataset's own."""
    if not converted:
        return in_order(name, display_names(name, stored), stored, OWN, config.class_order)
    names = original_names(info.description, stored)
    own = next(iter(remarks(info.description, "classes")), OWN)
    return in_order(name, names, names, own, config.class_order)


def _record_path(config: DatasetConfig, root: Path, directory: Path, input_shape: InputShape | None) -> Path:
    decisive: dict[str, Any] = config.model_dump(mode="json", exclude={"source", "data_dir"})
    decisive |= {"directory": str(directory), "record": RECORD}
    decisive |= {name: version(name) for name in ("tensorflow", "tensorflow-datasets")}
    if follows_model(input_shape, config):
        decisive["input_shape"] = list(input_shape)
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return (root / "datasets" / ".records" / f"{key[:16]}.json").absolute()


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
    partial = record.with_name(f"{record.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(json.dumps({"files": files, "dataset": dataset.model_dump(mode="json")}), encoding="utf-8")
    partial.replace(record)
