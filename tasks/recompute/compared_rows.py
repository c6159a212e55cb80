"""Rows of a sealed store against the same computed again: what differs by more than it may.

Compared for each row:

    image, label       equal; not of a packed night without its dataset, whose rows are explained from the images that it has
    probability        within 1e-4, and the same prediction, or one as probable within twice that
    score              of image and baseline, within 1e-4 of max(1, |score|)
    quadrature_error   within 1e-3 where the same number of gradients was spent
    attribution        relative L2 within 1e-3 where the same number of gradients was spent, else both quadrature errors more:
                       another machine rounds otherwise, and may so stop one refinement earlier or later
    map                relative L2 within 1e-3, and the rounding of a saturated probability (see tasks/audit.py)
    quality            within 1e-4 of max(1, |score|), of the halves that the stored attribution makes

A store in tf32 or bfloat16 may be off by BEYOND_SAMPLE times what it measured of that, more: other devices round elsewhere, and
where there is no tf32, float32 takes its place. A store that keeps b significant bits may be off by 2^(1 - b) more: both sides
are rounded to the nearest. For the misclassified rows all that belongs to a target is compared for the predicted class too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore, Finding, Target
from storage.file.schema import BY_PATH, QUALITY
from tasks.datasets import Dataset, read_rows
from tasks.numerics.network.tensor_float_32 import computing_in
from tasks.parts.explained_rows import baselines_for, explain_rows, explainer_for
from tasks.parts.methods import Comparison, Recomputed, methods_of
from tasks.parts.methods.comparison import BEYOND_SAMPLE, precision_error
from tasks.parts.plan import Plan
from tasks.parts.quality_rows import judge_rows
from tasks.parts.recorded import RecordError

__all__ = ["compare_rows"]

CHECK = "recomputed"
PROBABILITY_TOLERANCE = SCORE_TOLERANCE = 1e-4


def compare_rows(store: AttributionStore, plan: Plan, rows: NDArray[np.int64]) -> list[Finding]:
    """A finding for each kind of difference. rows: in ascending order, as many as a part has at most."""
    pixels, labels = _read_images(store, plan.dataset, rows)
    with computing_in(plan.precision):
        anew = explain_rows(plan, pixels, labels, first_row=0)
    findings = [*_compare_answers(store, rows, anew)]
    for target in ("true", "predicted"):
        findings += _compare_target(store, plan, rows, anew, target)
    return [*findings, *_compare_quality(store, plan, rows)]


def _compare_answers(
    store: AttributionStore, rows: NDArray[np.int64], anew: Mapping[str, NDArray]
) -> Iterator[Finding]:
    """Image, label and what the model says. anew: the arrays of explain_rows for these rows, numbered from 0."""
    if store.has_images:
        yield from _differing("image", rows, (store.image[rows] != anew["image"]).any(axis=(1, 2, 3)))
    yield from _differing("label", rows, store.values("label", rows) != anew["label"])
    off = np.abs(store.values("probability", rows).astype(np.float64) - anew["probability"]).max(axis=1)
    allowed = PROBABILITY_TOLERANCE + BEYOND_SAMPLE * precision_error(store, "probability")
    yield from _beyond(rows, Comparison("probability", "largest difference", off, allowed))
    stored_class = anew["probability"][np.arange(len(rows)), store.values("prediction", rows)]
    lead = anew["probability"].max(axis=1) - stored_class
    yield from _differing("prediction", rows, lead > 2 * allowed)


def _compare_target(
    store: AttributionStore, plan: Plan, rows: NDArray[np.int64], anew: Mapping[str, NDArray], target: Target
) -> Iterator[Finding]:
    """What each method stores for one target, where the same class is explained; another class is a finding already."""
    explained, labels = store.values("label" if target == "true" else "prediction", rows), store.values("label", rows)
    # Positions in `rows` of what was explained anew for this target, and of those the ones that are stored for it.
    positions = np.arange(len(rows)) if target == "true" else anew["predicted_row"]
    same = explained[positions] == anew["label" if target == "true" else "prediction"][positions]
    if target == "predicted":
        same &= explained[positions] != labels[positions]
    numbers, classes = rows[positions[same]], explained[positions[same]]
    for method in methods_of(maps=bool(plan.layer)):
        if method.stored not in store.methods:
            continue  # the store is older than the method
        group = method.stored.group + ("" if target == "true" else "/predicted")
        of_group = {
            path.rpartition("/")[2]: values[same] for path, values in anew.items() if path.rpartition("/")[0] == group
        }
        recomputed = Recomputed(plan, store, numbers, target, classes, of_group)
        for comparison in method.recompute(recomputed):
            yield from _beyond(numbers, replace(comparison, name=f"{group}/{comparison.name}"))


def _compare_quality(store: AttributionStore, plan: Plan, rows: NDArray[np.int64]) -> Iterator[Finding]:
    """Scores of the halves of the images: by the stored attributions, for nearly equal pixels may change places in others."""
    if int(str(store.attributes["schema"])) < BY_PATH[f"{QUALITY}/relevance_gain"].since:
        return
    pixels, _ = _read_images(store, plan.dataset, rows)
    images = pixels.astype(np.float32) / 255
    with computing_in(plan.precision):
        anew = judge_rows(
            explainer_for(plan),
            images,
            baselines_for(plan, images),
            store.values("prediction", rows),
            store.attributions(rows, "predicted"),
        )
    error = BEYOND_SAMPLE * precision_error(store, "score")
    for path, values in anew.items():
        stored = store.values(path, rows).astype(np.float64)
        scale = np.maximum(1.0, np.abs(stored))
        yield from _beyond(
            rows, Comparison(path, "difference", np.abs(values - stored) / scale, SCORE_TOLERANCE + error)
        )


def _differing(where: str, rows: NDArray[np.int64], differs: NDArray[np.bool_]) -> Iterator[Finding]:
    if differs.any():
        yield Finding(CHECK, where, "another one comes out", tuple(rows[differs].tolist()))


def _beyond(rows: NDArray[np.int64], comparison: Comparison) -> Iterator[Finding]:
    allowed = np.broadcast_to(comparison.allowed, comparison.off.shape)
    wrong = ~(comparison.off <= allowed)  # what is no number is wrong
    if wrong.any():
        worst = np.flatnonzero(wrong)[np.argmax(comparison.off[wrong])]
        detail = f"{comparison.about} {comparison.off[worst]:.2g} at row {rows[worst]}, allowed {allowed[worst]:.2g}"
        yield Finding(CHECK, comparison.name, detail, tuple(rows[wrong].tolist()))


def _read_images(
    store: AttributionStore, dataset: Dataset, rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """From the dataset, or from the store where recorded_plan found none."""
    if not dataset.directory.is_dir():
        if not store.has_images:
            raise RecordError(
                f"{store.path}: this night was packed without its images; give a root with the dataset {dataset.name} with --root"
            )
        return store.image[rows], store.values("label", rows)
    if rows[-1] >= dataset.n_test:
        raise RecordError(f"dataset {dataset.name} has {dataset.n_test} test rows, the store has row {rows[-1]}")
    pairs = [read_rows(dataset, "test", int(row), int(row) + 1) for row in rows]
    return np.concatenate([pixels for pixels, _ in pairs]), np.concatenate([labels for _, labels in pairs])
