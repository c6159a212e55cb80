"""What Quantus's PixelFlipping says of networks and attributions: `flip_pixels.py FOLDER...`, with Quantus on Python's path.

Each folder holds model.keras and rows.npz: image (row, y, x, channel), target (row,), relevance (row, y, x), and the numbers fill
and n_steps. Printed are, by folder, the curve of each row after every step, (row, step), and the area that Quantus gives it.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import quantus


def main(*folders: str) -> None:
    print(json.dumps({"version": quantus.__version__, "found": [flipped(Path(folder)) for folder in folders]}))


def flipped(folder: Path) -> dict[str, list]:
    network = keras.models.load_model(folder / "model.keras")
    with np.load(folder / "rows.npz") as rows:
        images, targets, relevance = rows["image"], rows["target"], rows["relevance"]
        fill, n_steps = float(rows["fill"]), int(rows["n_steps"])
    # A feature is a value, not a pixel: a step is a number of pixels, so it takes all of their channels.
    metric = quantus.PixelFlipping(
        features_in_step=images[0].size // n_steps, normalise=False, perturb_baseline=fill, disable_warnings=True
    )
    found = {}
    for name, order in (("most", relevance), ("least", -relevance)):
        curve = metric(network, images, targets, order, channel_first=False, softmax=True, batch_size=len(images))
        found[f"curve_{name}_first"] = np.array(curve).tolist()
        found[f"area_{name}_first"] = quantus.calculate_auc(np.array(curve), batched=True).tolist()
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
