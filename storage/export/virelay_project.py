"""A project for ViRelAy, which shows attributions beside their images and beside embeddings and clusterings of them.

    dataset.h5                      data (row channel y x) uint8, label (row) uint16
    METHOD-TARGET.attribution.h5    attribution (row channel y x), prediction (row class) float32, label (row) uint16
    METHOD-TARGET.analysis.h5       a group per class: index, embedding/pca, cluster/...; see storage/export/analysis.py
    METHOD-TARGET.yaml              the project: virelay *.yaml opens all of them
    label-map.json                  class names

The layouts are those that ViRelAy's loader (virelay/model.py, 0.6 and 1.0) takes, which its specification describes in part.
It counts samples by position in dataset.h5, from 0, whatever the row numbers are: `row` beside the data says which they are.
It draws colour images only, so a single channel becomes three equal ones, an attribution in three equal shares.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.export.analysis import class_group, write_analysis
from storage.export.embedding import HeatFile, pooled_heat
from storage.file.layout import create_reserved, write_attributes
from storage.file.methods import StoredMethod
from storage.file.schema import CHUNK_BYTES
from storage.read.reader import StoreReader, Target

__all__ = ["write_virelay"]

FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
# A row's number and label; and, for the whole file, HDF5's own tables.
ROW_BYTES = 16
SLACK_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20
STRATEGIES: dict[Target, str] = {"true": "true_label", "predicted": "predicted_label"}


@dataclass(frozen=True)
class Explanation:
    """One method for one target: a project of its own."""

    method: StoredMethod
    target: Target

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.method.slug}-{self.target}"


def _explanations(store: StoreReader) -> tuple[Explanation, ...]:
    return tuple(Explanation(method, target) for method in store.methods for target in STRATEGIES)


def write_virelay(store: StoreReader, rows: NDArray[np.int64], folder: Path, advance: Callable[[int], None]) -> None:
    """Write the projects, block by block of rows: one for each method and target.

    Without rows there are no analyses. Arguments as export_rows.
    """
    import yaml

    _write_label_map(store, folder / "label-map.json")
    heats, trusted = _write_values(store, rows, folder, advance)
    labels, predictions = store.values("label", rows), store.values("prediction", rows)
    for explanation in heats:
        if explanation.target == "true":
            explained, other = labels, ("prediction", predictions)
        else:
            explained, other = predictions, ("label", labels)
        if len(rows):
            path = folder / f"{explanation.stem}.analysis.h5"
            strategies = _strategies(store, rows, explanation)
            write_analysis(path, heats[explanation], rows, explained, other, trusted[explanation], strategies)
        heats[explanation].remove()
        text = yaml.safe_dump(_project(store, explanation, bool(len(rows))), sort_keys=False, allow_unicode=True)
        (folder / f"{explanation.stem}.yaml").write_text(text, encoding="utf-8")


def _strategies(
    store: StoreReader, rows: NDArray[np.int64], explanation: Explanation
) -> tuple[list[str], NDArray[np.int64]] | None:
    """The store's own clusters, of Integrated Gradients for the predicted class: their names, and that of each row."""
    if explanation.method.is_map or not store.has_clusters:
        return None
    return store.cluster_names, store.values("clusters/of_row", rows)


def _write_label_map(store: StoreReader, path: Path) -> None:
    labels = [
        {"index": number, "word_net_id": class_group(number), "name": name}
        for number, name in enumerate(store.class_names)
    ]
    path.write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")


def _write_values(
    store: StoreReader, rows: NDArray[np.int64], folder: Path, advance: Callable[[int], None]
) -> tuple[dict[Explanation, HeatFile], dict[Explanation, NDArray[np.bool_]]]:
    """Fill dataset.h5 and the attribution files in one pass over the rows.

    Returns the heat of each explanation, and which rows of it can be trusted (row,).
    """
    height, width, n_channels = store.image.shape[1:]
    sample = (3 if n_channels == 1 else n_channels, height, width)
    beside = ROW_BYTES + store.probabilities.itemsize * len(store.class_names)
    heats = {explanation: HeatFile(folder / f"{explanation.stem}.heat") for explanation in _explanations(store)}
    trusted = {explanation: np.zeros(len(rows), bool) for explanation in heats}
    with ExitStack() as stack:
        data = stack.enter_context(_created(folder / "dataset.h5", "data", len(rows), sample, np.uint8, ROW_BYTES))
        _write_rows(data, store, rows, "label")
        files = {}
        for explanation in heats:
            path = folder / f"{explanation.stem}.attribution.h5"
            file = stack.enter_context(_created(path, "attribution", len(rows), sample, np.float32, beside))
            _write_rows(file, store, rows, "label" if explanation.target == "true" else "prediction")
            file["prediction"] = store.values("probability", rows)
            files[explanation] = file
        first = 0
        for block in _blocks(store, rows):
            span = slice(first, first + len(block))
            data["data"][span] = _channels_first(store.image[block], shares=False)
            for explanation, file in files.items():
                attributions = _attributions(store, block, explanation)
                heats[explanation].append(pooled_heat(attributions))
                trusted[explanation][span] = _trusted(store, block, explanation, attributions)
                file["attribution"][span] = _channels_first(attributions, shares=True)
            first += len(block)
            advance(len(block))
    return heats, trusted


