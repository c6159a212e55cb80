"""Explain: Integrated Gradients and Grad-CAM of every row, in parts that run side by side and survive a crash.

A part that is there, whole and of the same plan, is not computed again. Parts are retried when the machine fails them (a
full disk, a lost worker); arithmetic that fails once fails for good.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from storage import LockBusy, check_part, write_part
from storage.durable import make_folder
from storage.lock import Owner, locked
from storage.rounding import round_significand
from tasks.config import RunConfig
from tasks.datasets import Dataset, mean_image, read_rows
from tasks.explanations import Explanations
from tasks.numerics.baselines import make_baselines
from tasks.numerics.explainer import Explainer, Method
from tasks.numerics.integrated_gradients import Attributions, completeness_gap, within
from tasks.numerics.quadrature import Tolerances
from tasks.plan import Plan
from tasks.progress import Progress, report
from tasks.registry import load_model
from tasks.runners import open_runner, outcome_of, tell_rows

__all__ = [
    "ExplanationError",
    "PartReport",
    "baselines_for",
    "compute_part",
    "explain",
    "explain_part",
    "explain_rows",
    "explainer_for",
    "round_attributions",
]

RETRIES = 2
PART_PATIENCE_S = 1800.0
RETRY_DELAYS_S: list[float] = [1, 10]
LOOK_S = 1.0
TELL_S = 1.0


class ExplanationError(RuntimeError):
    """Parts that failed: their rows, and why."""


class PartReport(BaseModel):
    """What one part took. All counts are of rows explained for the true label; seconds is 0 for a part found whole."""

    model_config = ConfigDict(frozen=True)

    start: int
    stop: int
    reused: bool
    seconds: float = 0.0
    n_gradients: int = 0
    n_unconverged: int = 0
    n_zero_maps: int = 0
    worst_gap: float = 0.0


_loading = threading.Lock()


def explainer_for(plan: Plan) -> Explainer:
    """The plan's model with its compiled functions, made once a process."""
    with _loading:
        model = plan.model
        return _explainer(model.path, model.sha256, model.code, model.code_sha256, plan.method())


@lru_cache(maxsize=1)
def _explainer(path: Path, sha256: str, code: Path | None, code_sha256: str, method: Method) -> Explainer:
    return Explainer(load_model(path, code), method, _warn)


def _warn(line: str) -> None:
    get_run_logger().warning(line)


@lru_cache(maxsize=1)
def _mean_image(dataset: Dataset) -> NDArray[np.float64]:
    return mean_image(dataset)


