"""Pace: how long a row takes in the stages that go over all rows, beside earlier nights that had the same work.

Only nights that computed every row themselves have a pace: one that found parts of another was quicker for that reason. Stages
that are done once and kept, such as a training, are no part of it. The same work is the same images and rows with the same
settings, on the same kind of device; the model may be trained anew, and nightlens be another version.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from tasks.config import AlertConfig
from tasks.night.result import NightWarning, Pace

__all__ = ["find_slowness", "measure_pace"]

STAGES = ("evaluate", "explain", "seal")
FEWEST = 5
# A night of seconds varies by as much as itself; nobody has to look at that.
LEAST_GROWTH_S = 30.0
SECTIONS = ("explanation", "integrated_gradients", "grad_cam")
RUNNING = ("runner", "n_workers", "dask_address", "layout")


def measure_pace(
    about: Mapping[str, Any], stage_seconds: Mapping[str, float], *, n_rows: int, n_computed: int
) -> Pace | None:
    """None for a night that did not compute all of its rows itself, or whose stages are not known.

    about: the attributes of its store.
    """
    if n_computed != n_rows or not set(STAGES) <= set(stage_seconds):
        return None
    asked = about["configuration"]
    work = {
        "rows": n_rows,
        "model": asked.get("model", {}).get("source"),
        "run": {name: asked.get("run", {}).get(name) for name in RUNNING},
        **{name: asked.get(name) for name in SECTIONS},
        **{name: about[name] for name in ("dataset_sha256", "dataset_split", "device", "precision")},
    }
    digest = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()
    return Pace(work=digest, n_rows=n_rows, seconds_per_row=sum(stage_seconds[name] for name in STAGES) / n_rows)


def find_slowness(pace: Pace | None, earlier: Sequence[Pace], alert: AlertConfig) -> Iterator[NightWarning]:
    """duration: a row took much longer than in the median of the last nights. earlier: of the same work, the newest first."""
    if pace is None or len(earlier) < FEWEST or alert.duration == 0:
        return
    usual = median(before.seconds_per_row for before in earlier)
    growth_s = (pace.seconds_per_row - usual) * pace.n_rows
    if growth_s > LEAST_GROWTH_S and pace.seconds_per_row > alert.duration * usual:
        yield NightWarning(
            kind="duration",
            message=f"a row took {pace.seconds_per_row:.3g} s to evaluate, explain and seal, where the last {len(earlier)} such "
            f"nights took {usual:.3g} s in the median",
            value=pace.seconds_per_row / usual if usual else None,
            threshold=alert.duration,
        )
