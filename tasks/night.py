"""The record of a finished night: what the flow returns, `night.json` holds and the page `night` shows."""

import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from storage import new_night_id, open_store
from tasks.progress import Progress, report

__all__ = ["Night", "NightResult", "run_name"]

ZERO_MAPS_WARNING = 0.2


class NightResult(BaseModel):
    """A sealed night. Counts and shares are of rows explained for the true label; worst_gap is an absolute value.

    verdict: "sealed", or "sealed with warnings: ..." with what to look at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    night_id: str
    verdict: str
    store: Path
    gallery: Path
    store_bytes: int
    n_rows: int
    accuracy: float
    converged_share: float
    worst_gap: float
    gradients_per_image: float
    n_zero_maps: int
    audit: str
    stage_seconds: dict[str, float]
    flow_run_id: str

    @property
    def seconds(self) -> float:
        return sum(self.stage_seconds.values())


def run_name() -> str:
    """What a run is called in the UI: the dataset and when it began, UTC."""
    source = flow_run.parameters["dataset"].source
    return f"{Path(source).name} {datetime.now(UTC):%Y-%m-%d %H:%M}"


class Night:
    """The night while it runs: its id, when it began, and how long each stage took."""

    def __init__(self, night_id: str, began: str, flow_run_id: str):
        self.id, self.began, self.flow_run_id = night_id, began, flow_run_id
        self.stage_seconds: dict[str, float] = {}

    @classmethod
    def begin(cls, flow_run_id: str) -> Self:
        now = datetime.now(UTC)
        return cls(new_night_id(now, secrets.token_hex(3)), now.isoformat(timespec="seconds"), flow_run_id)

    @property
    def seed(self) -> int:
        """Follows from the id, so that each night audits other rows and a night can be audited again."""
        return zlib.crc32(self.id.encode())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Reports the stage as it begins and keeps how long it took."""
        report(Progress(stage=name, done=0, total=1, unit="steps"))
        began = time.monotonic()
        yield
        self.stage_seconds[name] = round(time.monotonic() - began, 2)
        report(Progress(stage=name, done=1, total=1, unit="steps"))

    def result(self, store: Path, accuracy: float, audit: str, warnings: tuple[str, ...]) -> NightResult:
        """The night's record, from its sealed store."""
        with open_store(store) as sealed:
            table = sealed.table()
        n_rows, n_open = len(table), int((table["converged"] == 0).sum())
        n_zero = int((table["cam_max"] == 0).sum())
        found = list(warnings)
        if n_open:
            found.append(f"{n_open} of {n_rows} rows did not converge")
        if n_zero > ZERO_MAPS_WARNING * n_rows:
            found.append(f"{n_zero} of {n_rows} Grad-CAM maps are empty")
        if audit != "passed":
            found.append(audit)
        return NightResult(
            night_id=self.id,
            verdict=f"sealed with warnings: {'; '.join(found)}" if found else "sealed",
            store=store,
            gallery=store.parent / "gallery",
            store_bytes=store.stat().st_size,
            n_rows=n_rows,
            accuracy=accuracy,
            converged_share=1 - n_open / n_rows,
            worst_gap=float(np.abs(table["gap"]).max()),
            gradients_per_image=float(table["n_gradients"].mean()),
            n_zero_maps=n_zero,
            audit=audit,
            stage_seconds=dict(self.stage_seconds),
            flow_run_id=self.flow_run_id,
        )
