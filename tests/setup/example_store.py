"""The example night that the storage tests write, seal and read.

Small images, three classes, about a third misclassified. Every array is random but reproducible, and the gap is the true
completeness gap of the attribution, so that a mix-up of rows or groups shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage import METHODS, SealSummary, part_path, seal_store, write_part

DIGEST = "d1935c"
CLASS_NAMES = ["cat", "dog", "naïve 猫"]
PART_ROWS = 64
ATTRIBUTES: dict[str, object] = {
    "run_id": "20261123T020000Z-ab12cd",
    "created_utc": "2026-11-23T02:00:00Z",
    "dataset_name": "digits",
    "dataset_version": "1.0.0",
    "dataset_split": "test",
    "dataset_sha256": "5e1f",
    "model_name": "seed-cnn",
    "model_sha256": "c0de",
    "configuration": {"explain": {"power": 3, "baseline": "black"}},
    "software": {"numpy": np.__version__},
    "git_commit": None,
    "flow_run_id": "",
    "significant_bits": 24,
    "batch_size": 64,
    "precision": "float32",
    "precision_error": {},
    "contract": {},
    "device": "CPU",
    "worth": {},
}


def example_arrays(
    start: int, stop: int, *, n_wrong: int | None = None, side: int = 24, grad_cam: bool = True
) -> dict[str, NDArray]:
    """All arrays of the rows [start, stop); n_wrong of them misclassified, a third by default.

    grad_cam: whether those of Grad-CAM are among them; the others are the same without.
    """
    random = np.random.default_rng([start, stop])
    n_rows = stop - start
    wrong = np.sort(random.choice(n_rows, n_rows // 3 if n_wrong is None else n_wrong, replace=False))
    label = random.integers(0, 3, n_rows)
    prediction = label.copy()
    prediction[wrong] = (label[wrong] + 1) % 3
    arrays = {
        "image": random.integers(0, 256, (n_rows, side, side, 3), dtype=np.uint8),
        "label": label,
        "prediction": prediction,
        "probability": _largest_at(prediction, random.dirichlet(np.ones(3), n_rows).astype(np.float32)),
    }
    for group, n in (("", n_rows), ("predicted/", len(wrong))):
        arrays |= {f"integrated_gradients/{group}{k}": v for k, v in _integrated_gradients(random, n, side).items()}
        maps = np.maximum(random.standard_normal((n, 4, 5)), 0).astype(np.float32)
        for method in (method for method in METHODS if method.is_map and grad_cam):
            picture, peak = (f"{method.group}/{group}{variable.name}" for variable in method.variables)
            arrays |= {picture: maps, peak: maps.max(axis=(1, 2), initial=0)}
            maps = maps[..., ::-1]  # another method, another map
    arrays["predicted_row"] = wrong + start
    keep, drop = np.random.default_rng([start, stop, 7]).random((2, n_rows), dtype=np.float32)
    arrays |= {"quality/keep_half": keep, "quality/drop_half": drop, "quality/relevance_gain": (keep - drop) / 2}
    return arrays


def _largest_at(prediction: NDArray, probability: NDArray) -> NDArray:
    """Each row's largest probability, swapped to the class that is predicted."""
    rows, largest = np.arange(len(prediction)), probability.argmax(axis=1)
    swapped = probability.copy()
    swapped[rows, largest] = probability[rows, prediction]
    swapped[rows, prediction] = probability[rows, largest]
    return swapped


def _integrated_gradients(random: np.random.Generator, n: int, side: int) -> dict[str, NDArray]:
    attribution = random.standard_normal((n, side, side, 3)).astype(np.float32)
    score, score_baseline = random.random((2, n), dtype=np.float32)
    return {
        "attribution": attribution,
        "gap": attribution.sum(axis=(1, 2, 3)) - (score - score_baseline),
        "quadrature_error": random.random(n, dtype=np.float32),
        "score": score,
        "score_baseline": score_baseline,
        "n_gradients": random.integers(16, 512, n, dtype=np.int32),
        "converged": random.integers(0, 2, n, dtype=np.uint8),
    }


def write_parts(
    folder: Path, start: int, stop: int, *, n_wrong: int | None = None, grad_cam: bool = True
) -> list[Path]:
    """The parts of the rows [start, stop), the last one short if need be."""
    paths = []
    for first in range(start, stop, PART_ROWS):
        last = min(stop, first + PART_ROWS)
        paths.append(part_path(folder, first, last))
        arrays = example_arrays(first, last, n_wrong=n_wrong, grad_cam=grad_cam)
        write_part(paths[-1], first, last, arrays, digest=DIGEST, part_rows=PART_ROWS)
    return paths


def seal(path: Path, parts: Sequence[Path], **changed: object) -> SealSummary:
    """Seal the example night; `changed` replaces root attributes."""
    return seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES | changed)


def joined_arrays(start: int, stop: int, *, n_wrong: int | None = None, grad_cam: bool = True) -> dict[str, NDArray]:
    """What the sealed store of these rows must hold: the parts' arrays, one after the other."""
    ranges = [(first, min(stop, first + PART_ROWS)) for first in range(start, stop, PART_ROWS)]
    parts = [example_arrays(first, last, n_wrong=n_wrong, grad_cam=grad_cam) for first, last in ranges]
    return {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}


def flip_byte(path: Path, offset: int) -> None:
    """Change one byte of a file, read-only or not."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)
    path.chmod(mode)


def chunk_offset(path: Path, dataset: str, row: int) -> int:
    """Where in the file the middle of the chunk is that holds the given position of a dataset."""
    with h5py.File(path, "r") as file:
        chunks = [file[dataset].id.get_chunk_info(i) for i in range(file[dataset].id.get_num_chunks())]
        step = file[dataset].chunks[0]
    chunk = next(chunk for chunk in chunks if chunk.chunk_offset[0] == row - row % step)
    return chunk.byte_offset + chunk.size // 2


def assert_holds(path: Path, expected: Mapping[str, NDArray]) -> None:
    """Every dataset of the file equals the expected array, bit by bit, read with h5py alone."""
    with h5py.File(path, "r") as file:
        for name, array in expected.items():
            np.testing.assert_array_equal(file[name][...], array, err_msg=name, strict=True)
