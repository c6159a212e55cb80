"""Rows of a night explained in its precision and in float32, and how far the two are from each other."""

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.datasets import Dataset, mean_image, read_rows
from tasks.numerics.baselines import make_baselines
from tasks.numerics.endpoint import Endpoint
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.integrated_gradients import Attributions
from tasks.numerics.network.tensor_float_32 import computing_in, float32_batch

__all__ = ["Sample", "explained_sample", "float32_beside", "precision_error", "read_sample"]

SAMPLE_ROWS = 16
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Sample:
    """images, baselines: (row, y, x, channel) float32 in 0..1. labels: (row,)."""

    images: NDArray[np.float32]
    baselines: NDArray[np.float32]
    labels: NDArray[np.int64]

    def repeated(self, n_rows: int) -> "Sample":
        """So many rows, the same again and again."""
        rows = np.arange(n_rows) % len(self.labels)
        return Sample(self.images[rows], self.baselines[rows], self.labels[rows])


def read_sample(dataset: Dataset, start: int, stop: int, baseline: str) -> Sample:
    """SAMPLE_ROWS of the test split's rows start to stop, evenly spread, or all of them. baseline: its kind."""
    numbers = np.unique(np.linspace(start, stop - 1, SAMPLE_ROWS).astype(int))
    pairs = [read_rows(dataset, "test", int(row), int(row) + 1) for row in numbers]
    images = np.concatenate([pixels for pixels, _ in pairs]).astype(np.float32) / 255
    mean = mean_image(dataset) if baseline == "mean" else None
    return Sample(images, make_baselines(baseline, images, mean), np.concatenate([labels for _, labels in pairs]))


def float32_beside(network: keras.Model, settings: Settings) -> Explainer:
    """The explainer of the same settings in float32, which keeps its word also where another computes in tf32.

    settings: of a plan; if they are tf32's, so is the size of their batches.
    """
    batch_size = float32_batch(settings.batch_size) if settings.precision == "tf32" else settings.batch_size
    return Explainer(network, replace(settings, precision="float32", batch_size=batch_size))


def explained_sample(explainer: Explainer, sample: Sample) -> tuple[Endpoint, Attributions]:
    """The rows explained for their labels, in the explainer's precision."""
    with computing_in(explainer.settings.precision):
        endpoint = explainer.endpoint(sample.images, sample.labels)
        return endpoint, explainer.integrated_gradients(
            sample.images, sample.baselines, sample.labels, endpoint=endpoint
        )


def precision_error(ours: Explainer, exact: Explainer, sample: Sample) -> dict[str, Any]:
    """How far our explainer is from one in float32, as the store's `precision_error` holds it: JSON, of float numbers.

    n_rows of the sample; of attributions median and max over them of ||IG - IG_float32|| / ||IG_float32||; under `maps` by the
    method's group the same of its maps, but over the larger of the two norms, so that it is 1 where one of them is empty; under
    `score` of |F - F_float32| / max(1, |F_float32|) at the image or the baseline, whichever is larger; under `probability` of
    the class's that changed most.
    """
    (end, found), (end_exact, found_exact) = (explained_sample(explainer, sample) for explainer in (ours, exact))
    attributions = _norm(_less(found.attribution, found_exact.attribution)) / np.maximum(
        _norm(found_exact.attribution), TINY
    )
    maps = {
        group: _norm(_less(maps, end_exact.maps[group]))
        / np.maximum(np.maximum(_norm(maps), _norm(end_exact.maps[group])), TINY)
        for group, maps in end.maps.items()
        if maps.size
    }
    scores = [
        np.abs(_less(each, each_exact)) / np.maximum(1, np.abs(each_exact))
        for each, each_exact in (
            (found.score, found_exact.score),
            (found.score_baseline, found_exact.score_baseline),
        )
    ]
    probabilities = np.abs(_less(end.probabilities, end_exact.probabilities)).max(axis=1)
    return {
        "n_rows": len(sample.labels),
        **_spread(attributions),
        "maps": {group: _spread(errors) for group, errors in maps.items()},
        "score": _spread(np.maximum(*scores)),
        "probability": _spread(probabilities),
    }


def _less(ours: NDArray, exact: NDArray) -> NDArray[np.float64]:
    return ours.astype(np.float64) - exact


def _norm(values: NDArray) -> NDArray[np.float64]:
    return np.linalg.norm(values.reshape(len(values), -1).astype(np.float64), axis=1)


def _spread(errors: NDArray[np.float64]) -> dict[str, float]:
    return {"median": float(np.median(errors)), "max": float(errors.max())}
