"""One file or many: what the layouts `single` and `virtual` cost on the same parts. `python tests/benchmarks/layouts.py --help`.

Parts of images as large as ImageNet's are filled with random numbers, which hardly compress, and sealed in both layouts,
in turns; the best of the repeats counts. Peak memory is what a forked child's resident memory grows by at most. Bytes on the
disk are those that the seal adds to the parts.
"""

import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from numpy.typing import NDArray

from storage import open_store, part_path, seal_store, write_part
from storage.file.schema import ROOT_ATTRIBUTES
from storage.write.sealing import Layout

SIDE, CHANNELS, CLASSES, CAM = 224, 3, 10, 14
WRONG_SHARE = 0.1
RANDOM_ROWS = 20
MB = 1e6


def random_arrays(start: int, stop: int) -> dict[str, NDArray]:
    """All arrays of the rows, a tenth of them misclassified."""
    random, n = np.random.default_rng(start), stop - start
    wrong = np.arange(0, n, round(1 / WRONG_SHARE))
    label = np.zeros(n, np.int64)
    prediction = label.copy()
    prediction[wrong] = 1
    arrays: dict[str, NDArray] = {
        "image": random.integers(0, 256, (n, SIDE, SIDE, CHANNELS), dtype=np.uint8),
        "label": label,
        "prediction": prediction,
        "probability": np.full((n, CLASSES), 0.1, np.float32),
    }
    for group, m in (("", n), ("predicted/", len(wrong))):
        ig, zeros = f"integrated_gradients/{group}", np.zeros(m, np.float32)
        arrays[f"{ig}attribution"] = random.standard_normal((m, SIDE, SIDE, CHANNELS), dtype=np.float32)
        arrays |= {f"{ig}{name}": zeros for name in ("gap", "quadrature_error", "score", "score_baseline")}
        arrays |= {f"{ig}n_gradients": zeros.astype(np.int32), f"{ig}converged": zeros.astype(np.uint8)}
        arrays |= {f"grad_cam/{group}map": np.zeros((m, CAM, CAM), np.float32), f"grad_cam/{group}cam_max": zeros}
    return arrays | {"predicted_row": start + wrong}


def write_parts(folder: Path, n_rows: int, part_rows: int) -> list[Path]:
    paths = []
    for start in range(0, n_rows, part_rows):
        stop = min(n_rows, start + part_rows)
        paths.append(part_path(folder, start, stop))
        write_part(paths[-1], start, stop, random_arrays(start, stop), digest="benchmark", part_rows=part_rows)
    return paths


def in_child(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that some work takes in a fork of this process, and the bytes by which its memory grows."""
    receive, send = multiprocessing.Pipe(duplex=False)

    def measure() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        send.send((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))

    child = multiprocessing.get_context("fork").Process(target=measure)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"the measurement ended with the exit code {child.exitcode}")
    return receive.recv()


def seal(path: Path, parts: list[Path], layout: Layout) -> None:
    kinds = {"json": {}, "text": "benchmark", "integer": 24}
    attributes = {attribute.name: kinds[attribute.kind] for attribute in ROOT_ATTRIBUTES if attribute.given}
    names = [str(number) for number in range(CLASSES)]
    seal_store(path, parts, class_names=names, attributes=attributes, layout=layout)


def read_all(path: Path, n_rows: int) -> None:
    """Every attribution, 64 rows at a time."""
    with open_store(path) as store:
        for start in range(0, n_rows, 64):
            store.attributions(slice(start, start + 64))


def read_random(path: Path, n_rows: int) -> None:
    with open_store(path) as store:
        store.attributions(np.random.default_rng(0).integers(0, n_rows, RANDOM_ROWS))


def main(
    rows: Annotated[int, typer.Option(min=1)] = 512,
    part_rows: Annotated[int, typer.Option(min=1)] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Prints a line per measurement, the two layouts side by side."""
    layouts: tuple[Layout, ...] = get_args(Layout)
    best: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        root = Path(folder)
        parts = write_parts(root / "parts", rows, part_rows)
        n_bytes = sum(part.stat().st_size for part in parts)
        print(f"{rows} rows of {SIDE}x{SIDE}x{CHANNELS} in {len(parts)} parts, {n_bytes / MB:.0f} MB")
        for _ in range(repeats):
            for layout in layouts:
                path = root / layout / "attributions.h5"
                seconds, peak = in_child(lambda path=path, layout=layout: seal(path, parts, layout))  # type: ignore[misc]
                found = {"seal, s": seconds, "peak memory of the seal, MB": peak / MB}
                found["added to the disk by the seal, MB"] = path.stat().st_size / MB
                found["read all attributions, s"] = in_child(lambda path=path: read_all(path, rows))[0]  # type: ignore[misc]
                found[f"{RANDOM_ROWS} random rows, s"] = in_child(lambda path=path: read_random(path, rows))[0]  # type: ignore[misc]
                for what, value in found.items():
                    best[what, layout] = min(value, best.get((what, layout), value))
                shutil.rmtree(path.parent)
    for what in dict.fromkeys(what for what, _ in best):
        print(f"{what:40}", *(f"{layout} {best[what, layout]:8.2f}" for layout in layouts))


if __name__ == "__main__":
    typer.run(main)
