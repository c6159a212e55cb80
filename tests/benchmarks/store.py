"""How fast a store is sealed and read, and how small it is: `python tests/benchmarks/store.py --help`.

Real attributions come from a night's store (`--store PATH`, its rows repeated up to `--rows`; repeats lie in different
chunks, so gzip cannot profit). Without one they are synthesised on real images (`--dataset FILE.npz`, Keras layout,
padded to 32x32 RGB as ingest does): (image - black) times a smooth random gradient field, hence exactly zero where the
image is black, as Integrated Gradients are.

Speeds count bytes of arrays, uncompressed; "file" speeds count bytes of the sealed file. Repeats take turns, and the best
one counts: other work on the machine only ever adds time. The time of fsync is the disk's: it is reported apart and
taken out of the seal's. Peak memory is what a forked child's resident memory grows by at most, over the bytes it asked for.
"""

import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from storage import open_store, part_path, seal_store, write_part
from storage.file.layout import FILTERS
from storage.file.rounding import round_significand

SIDE, CHANNELS, CLASSES, CAM = 32, 3, 10, 8
PART_ROWS, WRONG_SHARE = 256, 0.1
RANDOM_ROWS = 100
MIB = 1 << 20
TARGETS = {
    "seal, MB/s of arrays": (300, "least"),
    "read all attributions, MB/s": (200, "least"),
    "100 random rows, s": (0.3, "most"),
    "peak memory / asked": (1.3, "most"),
    "ratio, gzip and shuffle": (2.2, "least"),
    "ratio, 12 mantissa bits": (3.3, "least"),
}


