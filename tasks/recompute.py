"""Recompute: random rows of a sealed store, computed again from the recorded model, dataset and settings.

Compared for each row:

    contract           the recorded one holds: what the outputs are, a function of one image, the Grad-CAM layer
    image, label       equal
    probability        within 1e-4, and the same prediction, or one as probable within twice that
    score              of image and baseline, within 1e-4 of max(1, |score|)
    quadrature_error   within 1e-3 where the same number of gradients was spent
    attribution        relative L2 within 1e-3 where the same number of gradients was spent, else both quadrature errors more:
                       another machine rounds otherwise, and may so stop one refinement earlier or later
    map                relative L2 within 1e-3, and the rounding of a saturated probability (see tasks/audit.py)

A store in bfloat16 may be off by what it measured of that, more, in quadrature_error and attribution: other processors round
it elsewhere. A store that keeps b significant bits may be off by 2^(1 - b) more: both sides are rounded to the nearest. For the
misclassified rows all that belongs to a target is compared for the predicted class too.
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore, Finding, Target, open_store
from storage.file.rounding import EXPLICIT_BITS
from tasks.audit import precision_error, probability_rounding
from tasks.config import FeedConfig
from tasks.contract import establish
from tasks.datasets import Dataset, read_rows
from tasks.models.registry import ModelError, load_model
from tasks.parts.explained_rows import explain_rows
from tasks.parts.plan import Plan
from tasks.parts.recorded import RecordError, recorded_plan

__all__ = ["recompute_rows", "relative_change"]

CHECK, CONTRACT = "recomputed", "contract"
PROBABILITY_TOLERANCE, RELATIVE_TOLERANCE = 1e-4, 1e-3
TINY = float(np.finfo(np.float32).tiny)


def recompute_rows(
    path: Path,
    n_rows: int,
    *,
    seed: int | None = None,
    root: Path | None = None,
    model: Path | None = None,
    code: Path | None = None,
) -> tuple[NDArray[np.int64], tuple[Finding, ...]]:
    """The rows that were computed again, and a finding for each kind of difference.

    n_rows: how many random rows, at most all. seed: of their choice, by default from the store's run id.
    root, model, code: where to find what was recorded, as recorded_plan takes them.
    Raises RecordError, or a StoreError if the store cannot be read.
    """
    with open_store(path) as store:
        chosen = np.random.default_rng(_seed(store) if seed is None else seed)
        rows = np.sort(chosen.choice(store.row_numbers, min(n_rows, len(store)), replace=False))
        plan = recorded_plan(store, root=root, model=model, code=code)
        findings = [*_prove_contract(plan)]
        for start in range(0, len(rows), plan.part_rows):
            findings += _compare(store, plan, rows[start : start + plan.part_rows])
        return rows, tuple(findings)


def _prove_contract(plan: Plan) -> Iterator[Finding]:
    """What is not so any more of how the model is fed and read. Its feed is taken as recorded, like any setting."""
    recorded = plan.contract
    feed = FeedConfig(mean=recorded.mean, scale=recorded.scale, bgr=recorded.bgr)
    layer = recorded.layer or "none"
    try:
        network = load_model(plan.model.path, plan.model.code)
        found = establish(
            network,
            plan.model,
            plan.dataset,
            feed,
            score=plan.explanation.score,
            layer=layer,
            baseline=plan.integrated_gradients.baseline,
        )
    except ModelError as error:
        yield Finding(CONTRACT, "contract", str(error))
        return
    for name in ("output", "layer"):
        was, now = getattr(recorded, name), getattr(found, name)
        if was != now:
            yield Finding(CONTRACT, "contract", f"{name}: recorded as {was!r}, now {now!r}")


def _seed(store: AttributionStore) -> int:
    return zlib.crc32(str(store.attributes["run_id"]).encode())


def _read_images(dataset: Dataset, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if rows[-1] >= dataset.n_test:
        raise RecordError(f"dataset {dataset.name} has {dataset.n_test} test rows, the store has row {rows[-1]}")
    pairs = [read_rows(dataset, "test", int(row), int(row) + 1) for row in rows]
    return np.concatenate([pixels for pixels, _ in pairs]), np.concatenate([labels for _, labels in pairs])


def _compare(store: AttributionStore, plan: Plan, rows: NDArray[np.int64]) -> list[Finding]:
    pixels, labels = _read_images(plan.dataset, rows)
    anew = explain_rows(plan, pixels, labels, first_row=0)
    findings = [*_compare_answers(store, rows, anew)]
    for target in ("true", "predicted"):
        findings += _compare_target(store, plan, rows, anew, target)
    return findings


def _compare_answers(
    store: AttributionStore, rows: NDArray[np.int64], anew: Mapping[str, NDArray]
) -> Iterator[Finding]:
    """Image, label and what the model says. anew: the arrays of explain_rows for these rows, numbered from 0."""
    at = rows - store.row_numbers[0]
    yield from _differing("image", rows, (store.image[rows] != anew["image"]).any(axis=(1, 2, 3)))
    yield from _differing("label", rows, store.labels[at] != anew["label"])
    off = np.abs(store.probabilities[at].astype(np.float64) - anew["probability"]).max(axis=1)
    yield from _beyond("probability", rows, off, PROBABILITY_TOLERANCE, "largest difference")
    stored_class = anew["probability"][np.arange(len(rows)), store.predictions[at]]
    lead = anew["probability"].max(axis=1) - stored_class
    yield from _differing("prediction", rows, lead > 2 * PROBABILITY_TOLERANCE)


def _compare_target(
    store: AttributionStore, plan: Plan, rows: NDArray[np.int64], anew: Mapping[str, NDArray], target: Target
) -> Iterator[Finding]:
    """Attribution and map for one target, where the same class is explained; that it is another was told before."""
    at, group = rows - store.row_numbers[0], "" if target == "true" else "predicted/"
    ig = f"integrated_gradients/{group}"
    explained = (store.labels if target == "true" else store.predictions)[at]
    # Positions in `rows` of what was explained anew for this target, and of those the ones that are stored for it.
    of = np.arange(len(rows)) if target == "true" else anew[f"{ig}row"]
    same = explained[of] == anew["label" if target == "true" else "prediction"][of]
    if target == "predicted":
        same &= explained[of] != store.labels[at][of]
    numbers, targets = rows[of[same]], explained[of[same]]
    certificate = store.certificate(target, numbers)
    stored = {name: column.to_numpy().astype(np.float64) for name, column in certificate.items()}
    ours = {name: anew[f"{ig}{name}"][same].astype(np.float64) for name in stored}
    for name in ("score", "score_baseline"):
        of_score = PROBABILITY_TOLERANCE * np.maximum(1, np.abs(ours[name]))
        yield from _beyond(f"{ig}{name}", numbers, np.abs(stored[name] - ours[name]), of_score, "difference")
    other_cost = stored["n_gradients"] != ours["n_gradients"]
    errors = stored["quadrature_error"] + ours["quadrature_error"]
    off = np.where(other_cost, 0.0, np.abs(stored["quadrature_error"] - ours["quadrature_error"]))
    relative = RELATIVE_TOLERANCE + precision_error(store)
    yield from _beyond(f"{ig}quadrature_error", numbers, off, relative, "difference")
    bits = plan.integrated_gradients.keep_mantissa_bits or EXPLICIT_BITS
    allowed = relative + (0.0 if bits == EXPLICIT_BITS else 2.0**-bits) + np.where(other_cost, errors, 0.0)
    off = relative_change(store.attributions(numbers, target), anew[f"{ig}attribution"][same])
    yield from _beyond(f"{ig}attribution", numbers, off, allowed, "relative L2 difference")
    of_map = np.full(len(numbers), RELATIVE_TOLERANCE)
    if plan.explanation.score == "probability":
        of_map += probability_rounding(store.probabilities[at][of[same]], targets)
    if plan.layer:
        off = relative_change(store.maps(numbers, target), anew[f"grad_cam/{group}map"][same])
        yield from _beyond(f"grad_cam/{group}map", numbers, off, of_map, "relative L2 difference")


def relative_change(stored: NDArray, anew: NDArray) -> NDArray[np.float64]:
    """||stored - anew|| over the larger of their norms, (row,), of arrays (row, ...): 0 where both are zero."""
    stored, anew = stored.astype(np.float64), anew.astype(np.float64)
    norms = np.maximum(_norm(stored), _norm(anew))
    return _norm(stored - anew) / np.maximum(norms, TINY)


def _norm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.square(values).sum(axis=tuple(range(1, values.ndim))))


def _differing(where: str, rows: NDArray[np.int64], differs: NDArray[np.bool_]) -> Iterator[Finding]:
    if differs.any():
        yield Finding(CHECK, where, "another one comes out", tuple(rows[differs].tolist()))


def _beyond(
    where: str, rows: NDArray[np.int64], off: NDArray[np.float64], allowed: NDArray[np.float64] | float, what: str
) -> Iterator[Finding]:
    allowed = np.broadcast_to(allowed, off.shape)
    wrong = ~(off <= allowed)  # what is no number is wrong
    if wrong.any():
        worst = np.flatnonzero(wrong)[np.argmax(off[wrong])]
        detail = f"{what} {off[worst]:.2g} at row {rows[worst]}, allowed {allowed[worst]:.2g}"
        yield Finding(CHECK, where, detail, tuple(rows[wrong].tolist()))
