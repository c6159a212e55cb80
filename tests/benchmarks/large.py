"""Large images through the real night: `python tests/benchmarks/large.py --help`.

Crops of scikit-learn's two photographs, enlarged or reduced to the size, are explained for labels that mean nothing by a network
of Keras Applications with random weights: nothing is downloaded. What counts is time, memory and whether certificates are filled.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images

from nights import run_night
from storage import open_store

N_CLASSES = 10
LEAST_CROP = 96
BUILD = """
import sys, keras, numpy as np
name, side, classes, seed, photos, path = sys.argv[1:]
keras.utils.set_random_seed(int(seed))
build = getattr(keras.applications, name)
model = build(weights=None, input_shape=(int(side), int(side), 3), classes=int(classes))
last = model.layers[-1]
with np.load(photos) as file:
    images = file["x_train"].astype("float32") / 255
features = keras.Model(model.inputs, last.input).predict(images, verbose=0)
kernel, _ = last.get_weights()
kernel *= 2 / (features @ kernel).std()
last.set_weights([kernel, -(features @ kernel).mean(axis=0)])
model.save(path)
"""


def photo_crops(n: int, side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """(n, side, side, 3): square crops of random place and size, some mirrored."""
    photos, crops = load_sample_images().images, []
    for k in range(n):
        photo = photos[k % len(photos)]
        size = int(random.integers(LEAST_CROP, min(photo.shape[:2]) + 1))
        y, x = (int(random.integers(0, length - size + 1)) for length in photo.shape[:2])
        crop = photo[y : y + size, x : x + size][:, :: int(random.choice([-1, 1]))]
        crops.append(np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(crops)


def write_dataset(path: Path, n: int, side: int, seed: int) -> None:
    """An .npz in the Keras layout: n test images, and as few to train on as there are classes."""
    random = np.random.default_rng(seed)
    images, labels = photo_crops(n + N_CLASSES, side, random), np.arange(n + N_CLASSES) % N_CLASSES
    np.savez(path, x_train=images[n:], y_train=labels[n:], x_test=images[:n], y_test=labels[:n])


def write_model(path: Path, name: str, side: int, seed: int, photos: Path) -> None:
    """A network of Keras Applications with random weights, made in a process of its own.

    Its last layer is scaled and shifted until the logits of the photographs that are not explained spread by 2 about zero: as it
    comes the network gives all images the same probabilities, and there would be nothing to explain.

    Raises typer.BadParameter if there is none of that name.
    """
    command = [sys.executable, "-c", BUILD, name, str(side), str(N_CLASSES), str(seed), str(photos), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise typer.BadParameter(
            f"keras.applications cannot make {name!r} for {side} pixels; expected a name such as ResNet50 or "
            f"MobileNetV2, got {done.stderr.splitlines()[-1]}"
        )


def main(
    network: Annotated[str, typer.Option(help="Of keras.applications, such as ResNet50 or MobileNetV2.")] = "ResNet50",
    rows: Annotated[int, typer.Option(help="Images to explain.")] = 64,
    side: Annotated[int, typer.Option(help="Of the images, in pixels.")] = 224,
    batch_size: Annotated[int | None, typer.Option(help="explanation.batch_size. [default: the night's own]")] = None,
    part_rows: Annotated[int | None, typer.Option(help="explanation.part_rows. [default: the night's own]")] = None,
    threads: Annotated[int, typer.Option(help="Parts side by side (run.n_workers).")] = 2,
    audit_rows: Annotated[int, typer.Option(help="Rows that alibi recomputes with 512 nodes, which is slow here.")] = 0,
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints the time of a gradient, peak memory and what the certificates say."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset, model = folder / "photos.npz", folder / f"{network}.keras"
        write_dataset(dataset, rows, side, seed)
        write_model(model, network, side, seed, dataset)
        explanation = {"batch_size": batch_size, "part_rows": part_rows}
        night = run_night(
            {
                "dataset": {"source": str(dataset)},
                "model": {"source": str(model)},
                "explanation": {key: value for key, value in explanation.items() if value is not None},
                "audit": {"n_rows": audit_rows},
                "run": {"root": str(folder / "root"), "n_workers": threads},
            }
        )
        certificates = certificates_of(Path(night.result["store"]))
    gradients = rows * night.result["gradients_per_image"] + certificates["predicted_gradients"]
    figures = {
        "explain, s": night.stages["explain"],
        "whole command, s": night.wall,
        "gradients/image": night.result["gradients_per_image"],
        "ms/gradient, of explain": 1e3 * night.stages["explain"] / gradients,
        "batch": certificates["batch_size"] or batch_size,
        "peak memory of the flow, GB": night.peak_flow / 1e9,
        "converged": night.result["converged_share"],
        "median |gap|": certificates["gap_median"],
        "worst |gap|": night.result["worst_gap"],
        "worst quadrature error": certificates["error_max"],
        "largest |F(x) - F(black)|": certificates["difference_max"],
        "certificates filled": certificates["filled"],
        "audit": night.result["audit"],
        "store, MB": night.result["store_bytes"] / 1e6,
    }
    table = Table(title=f"{rows} photographs of {side}x{side}x3, {network}, random weights", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for what, value in figures.items():
        table.add_row(what, f"{value:,.3g}" if isinstance(value, float) else str(value))
    Console(width=110).print(table)
    if json_file is not None:
        about = {"network": network, "rows": rows, "side": side, "threads": threads, "processors": os.cpu_count()}
        json_file.write_text(json.dumps(about | {"figures": figures, "stages_s": night.stages}, indent=1) + "\n")


def certificates_of(path: Path) -> dict[str, Any]:
    """What the store says of its rows; batch_size is None where the store does not say."""
    with open_store(path) as store:
        certificate, again = store.certificate(), store.certificate("predicted")
        wrong = store.predictions != store.labels
        return {
            "batch_size": store.attributes.get("batch_size"),
            "gap_median": float(certificate["gap"].abs().median()),
            "error_max": float(certificate["quadrature_error"].max()),
            "filled": bool(
                np.isfinite(certificate.to_numpy(np.float64)).all() and (certificate["n_gradients"] > 0).all()
            ),
            "difference_max": float((certificate["score"] - certificate["score_baseline"]).abs().max()),
            "predicted_gradients": int(again["n_gradients"][wrong].sum()),
        }


if __name__ == "__main__":
    typer.run(main)
