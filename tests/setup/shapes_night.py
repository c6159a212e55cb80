"""A night that is nice to look at, made by NumPy alone: drawn shapes, classified and explained by a linear model.

The model's logits are sum(w_c * image) + b_c, so Integrated Gradients from black are w_c * image exactly, the score of black
is b_c, and a gap is rounding. A map is the positive part of the attribution, summed over blocks of 4x4 pixels.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from example_store import ATTRIBUTES
from storage import METHODS, Catalog, part_path, seal_store, write_part

CLASSES = ("bar", "pole", "ring")
SIDE, CELL, N_ROWS, PART_ROWS = 28, 4, 96, 32
SHARPNESS = 0.2


def shape_images(random: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(row, y, x, channel): a shape of each label's class in one colour, somewhere near the middle, on dark noise."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    centres, sizes = random.uniform(-3, 3, (len(labels), 2, 1, 1)), random.uniform(5, 9, (len(labels), 1, 1))
    dy, dx = np.abs(y - centres[:, 0]), np.abs(x - centres[:, 1])
    bar, pole = (dy < 2) & (dx < sizes), (dx < 2) & (dy < sizes)
    ring = np.abs(np.hypot(dy, dx) - 0.8 * sizes) < 1.6
    drawn = np.stack([bar, pole, ring])[labels, np.arange(len(labels))]
    colours = random.uniform(0.5, 1, (len(labels), 1, 1, 3))
    noise = random.uniform(0, 0.15, (len(labels), SIDE, SIDE, 3))
    return (255 * np.clip(drawn[..., None] * colours + noise, 0, 1)).astype(np.uint8)


def linear_model(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (class, y, x, channel) and biases (class,) of the nearest class mean, of 2,000 images."""
    labels = random.integers(0, len(CLASSES), 2000)
    images = shape_images(random, labels) / 255
    means = np.stack([images[labels == k].mean(axis=0) for k in range(len(CLASSES))])
    # What all classes have in common says nothing between them, and is left out.
    return SHARPNESS * (means - means.mean(axis=0)), -SHARPNESS * np.square(means).sum(axis=(1, 2, 3)) / 2


def shape_arrays() -> dict[str, NDArray]:
    """All arrays of the night's rows, by path."""
    random = np.random.default_rng(0)
    (weights, biases), label = linear_model(random), random.integers(0, len(CLASSES), N_ROWS)
    image = shape_images(random, label)
    parts = weights * (image / 255)[:, None]  # (row, class, y, x, channel)
    logits = parts.sum(axis=(2, 3, 4)) + biases
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    prediction = probability.argmax(axis=1)
    wrong = np.flatnonzero(prediction != label)
    arrays = {"image": image, "label": label, "prediction": prediction, "probability": probability}
    for group, rows, target in (("", np.arange(N_ROWS), label), ("predicted/", wrong, prediction)):
        attribution = parts[rows, target[rows]].astype(np.float32)
        certificate = _certificate(attribution, logits[rows, target[rows]], biases[target[rows]])
        arrays |= {f"integrated_gradients/{group}{name}": values for name, values in certificate.items()}
        arrays[f"integrated_gradients/{group}attribution"] = attribution
        blocks = attribution.sum(axis=3).reshape(-1, SIDE // CELL, CELL, SIDE // CELL, CELL).sum(axis=(2, 4))
        maps = np.maximum(blocks, 0)
        for method in (method for method in METHODS if method.is_map):  # of a linear model all maps are the same
            picture, peak = (f"{method.group}/{group}{variable.name}" for variable in method.variables)
            arrays |= {picture: maps, peak: maps.max(axis=(1, 2), initial=0)}
    return arrays | {"predicted_row": wrong} | _quality(parts[np.arange(N_ROWS), prediction], biases[prediction])


def _quality(attribution: NDArray[np.float64], biases: NDArray[np.float64]) -> dict[str, NDArray]:
    """Of a linear model, whose score is the bias and the attributions of the pixels that are there. Both: of the prediction."""
    ranked = -np.sort(-attribution.sum(axis=3).reshape(len(attribution), -1), axis=1)
    half = ranked.shape[1] // 2
    keep, drop = ((biases + some.sum(axis=1)).astype(np.float32) for some in (ranked[:, :half], ranked[:, half:]))
    return {"quality/keep_half": keep, "quality/drop_half": drop, "quality/relevance_gain": (keep - drop) / 2}


def _certificate(attribution: NDArray[np.float32], score: NDArray, score_baseline: NDArray) -> dict[str, NDArray]:
    n, score, score_baseline = len(score), score.astype(np.float32), score_baseline.astype(np.float32)
    return {
        "gap": attribution.sum(axis=(1, 2, 3)) - (score - score_baseline),
        "quadrature_error": np.zeros(n, np.float32),
        "score": score,
        "score_baseline": score_baseline,
        "n_gradients": np.full(n, 16, np.int32),
        "converged": np.ones(n, np.uint8),
    }


def seal_shapes(root: Path) -> Path:
    """The night in a folder of nights, as the latest; returns its store."""
    catalog, arrays, paths = Catalog(root), shape_arrays(), []
    night = catalog.night_dir("20261124T020000Z-5ba9e5")
    night.mkdir(parents=True)
    for start in range(0, N_ROWS, PART_ROWS):
        paths.append(part_path(root, start, start + PART_ROWS))
        rows = arrays["predicted_row"]
        own = (rows >= start) & (rows < start + PART_ROWS)
        part = {name: v[own] if "predicted" in name else v[start : start + PART_ROWS] for name, v in arrays.items()}
        write_part(paths[-1], start, start + PART_ROWS, part, digest="5ba9e5", part_rows=PART_ROWS)
    about = ATTRIBUTES | {"dataset_name": "shapes", "configuration": {"explanation": {"score": "logit"}}}
    seal_store(night / "attributions.h5", paths, class_names=CLASSES, attributes=about, expected_rows=(0, N_ROWS))
    catalog.point_latest(night)
    return night / "attributions.h5"
