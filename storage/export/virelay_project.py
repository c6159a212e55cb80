"""A store as projects that ViRelAy opens: one YAML per method and target strategy, which share images and label map.

    label-map.json  dataset.h5  METHOD-STRATEGY.yaml  METHOD-STRATEGY.attributions.h5  METHOD-STRATEGY.analysis.h5

What ViRelAy makes of it (version 1.0.0; project file format and database specification of its documentation): `index` counts
samples of dataset.h5, not rows, so dataset.h5 has the row numbers beside; a category of an analysis is found in the label map
by its WordNet id, for which the class number stands; a clustering and an embedding are plain datasets.

The analysis is a first look, no substitute for SpRAy: of each class that is explained, the principal components of the
heat maps (attributions summed over channels, each divided by its L2 norm), and the rows clustered by what the store knows
of them, `correct` (0 wrong, 1 right) and `converged`.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from storage.export import Progress
from storage.export.blocks import blocks
from storage.store import AttributionStore, Target

STRATEGIES: dict[str, Target] = {"true_label": "true", "predicted_label": "predicted"}
METHODS = {"integrated-gradients": "Integrated Gradients", "grad-cam": "Grad-CAM"}
COMPONENTS = 8
# Of a class's heat maps that are held at once for its principal components.
ANALYSIS_BYTES = 256 << 20
CHUNK_BYTES = 1 << 20
FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True}

Read = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def write(store: AttributionStore, rows: NDArray[np.int64], folder: Path, progress: Progress) -> None:
    """Write the projects of both methods and both target strategies."""
    _write_label_map(store, folder / "label-map.json")
    n_done, n_all = 0, len(rows) * (1 + len(METHODS) * len(STRATEGIES))
    for n_block in _write_dataset(store, rows, folder / "dataset.h5"):
        n_done += n_block
        progress(n_done, n_all)
    for method, title in METHODS.items():
        for strategy, target in STRATEGIES.items():
            name, read = f"{method}-{strategy.replace('_', '-')}", _reader(store, method, target)
            explained = store.labels if target == "true" else store.predictions
            labels = explained[rows - store.row_numbers[0]]
            for n_block in _write_attributions(store, rows, labels, read, folder / f"{name}.attributions.h5"):
                n_done += n_block
                progress(n_done, n_all)
            _write_analysis(store, rows, labels, target, read, folder / f"{name}.analysis.h5")
            _write_project(store, name, title, strategy, folder / f"{name}.yaml")


def _reader(store: AttributionStore, method: str, target: Target) -> Read:
    """Reads attributions (row, y, x, channel); a Grad-CAM map is enlarged and shared out evenly among the channels."""
    if method == "integrated-gradients":
        return lambda rows: store.attributions(rows, target)
    n_channels = store.image.shape[-1]

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        maps = store.upsampled_cam(rows, target) / np.float32(n_channels)
        return np.repeat(maps[..., None], n_channels, axis=-1)

    return read


def _write_label_map(store: AttributionStore, path: Path) -> None:
    labels = [
        {"index": number, "word_net_id": _category(number), "name": name}
        for number, name in enumerate(store.class_names)
    ]
    path.write_text(json.dumps(labels, indent=1, ensure_ascii=False), encoding="utf-8")


def _category(class_number: int) -> str:
    return f"{class_number:08d}"


def _channels_first(values: NDArray) -> NDArray:
    return np.moveaxis(values, -1, 1)


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
    chunks = (max(1, min(shape[0], CHUNK_BYTES // (int(np.prod(shape[1:])) * np.dtype(dtype).itemsize))), *shape[1:])
    return file.create_dataset(name, shape, dtype, maxshape=(None, *shape[1:]), chunks=chunks, **FILTERS)


def _write_dataset(store: AttributionStore, rows: NDArray[np.int64], path: Path) -> Iterator[int]:
    """The images, and of each sample its row; yields the number of rows that each block adds."""
    y, x, channel = store.image.shape[1:]
    with h5py.File(path, "w") as file:
        data = _create(file, "data", (len(rows), channel, y, x), "uint8")
        file["label"] = store.labels[rows - store.row_numbers[0]].astype(np.uint16)
        file["row"] = rows
        for start, block in blocks(store, rows):
            data[start : start + len(block)] = _channels_first(store.image[block])
            yield len(block)


def _write_attributions(
    store: AttributionStore, rows: NDArray[np.int64], labels: NDArray[np.int64], read: Read, path: Path
) -> Iterator[int]:
    """labels: the class that each attribution explains. Yields as _write_dataset does."""
    y, x, channel = store.image.shape[1:]
    with h5py.File(path, "w") as file:
        attribution = _create(file, "attribution", (len(rows), channel, y, x), "float32")
        file["prediction"] = store.probabilities[rows - store.row_numbers[0]]
        file["label"] = labels.astype(np.uint16)
        file["index"] = np.arange(len(rows), dtype=np.uint32)
        file["row"] = rows
        for start, block in blocks(store, rows):
            attribution[start : start + len(block)] = _channels_first(read(block))
            yield len(block)


def _write_analysis(
    store: AttributionStore, rows: NDArray[np.int64], labels: NDArray[np.int64], target: Target, read: Read, path: Path
) -> None:
    """A group per class that is explained, called as in the label map."""
    certificate = store.certificate(target, rows=rows)
    correct = (store.labels == store.predictions)[rows - store.row_numbers[0]]
    with h5py.File(path, "w") as file:
        for number in np.unique(labels).tolist():
            samples = np.flatnonzero(labels == number)
            embedding, eigenvalues = principal_components(_heat_maps(store, rows[samples], read))
            group = file.create_group(_category(number))
            group["name"] = store.class_names[number]
            group["index"] = samples.astype(np.uint32)
            group["embedding/pca"] = embedding
            group["embedding/pca"].attrs["eigenvalue"] = eigenvalues
            group["cluster/correct"] = correct[samples].astype(np.uint32)
            group["cluster/converged"] = certificate["converged"].to_numpy()[samples].astype(np.uint32)


def _heat_maps(store: AttributionStore, rows: NDArray[np.int64], read: Read) -> NDArray[np.float32]:
    """(row, feature): summed over channels, of norm 1; thinned out to every n-th pixel where all would be too large."""
    y, x = store.image.shape[1:3]
    stride = 1
    while len(rows) * -(-y // stride) * -(-x // stride) * 4 > ANALYSIS_BYTES:
        stride += 1
    pieces = [
        read(block).sum(axis=-1)[:, ::stride, ::stride].reshape(len(block), -1) for _, block in blocks(store, rows)
    ]
    maps = np.concatenate(pieces)
    norms = np.linalg.norm(maps, axis=1, keepdims=True)
    return maps / np.where(norms > 0, norms, 1)


def principal_components(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The coordinates (row, component) along the principal components, and the variance along each, largest first.

    features: (row, feature). There are COMPONENTS of them, zero where rows or features are fewer. Signs are such that the
    largest coordinate of each is positive.
    """
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    n = min(COMPONENTS, len(singular))
    coordinates = left[:, :n] * singular[:n]
    largest = np.take_along_axis(coordinates, np.abs(coordinates).argmax(axis=0)[None], axis=0)
    coordinates = coordinates * np.where(largest < 0, -1, 1)
    variance = singular[:n] ** 2 / max(1, len(features) - 1)
    return (
        np.pad(coordinates, ((0, 0), (0, COMPONENTS - n))).astype(np.float32),
        np.pad(variance, (0, COMPONENTS - n)).astype(np.float32),
    )


def _write_project(store: AttributionStore, name: str, method: str, strategy: str, path: Path) -> None:
    about = store.attributes
    project = {
        "name": f"{about['dataset_name']}: {method}, {strategy.replace('_', ' ')}, {about['run_id']}",
        "model": about["model_name"],
        "label_map": "label-map.json",
        "dataset": {
            "name": about["dataset_name"],
            "type": "hdf5",
            "path": "dataset.h5",
            "input_width": store.image.shape[2],
            "input_height": store.image.shape[1],
            "up_sampling_method": "none",
            "down_sampling_method": "none",
        },
        "attributions": {
            "attribution_method": method,
            "attribution_strategy": strategy,
            "sources": [f"{name}.attributions.h5"],
        },
        "analyses": [{"analysis_method": "Principal components", "sources": [f"{name}.analysis.h5"]}],
    }
    path.write_text(yaml.safe_dump({"project": project}, sort_keys=False, allow_unicode=True), encoding="utf-8")