def baselines_for(plan: Plan, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The plan's baseline of each image."""
    kind = plan.integrated_gradients.baseline
    with _loading:
        mean = _mean_image(plan.dataset) if kind == "mean" else None
    return make_baselines(kind, images, mean)


def compute_part(plan: Plan, start: int, stop: int) -> PartReport:
    """Explains rows start to stop and writes their part, unless it is there.

    Raises ValueError naming the rows if the model's outputs or the attributions are not finite.
    """
    path = plan.part(start, stop)
    with _claimed(path, f"rows {start} to {stop - 1}"):
        began = time.monotonic()
        if path.exists():
            reason = check_part(path, digest=plan.digest, start=start, stop=stop)
            if reason is None:
                return PartReport(start=start, stop=stop, reused=True)
            get_run_logger().warning("part of rows %d to %d is computed again: %s", start, stop - 1, reason)
        pixels, labels = read_rows(plan.dataset, "test", start, stop)
        arrays = explain_rows(plan, pixels, labels, first_row=start, told=_teller(plan, start, stop))
        write_part(path, start, stop, arrays, digest=plan.digest, part_rows=plan.part_rows)
    return PartReport(
        start=start,
        stop=stop,
        reused=False,
        seconds=time.monotonic() - began,
        n_gradients=int(arrays["integrated_gradients/n_gradients"].sum()),
        n_unconverged=int((arrays["integrated_gradients/converged"] == 0).sum()),
        n_zero_maps=int((arrays["grad_cam/cam_max"] == 0).sum()) if plan.layer else 0,
        worst_gap=float(np.abs(arrays["integrated_gradients/gap"]).max()),
    )


def _teller(plan: Plan, start: int, stop: int) -> Callable[[float], None]:
    """Tells the night how many of a part's rows are explained, given the share, at most every TELL_S."""
    told = time.monotonic()

    def tell(share: float) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            tell_rows(topic(plan), start, int(share * (stop - start)))

    return tell


@contextmanager
def _claimed(path: Path, rows: str) -> Iterator[None]:
    """Keeps another night that needs the same part waiting, so that it finds the part done.

    One that waits for longer than is plausible computes it as well: each writes a file of its own and renames it.
    """

    def waiting(owner: Owner) -> None:
        get_run_logger().info("%s: waiting for %s", rows, owner)

    with ExitStack() as held:
        lock = make_folder(path.parent) / f"{path.stem}.lock"
        try:
            held.enter_context(locked(lock, rows, patience_s=PART_PATIENCE_S, on_wait=waiting))
        except LockBusy as busy:
            get_run_logger().warning("%s: computed here as well (%s)", rows, busy)
        yield


def explain_rows(
    plan: Plan,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    first_row: int,
    told: Callable[[float], object] | None = None,
) -> dict[str, NDArray]:
    """Every per-row array of the store, by its path. pixels: (row, y, x, channel). labels: (row,).

    The misclassified rows are explained a second time, for the predicted class, in the same batches.
    told: called again and again with the share of the attributions that is done.
    """
    explainer, images = explainer_for(plan), pixels.astype(np.float32) / 255
    endpoint = explainer.endpoint(images, labels)
    probabilities = endpoint.probabilities
    if not np.isfinite(probabilities).all():
        bad = first_row + np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
        raise ValueError(f"model {plan.model.name} gives outputs that are not finite for rows {bad[:8].tolist()}")
    predictions = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    again = np.concatenate([np.arange(len(images)), wrong])
    targets = np.concatenate([labels, predictions[wrong]])
    baselines = baselines_for(plan, images)
    endpoint = endpoint.followed_by(explainer.endpoint(images[wrong], predictions[wrong]))
    attributions = explainer.integrated_gradients(
        images[again], baselines[again], targets, (lambda n_done: told(n_done / len(again))) if told else None,
        endpoint=endpoint,
    )  # fmt: skip
    if (bits := plan.integrated_gradients.keep_mantissa_bits) is not None:
        attributions = round_attributions(attributions, bits, explainer.method.tolerances)
    arrays = {"image": pixels, "label": labels, "prediction": predictions, "probability": probabilities}
    n = len(images)
    for group, rows in (("", slice(0, n)), ("predicted/", slice(n, None))):
        arrays |= {f"integrated_gradients/{group}{name}": values[rows] for name, values in vars(attributions).items()}
        if plan.layer:
            arrays |= {
                f"grad_cam/{group}map": endpoint.maps[rows],
                f"grad_cam/{group}cam_max": endpoint.maps[rows].max(axis=(1, 2)),
            }
    methods = ("integrated_gradients", "grad_cam") if plan.layer else ("integrated_gradients",)
    return arrays | dict.fromkeys((f"{method}/predicted/row" for method in methods), first_row + wrong)


def round_attributions(attributions: Attributions, bits: int, tolerances: Tolerances) -> Attributions:
    """The attributions with `bits` explicit bits of the significand, and gap and converged of what is left."""
    attribution = round_significand(attributions.attribution, bits)
    difference = attributions.score.astype(np.float64) - attributions.score_baseline
    gap = completeness_gap(attribution, difference)
    converged = within(tolerances, gap, attributions.quadrature_error, difference)
    return dataclasses.replace(
        attributions, attribution=attribution, gap=gap.astype(np.float32), converged=converged.astype(np.uint8)
    )


explain_part = task(
    name="explain-part",
    task_run_name="rows-{start}-to-{stop}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=lambda _task, _run, state: not isinstance(state.result(raise_on_failure=False), ValueError),
)(compute_part)


def topic(plan: Plan) -> str:
    """Under which a night's parts tell how far they are."""
    return f"nightlens-{plan.digest[:16]}"


def explain(plan: Plan, run: RunConfig) -> list[PartReport]:
    """Runs every part, `run.n_workers` at a time, and reports as they finish.

    Raises ExplanationError naming the rows of the parts that failed, after all others are done and kept.
    """
    shown = Explanations(plan.n_rows, len(plan.ranges()))
    reports: list[PartReport] = []
    failures: list[tuple[tuple[int, int], object]] = []
    needed = [make_folder(plan.parts_folder), Path(plan.dataset.directory), plan.model.path]
    began = time.monotonic()
    get_run_logger().info("%d images in a compiled call (%s)", plan.batch_size, plan.batch_reason)
    with open_runner(run, plan.root, needed, topic(plan), shown.hear) as runner:
        futures: list[Any] = [
            runner.submit(explain_part, {"plan": plan, "start": start, "stop": stop}) for start, stop in plan.ranges()
        ]
        ranges = dict(zip((future.task_run_id for future in futures), plan.ranges(), strict=True))
        for future in _as_completed(futures, meanwhile=shown.update):
            start, stop = ranges[future.task_run_id]
            outcome = outcome_of(future)
            if isinstance(outcome, PartReport):
                reports.append(outcome)
                _log(outcome)
            else:
                failures.append(((start, stop), outcome))
            shown.finish(
                start, stop, failed=not isinstance(outcome, PartReport), reused=getattr(outcome, "reused", False)
            )
            _tell(reports, n_failed=len(failures), n_parts=len(futures), seconds=time.monotonic() - began)
        shown.update(last=True)
    if failures:
        (start, stop), cause = min(failures, key=lambda failure: failure[0])
        rows = ", ".join(f"{a} to {b - 1}" for (a, b), _ in sorted(failures, key=lambda failure: failure[0]))
        raise ExplanationError(
            f"{len(failures)} of {len(futures)} parts failed, rows {rows}; first cause (rows {start} to {stop - 1}): "
            f"{type(cause).__name__}: {cause}. The others are kept: run again to compute what is missing"
        ) from (cause if isinstance(cause, Exception) else None)
    _log_all(plan, reports, time.monotonic() - began)
    return reports


def _as_completed(futures: list[Any], meanwhile: Callable[[], None]) -> Iterator[Any]:
    """The futures as they are done, of whatever runner; `meanwhile` is called in between, at least every LOOK_S."""
    done: SimpleQueue[Any] = SimpleQueue()
    for future in futures:
        future.add_done_callback(done.put)
    n_left = len(futures)
    while n_left:
        meanwhile()
        try:
            yield done.get(timeout=LOOK_S)
        except Empty:
            continue
        n_left -= 1


def _log(part: PartReport) -> None:
    n_rows, rows = part.stop - part.start, {"rows": f"{part.start}:{part.stop}"}
    if part.reused:
        get_run_logger().info("rows %d to %d: found whole, not computed again", part.start, part.stop - 1, extra=rows)
        return
    rate = n_rows / part.seconds
    get_run_logger().info(
        "rows %d to %d: %.1f images/s, %.1f gradients an image, worst gap %.3f, %d not converged, %d zero maps",
        part.start, part.stop - 1, rate, part.n_gradients / n_rows, part.worst_gap, part.n_unconverged, part.n_zero_maps,
        extra={**rows, "images_per_s": round(rate, 2), "worst_gap": part.worst_gap},
    )  # fmt: skip


def _log_all(plan: Plan, reports: list[PartReport], seconds: float) -> None:
    computed = [part for part in reports if not part.reused]
    n_rows, worst = sum(part.stop - part.start for part in computed), max((p.worst_gap for p in computed), default=0.0)
    get_run_logger().info(
        "all rows from %d to %d are explained, %d of them now: %.1f images/s, worst gap %.3f",
        plan.start, plan.stop - 1, n_rows, n_rows / seconds, worst,
        extra={"rows": f"{plan.start}:{plan.stop}", "images_per_s": round(n_rows / seconds, 2), "worst_gap": worst},
    )  # fmt: skip


def _tell(reports: list[PartReport], *, n_failed: int, n_parts: int, seconds: float) -> None:
    computed = [part for part in reports if not part.reused]
    notes = [f"{len(reports) - len(computed)} parts found whole"] if len(computed) < len(reports) else []
    notes += [f"worst gap {max(part.worst_gap for part in computed):.3f}"] if computed else []
    notes += [f"{n_failed} parts failed"] if n_failed else []
    images = sum(part.stop - part.start for part in computed)
    done = len(reports) + n_failed
    report(Progress(stage="explain", done=done, total=n_parts, images=images, seconds=seconds, note=", ".join(notes)))
