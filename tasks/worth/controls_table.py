"""Methods and controls on the same sample of rows: removal curves and partial mu-fidelity, each for the predicted class.

The sample follows from the images alone, so that nights on the same images are comparable. A method is worth what it is better
than the controls: the differences are taken row by row, which is where their standard errors are small.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storage import AttributionStore
from tasks.numerics.worth.controls import another_images, brightness, permuted
from tasks.numerics.worth.masks import falls, partial_correlation, random_masks, removed
from tasks.numerics.worth.removal import Scores, area, curves, relevance_gain
from tasks.worth.estimate import Estimate

__all__ = ["CONTROLS", "METRICS", "ControlsTable", "Difference", "Judged", "Sample", "measure_controls", "take_sample"]

N_INTERVALS, N_MASKS = 8, 64
FRACTIONS = tuple(k / N_INTERVALS for k in range(N_INTERVALS + 1))
PERMUTED, ANOTHER, ITSELF = CONTROLS = ("permuted within the object", "another image's", "the image itself")
# deletion is better the smaller it is; of the others, more is better.
METRICS = ("relevance_gain", "mu_fidelity", "insertion", "deletion")


class Judged(BaseModel):
    """A method or a control. deletion_curve, insertion_curve: mean scores at FRACTIONS of the pixels, None for no rows.

    metrics: by the names of METRICS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    is_control: bool
    metrics: Mapping[str, Estimate]
    deletion_curve: tuple[float, ...] | None
    insertion_curve: tuple[float, ...] | None


class Difference(BaseModel):
    """Of a metric: a method less a control, over the rows that have both. Above 0 the method is the better one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    control: str
    metric: str
    estimate: Estimate


class ControlsTable(BaseModel):
    """n_rows: of the sample. differences: of each method from each control, for every metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    judged: tuple[Judged, ...]
    differences: tuple[Difference, ...]

    def difference(self, method: str, control: str, metric: str) -> Estimate:
        return next(
            d.estimate for d in self.differences if (d.method, d.control, d.metric) == (method, control, metric)
        )


@dataclass(frozen=True)
class Sample:
    """Rows with what explains them for the predicted class. images, baselines: (row, y, x, channel) in 0..1.

    predictions: (row,). relevance: of each method by its title, (row, y, x), signed.
    """

    images: NDArray[np.float32]
    baselines: NDArray[np.float32]
    predictions: NDArray[np.int64]
    relevance: Mapping[str, NDArray]
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.images)


def take_sample(
    store: AttributionStore, baselines_of: Callable[[NDArray], NDArray], n_rows: int, fingerprint: str
) -> Sample:
    """n_rows random rows of a store, all if it has fewer; the same for the same images. fingerprint: of the images.

    baselines_of: the baselines of images (row, y, x, channel).
    """
    rng = np.random.default_rng(zlib.crc32(fingerprint.encode()))
    rows = np.sort(rng.choice(store.row_numbers, min(n_rows, len(store)), replace=False))
    images = store.image[rows].astype(np.float32) / 255
    relevance = {
        method.title: store.upsampled_cam(rows, "predicted", method)
        if method.is_map
        else store.attributions(rows, "predicted").sum(axis=-1)
        for method in store.methods
    }
    return Sample(images, baselines_of(images), store.values("prediction", rows), relevance, rng)


def measure_controls(
    scores: Scores, sample: Sample, on_progress: Callable[[float], object] = lambda share: None
) -> ControlsTable:
    """Every method and control of a sample by every metric. on_progress: is called with the share that is done."""
    relevance = {**sample.relevance, **_controls(sample)}
    ends = _Ends.of(scores, sample)
    masks = random_masks(N_MASKS, sample.images.shape[1:3], sample.rng)
    lost = falls(scores, sample.images, sample.baselines, sample.predictions, masks)
    away = removed(brightness(sample.images, sample.baselines), masks)
    found, judged = dict[str, dict[str, NDArray]](), list[Judged]()
    for k, (name, amounts) in enumerate(relevance.items()):
        on_progress((k + 1) / (len(relevance) + 1))
        deletion, insertion = ends.curves(scores, sample, amounts)
        metrics = {
            "relevance_gain": relevance_gain(deletion, insertion, FRACTIONS),
            "mu_fidelity": partial_correlation(removed(amounts, masks), lost, away),
            "insertion": area(insertion, FRACTIONS),
            "deletion": area(deletion, FRACTIONS),
        }
        missing = ~np.isfinite(amounts).all(axis=(1, 2))
        found[name] = {metric: np.where(missing, np.nan, values) for metric, values in metrics.items()}
        there = ~missing
        judged.append(
            Judged(
                name=name,
                is_control=name in CONTROLS,
                metrics={metric: Estimate.of(values) for metric, values in found[name].items()},
                deletion_curve=_mean(deletion[there]),
                insertion_curve=_mean(insertion[there]),
            )
        )
    on_progress(1.0)
    return ControlsTable(n_rows=len(sample), judged=tuple(judged), differences=tuple(_differences(sample, found)))


@dataclass(frozen=True)
class _Ends:
    """Scores of the images and of the baselines, (row, 1): where each curve begins and ends, whatever its order."""

    image: NDArray[np.float32]
    baseline: NDArray[np.float32]

    @classmethod
    def of(cls, scores: Scores, sample: Sample) -> "_Ends":
        image, baseline = (scores(each, sample.predictions)[:, None] for each in (sample.images, sample.baselines))
        return cls(image, baseline)

    def curves(self, scores: Scores, sample: Sample, amounts: NDArray) -> tuple[NDArray, NDArray]:
        """Deletion and insertion, (row, fraction)."""
        deletion, insertion = curves(
            scores, sample.images, sample.baselines, sample.predictions, amounts, FRACTIONS[1:-1]
        )
        return np.hstack([self.image, deletion, self.baseline]), np.hstack([self.baseline, insertion, self.image])


def _controls(sample: Sample) -> dict[str, NDArray]:
    """What looks like the first method and explains nothing, by name; NaN in rows that have none."""
    own = next(iter(sample.relevance.values()))
    other = another_images(sample.predictions, sample.rng)
    changed = (sample.images != sample.baselines).any(axis=-1)
    return {
        PERMUTED: permuted(own, changed, sample.rng),
        ANOTHER: np.where((other < 0)[:, None, None], np.nan, own[other]) if len(own) else own,
        ITSELF: brightness(sample.images, sample.baselines),
    }


def _differences(sample: Sample, found: Mapping[str, Mapping[str, NDArray]]) -> Sequence[Difference]:
    sign = {"deletion": -1}
    return [
        Difference(
            method=method,
            control=control,
            metric=metric,
            estimate=Estimate.of(sign.get(metric, 1) * (found[method][metric] - found[control][metric])),
        )
        for method in sample.relevance
        for control in CONTROLS
        for metric in METRICS
    ]


def _mean(curve: NDArray) -> tuple[float, ...] | None:
    return tuple(float(value) for value in curve.mean(axis=0)) if len(curve) else None
