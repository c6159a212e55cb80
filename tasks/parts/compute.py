"""One part computed and written, unless it is there: whole and of the same plan."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from storage import LockBusy, check_part, write_part
from storage.file.disk.durable import make_folder
from storage.file.disk.lock import Owner, locked
from storage.file.methods import GRAD_CAM
from tasks.datasets import read_rows
from tasks.numerics.network.tensor_float_32 import computing_in
from tasks.parts.explained_rows import explain_rows
from tasks.parts.plan import Plan, refuse_other_device
from tasks.parts.runners import report_rows

__all__ = ["PartReport", "compute_part", "topic"]

PART_PATIENCE_S = 1800.0
REPORT_S = 1.0


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


def compute_part(plan: Plan, start: int, stop: int) -> PartReport:
    """Explains rows start to stop and writes their part, unless it is there.

    Raises ValueError naming the rows if the model's outputs or the attributions are not finite; and on another device.
    """
    path = plan.part(start, stop)
    with _claimed(path, f"rows {start} to {stop - 1}"), computing_in(plan.precision):
        began = time.monotonic()
        if path.exists():
            reason = check_part(path, digest=plan.digest, start=start, stop=stop)
            if reason is None:
                return PartReport(start=start, stop=stop, reused=True)
            get_run_logger().warning("part of rows %d to %d is computed again: %s", start, stop - 1, reason)
        refuse_other_device(plan)
        pixels, labels = read_rows(plan.dataset, "test", start, stop)
        arrays = explain_rows(plan, pixels, labels, first_row=start, on_progress=_reporter(plan, start, stop))
        write_part(path, start, stop, arrays, digest=plan.digest, part_rows=plan.part_rows)
    return PartReport(
        start=start,
        stop=stop,
        reused=False,
        seconds=time.monotonic() - began,
        n_gradients=int(arrays["integrated_gradients/n_gradients"].sum()),
        n_unconverged=int((arrays["integrated_gradients/converged"] == 0).sum()),
        n_zero_maps=int((arrays[GRAD_CAM.peak] == 0).sum()) if plan.layer else 0,
        worst_gap=float(np.abs(arrays["integrated_gradients/gap"]).max()),
    )


def _reporter(plan: Plan, start: int, stop: int) -> Callable[[float], None]:
    """Reports to the night how many of a part's rows are explained, given the share, at most every REPORT_S."""
    last = time.monotonic()

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_S:
            last = time.monotonic()
            report_rows(topic(plan), start, int(share * (stop - start)))

    return report


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


def topic(plan: Plan) -> str:
    """The topic under which a night's parts report how far they are."""
    return f"nightlens-{plan.digest[:16]}"