def _trusted(
    store: StoreReader, rows: NDArray[np.int64], explanation: Explanation, attributions: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Attributions that converged, and maps that are not empty."""
    if explanation.method.is_map:
        return attributions.any(axis=(1, 2, 3))
    return store.values("converged", rows, explanation.target)


def _created(
    path: Path, name: str, n_rows: int, sample: tuple[int, ...], dtype: type, beside_bytes: int
) -> closing[h5py.File]:
    """A file with an empty dataset (row channel y x), and room for it: a full disk is met before HDF5 meets it.

    beside_bytes: what else will be written of each row.
    """
    row_bytes = int(np.prod(sample)) * np.dtype(dtype).itemsize
    file = create_reserved(path, n_rows * (row_bytes + beside_bytes) + SLACK_BYTES)
    chunk = max(1, CHUNK_BYTES // 4 // row_bytes)
    # Without a bound a chunk may be larger than the dataset.
    file.create_dataset(name, (n_rows, *sample), dtype, maxshape=(None, *sample), chunks=(chunk, *sample), **FILTERS)
    return closing(file)


def _write_rows(file: h5py.File, store: StoreReader, rows: NDArray[np.int64], column: str) -> None:
    """What each position is: its row number, and its class, by that column of the store."""
    file["row"] = rows
    wide_enough = np.promote_types(np.uint16, np.min_scalar_type(len(store.class_names)))
    file["label"] = store.values(column, rows).astype(wide_enough)
    write_attributes(file, {name: value for name, value in store.attributes.items() if name != "complete"})


def _blocks(store: StoreReader, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows in runs of BLOCK_BYTES of attributions; a power of two, which mostly ends where the store's chunks end."""
    row_bytes = int(np.prod(store.integrated_gradients.shape[1:])) * store.integrated_gradients.dtype.itemsize
    step = 1 << max(0, (BLOCK_BYTES // row_bytes).bit_length() - 1)
    return np.split(rows, np.flatnonzero(np.diff((rows - store.row_range.start) // step)) + 1) if len(rows) else []


def _attributions(store: StoreReader, rows: NDArray[np.int64], explanation: Explanation) -> NDArray[np.float32]:
    """(row, y, x, channel); a map at the size of the image, in equal shares for its channels."""
    if not explanation.method.is_map:
        return store.view(explanation.method, explanation.target)[rows]
    n_channels = store.image.shape[3]
    enlarged = store.upsampled_cam(rows, explanation.target, explanation.method) / np.float32(n_channels)
    return np.repeat(enlarged[..., None], n_channels, axis=3)


def _channels_first(values: NDArray, *, shares: bool) -> NDArray:
    """(row, y, x, channel) as (row, channel, y, x); a single channel three times, an attribution in three shares."""
    if values.shape[3] == 1:
        values = np.repeat(values / 3 if shares else values, 3, axis=3)
    return np.moveaxis(values, 3, 1)


def _project(store: StoreReader, explanation: Explanation, has_rows: bool) -> dict[str, object]:
    about, method = store.attributes, explanation.method.title
    height, width = store.image.shape[1:3]
    project: dict[str, object] = {
        # ViRelAy tells projects apart by their names.
        "name": f"{about['dataset_name']}, {method}, {explanation.target} class ({about['run_id']})",
        "model": about["model_name"],
        "label_map": "label-map.json",
        "dataset": {
            "name": f"{about['dataset_name']}/{about['dataset_split']}",
            "type": "hdf5",
            "path": "dataset.h5",
            "input_width": width,
            "input_height": height,
            "up_sampling_method": "none",
            "down_sampling_method": "none",
        },
        "attributions": {
            "attribution_method": method,
            "attribution_strategy": STRATEGIES[explanation.target],
            "sources": [f"{explanation.stem}.attribution.h5"],
        },
    }
    if has_rows:
        # Its server takes a hyphen in an analysis' name for an underscore.
        project["analyses"] = [{"analysis_method": "where_it_lies", "sources": [f"{explanation.stem}.analysis.h5"]}]
    return {"project": project}
