"""What sealing takes, by rows: `python tests/benchmarks/seal.py --help`.

Parts are synthetic (store.py), of a pool of images and attributions that repeats; every size is sealed in a forked child, and the
most that its resident memory grew by is printed beside its seconds, fsync included.
"""

import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from storage import part_path, write_part
from store import PART_ROWS, night_arrays, pad_images, seal, status_bytes, synthetic_attributions

SIDE, POOL = 28, 2048


def pool(dataset: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Images (row, y, x, channel) and attributions: of a dataset, or of noise where there is none."""
    random = np.random.default_rng(0)
    if dataset is None:
        images = random.integers(0, 256, (POOL, SIDE, SIDE)).astype(np.uint8)
    else:
        with np.load(dataset) as file:
            images = file["x_test"][:POOL]
    images = pad_images(images)
    return images, synthetic_attributions(images, random)


def write_parts(folder: Path, images: np.ndarray, attributions: np.ndarray, n_rows: int) -> list[Path]:
    paths = []
    for start in range(0, n_rows, PART_ROWS):
        stop = min(start + PART_ROWS, n_rows)
        here = np.arange(start, stop) % len(images)
        paths.append(part_path(folder, start, stop))
        arrays = night_arrays(images[here], attributions[here], start)
        write_part(paths[-1], start, stop, arrays, digest="benchmark", part_rows=PART_ROWS)
    return paths


def sealed_in_child(path: Path, parts: list[Path], n_rows: int) -> tuple[float, int]:
    """Seconds, and bytes by which resident memory grew at most."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_seal, args=(path, parts, n_rows, theirs))
    child.start()
    theirs.close()
    seconds, growth = ours.recv()
    child.join()
    return seconds, growth


def _seal(path: Path, parts: list[Path], n_rows: int, pipe: Connection) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    before, began = status_bytes("VmRSS"), time.perf_counter()
    seal(path, parts, n_rows)
    pipe.send((time.perf_counter() - began, status_bytes("VmHWM") - before))


def main(
    dataset: Annotated[Path | None, typer.Option(help="A Keras-layout .npz of grey images. [default: noise]")] = None,
    sizes: Annotated[str, typer.Option(help="Rows of each store.")] = "2000,10000,60000",
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints seconds and peak memory of sealing by rows."""
    images, attributions = pool(dataset)
    found = []
    for n_rows in [int(size) for size in sizes.split(",")]:
        with tempfile.TemporaryDirectory() as name:
            parts = write_parts(Path(name) / "parts", images, attributions, n_rows)
            store = Path(name) / "store" / "attributions.h5"
            seconds, growth = sealed_in_child(store, parts, n_rows)
            n_bytes = store.stat().st_size
        found.append({"rows": n_rows, "seconds": seconds, "peak_growth_bytes": growth, "store_bytes": n_bytes})
    table = Table(title="Sealing", title_justify="left")
    for column in ("rows", "store, MB", "s", "ms/row", "memory grew by at most, MB"):
        table.add_column(column, justify="right")
    for row in found:
        n_rows, seconds = int(row["rows"]), float(row["seconds"])
        memory = f"{row['peak_growth_bytes'] / 1e6:.1f}"
        table.add_row(
            f"{n_rows:,}", f"{row['store_bytes'] / 1e6:,.1f}", f"{seconds:.2f}", f"{1e3 * seconds / n_rows:.3f}", memory
        )
    Console(width=110).print(table)
    if json_file is not None:
        json_file.write_text(json.dumps({"dataset": str(dataset or "noise"), "seals": found}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
