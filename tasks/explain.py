"""Explain: every method for every row, in parts that run side by side and survive a crash.

A part that is there, whole and of the same plan, is not computed again. Parts are retried when the machine fails them (a
full disk, a lost worker); arithmetic that fails once fails for good.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from storage.file.disk.durable import make_folder
from tasks.config import RunConfig
from tasks.night.explanations_bar import Explanations
from tasks.night.progress import Progress, report
from tasks.numerics.engine import RowTooLarge
from tasks.parts.compute import PartReport, compute_part, topic
from tasks.parts.plan import Plan
from tasks.parts.runners import open_runner, outcome_of

__all__ = ["ExplanationError", "explain", "explain_part"]

RETRIES = 2
RETRY_DELAYS_S: list[float] = [1, 10]
LOOK_S = 1.0


FINAL = (ValueError, RowTooLarge)  # come again however often a part is tried


class ExplanationError(RuntimeError):
    """Parts that failed: their rows, and why."""


explain_part = task(
    name="explain-part",
    task_run_name="rows-{start}-to-{stop}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=lambda _task, _run, state: not isinstance(state.result(raise_on_failure=False), FINAL),
)(compute_part)


def explain(plan: Plan, run: RunConfig) -> list[PartReport]:
    """Runs every part, `run.n_workers` at a time, and reports as they finish.

    Raises ExplanationError naming the rows of the parts that failed, after all others are done and kept.
    """
    shown = Explanations(plan.n_rows, len(plan.ranges()))
    reports: list[PartReport] = []
    failures: list[tuple[tuple[int, int], object]] = []
    needed = [make_folder(plan.parts_folder), Path(plan.dataset.directory), plan.model.path]
    began = time.monotonic()
    if plan.explanation.precision == "auto":
        get_run_logger().info("precision %s of auto: %s", plan.precision, plan.precision_reason)
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