def pad_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey images (row, y, x) as RGB (row, 32, 32, 3), black around."""
    before = [(SIDE - size) // 2 for size in images.shape[1:3]]
    after = [SIDE - size - first for size, first in zip(images.shape[1:3], before, strict=True)]
    padded = np.pad(images, ((0, 0), (before[0], after[0]), (before[1], after[1])))
    return np.repeat(padded[..., None], CHANNELS, axis=-1)


def synthetic_attributions(images: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.float32]:
    """(image - black) times a random field of the network's grain: coarse noise enlarged, plus a little fine noise."""
    coarse = random.standard_normal((len(images), SIDE // 4, SIDE // 4, CHANNELS), dtype=np.float32)
    field = coarse.repeat(4, axis=1).repeat(4, axis=2) * np.float32(0.01)
    field += random.standard_normal(images.shape, dtype=np.float32) * np.float32(0.002)
    return field * (images.astype(np.float32) / 255)


def night_arrays(images: NDArray[np.uint8], attributions: NDArray[np.float32], start: int) -> dict[str, NDArray]:
    """Every array of a part. images, attributions: (row, y, x, channel)."""
    random, n = np.random.default_rng(start), len(images)
    label = random.integers(0, CLASSES, n)
    wrong = np.flatnonzero(random.random(n) < WRONG_SHARE)
    prediction = label.copy()
    prediction[wrong] = (label[wrong] + 1) % CLASSES
    maps = np.maximum(random.standard_normal((n, CAM, CAM), dtype=np.float32), 0)
    arrays = {"image": images, "label": label, "prediction": prediction}
    arrays["probability"] = random.dirichlet(np.ones(CLASSES), n).astype(np.float32)
    for group, rows in (("", slice(None)), ("predicted/", wrong)):
        score = random.random(n, dtype=np.float32)[rows]
        certificate = {"gap": score / 50, "quadrature_error": score / 9, "score": score, "score_baseline": score / 7}
        arrays |= {f"integrated_gradients/{group}{name}": values for name, values in certificate.items()}
        arrays[f"integrated_gradients/{group}attribution"] = attributions[rows]
        arrays[f"integrated_gradients/{group}n_gradients"] = np.full(len(score), 32, np.int32)
        arrays[f"integrated_gradients/{group}converged"] = np.ones(len(score), np.uint8)
        arrays[f"grad_cam/{group}map"] = maps[rows]
        arrays[f"grad_cam/{group}cam_max"] = maps[rows].max(axis=(1, 2))
    arrays["predicted_row"] = start + wrong
    return arrays


def write_night(folder: Path, images: NDArray[np.uint8], attributions: NDArray[np.float32]) -> tuple[list[Path], int]:
    """The parts of a night, and the bytes of all their arrays."""
    parts, raw_bytes = [], 0
    for start in range(0, len(images), PART_ROWS):
        stop = min(len(images), start + PART_ROWS)
        arrays = night_arrays(images[start:stop], attributions[start:stop], start)
        raw_bytes += sum(array.nbytes for array in arrays.values())
        parts.append(part_path(folder, start, stop))
        write_part(parts[-1], start, stop, arrays, digest="benchmark", part_rows=PART_ROWS)
    return parts, raw_bytes


def seal(path: Path, parts: list[Path], n_rows: int) -> None:
    names = (
        "run_id",
        "created_utc",
        "dataset_name",
        "dataset_version",
        "dataset_split",
        "dataset_sha256",
        "model_name",
    )
    texts = dict.fromkeys((*names, "model_sha256", "git_commit", "flow_run_id", "precision", "device"), "benchmark")
    others = {"significant_bits": 24, "batch_size": 256} | dict.fromkeys(
        ("configuration", "software", "precision_error", "contract"), {}
    )
    seal_store(
        path,
        parts,
        class_names=[str(number) for number in range(CLASSES)],
        attributes=texts | others,
        expected_rows=(0, n_rows),
    )


def ratio(attributions: NDArray[np.float32], folder: Path, chunk_rows: int) -> float:
    """Bytes of the array over bytes on the disk, with the store's filters."""
    with h5py.File(folder / "ratio.h5", "w") as file:
        dataset = file.create_dataset(
            "attribution",
            data=attributions,
            chunks=(min(chunk_rows, len(attributions)), *attributions.shape[1:]),
            **FILTERS,
        )
        return attributions.nbytes / dataset.id.get_storage_size()


@contextmanager
def timed_fsync() -> Iterator[list[float]]:
    """Collects the seconds of every os.fsync in the block."""
    seconds: list[float] = []
    fsync = os.fsync

    def timed(descriptor: int) -> None:
        began = time.perf_counter()
        fsync(descriptor)
        seconds.append(time.perf_counter() - began)

    os.fsync = timed  # type: ignore[assignment]
    try:
        yield seconds
    finally:
        os.fsync = fsync


def seconds_of(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def peak_growth(action: Callable[[], NDArray]) -> float:
    """Most that resident memory grew by in a forked child during `action`, over the bytes of the array it returns."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_measure, args=(action, theirs))
    child.start()
    growth, asked = ours.recv()
    child.join()
    return growth / asked


def _measure(action: Callable[[], NDArray], pipe: "multiprocessing.connection.Connection") -> None:
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    asked = action().nbytes
    pipe.send((status_bytes("VmHWM") - before, asked))


def status_bytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status has no {name}; peak memory is measured on Linux only")
    return int(found[1]) * 1024


def load(store: Path | None, dataset: Path | None, rows: int) -> tuple[NDArray, NDArray[np.float32], int]:
    """Images and attributions (row, y, x, channel) of `rows` rows, and how many of them are distinct."""
    if store is not None:
        with open_store(store) as opened:
            images, attributions = opened.image[...], opened.attributions(...)
    elif dataset is not None:
        images = pad_images(np.load(dataset)["x_test"][:rows])
        attributions = synthetic_attributions(images, np.random.default_rng(0))
    else:
        raise typer.BadParameter("give --store PATH or --dataset FILE.npz")
    repeated = np.resize(np.arange(len(images)), rows)
    return images[repeated], attributions[repeated], min(len(images), rows)


def main(
    store: Annotated[Path | None, typer.Option(help="A night's store with real attributions.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="A .npz of images to synthesise attributions on.")] = None,
    rows: int = 10_000,
    repeats: int = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints a table of speed, memory and size beside the targets."""
    images, attributions, distinct = load(store, dataset, rows)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), images, attributions, distinct, repeats)
    kind = f"attributions of {store}" if store else f"synthetic attributions on {dataset}"
    table = Table(title=f"{rows:,} rows of {attributions.shape[1:]}, {kind}, best of {repeats}")
    for column in ("what", "measured", "target"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, value in figures.items():
        bound, side = TARGETS.get(what, (None, ""))
        table.add_row(what, f"{value:,.3g}" if value < 100 else f"{value:,.0f}", f"at {side} {bound}" if bound else "")
    Console(width=110).print(table)
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": rows, "attributions": kind, "figures": figures}, indent=1) + "\n")


def measure(
    folder: Path, images: NDArray[np.uint8], attributions: NDArray[np.float32], distinct: int, repeats: int
) -> dict[str, float]:
    """The figures by name, in the order of the table."""
    n_rows = len(images)
    began = time.perf_counter()
    parts, raw_bytes = write_night(folder / "parts", images, attributions)
    write_seconds = time.perf_counter() - began
    sealing, syncing, reading, random_reading, plain = [], [], [], [], []
    random = np.random.default_rng(0)
    path = folder / "store" / "attributions.h5"
    for _ in range(repeats):
        path.unlink(missing_ok=True)
        with timed_fsync() as fsyncs:
            total = seconds_of(lambda: seal(path, parts, n_rows))
        sealing.append(total - sum(fsyncs))
        syncing.append(sum(fsyncs))
        chosen = random.choice(n_rows, min(RANDOM_ROWS, n_rows), replace=False)
        with open_store(path) as opened:
            reading.append(seconds_of(lambda: opened.attributions(...)))
            random_reading.append(seconds_of(lambda rows=chosen: opened.attributions(rows)))
        with h5py.File(path) as file:
            plain.append(seconds_of(lambda: file["integrated_gradients/attribution"][...]))
            chunk_rows, file_bytes = file["integrated_gradients/attribution"].chunks[0], path.stat().st_size
    with open_store(path) as opened:
        peak = peak_growth(lambda: opened.attributions(...))
    real = attributions[:distinct]
    return {
        "arrays, MB": raw_bytes / 1e6,
        "file, MB": file_bytes / 1e6,
        "chunk of attributions, MiB": chunk_rows * attributions[0].nbytes / MIB,
        "write parts, MB/s of arrays": raw_bytes / 1e6 / write_seconds,
        "seal, MB/s of arrays": raw_bytes / 1e6 / min(sealing),
        "seal, MB/s of file": file_bytes / 1e6 / min(sealing),
        "fsync at seal, s": float(np.median(syncing)),
        "read all attributions, MB/s": attributions.nbytes / 1e6 / min(reading),
        "the same with h5py alone, MB/s": attributions.nbytes / 1e6 / min(plain),
        "100 random rows, s": min(random_reading),
        "peak memory / asked": peak,
        "ratio, gzip and shuffle": ratio(real, folder, chunk_rows),
        "ratio, 12 mantissa bits": ratio(round_significand(real, 12), folder, chunk_rows),
    }


if __name__ == "__main__":
    typer.run(main)
