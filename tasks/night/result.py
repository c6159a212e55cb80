"""How a night came out: what the flow returns, `night.json` holds, and the page `night` and the events say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from storage.file.disk.durable import replacing
from storage.nights.night_records import NIGHT_RECORD

__all__ = ["NightFailure", "NightResult", "NightWarning", "verdict_of", "write_record"]


class NightWarning(BaseModel):
    """Something to be looked at. kind: for automations, such as "unconverged" or "zero-maps".

    value and threshold: what came and what was allowed, where that is a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    message: str
    value: float | None = None
    threshold: float | None = None


class NightResult(BaseModel):
    """A sealed night. Counts and shares are of rows explained for the true label; worst_gap is an absolute value.

    has_grad_cam: false where Integrated Gradients are alone. n_zero_maps: empty Grad-CAM maps, 0 where there are none;
    zero_maps: those of each method by its title.
    verdict: "sealed", or "sealed with warnings: ..." with what to look at, which `warnings` has in numbers.
    moves_latest: whether `latest` was to point to it, as to what the schedule makes; only such nights are compared.
    precision: what was computed in, and how far that is from float32 where it is something else, in words. device: on what.
    relevance_gain: mean over all rows; None for a store that has none. worth: the same on the sample of rows, of each method
    and control by its name; empty where it was not measured.
    compared_with, accuracy_change: the last such night on the same images and its accuracy subtracted; None without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    night_id: str
    verdict: str
    warnings: tuple[NightWarning, ...] = ()
    store: Path
    gallery: Path
    store_bytes: int
    n_rows: int
    dataset_sha256: str = ""
    dataset_split: str = ""
    accuracy: float
    compared_with: str | None = None
    accuracy_change: float | None = None
    converged_share: float
    worst_gap: float
    gradients_per_image: float
    n_zero_maps: int
    zero_maps: dict[str, int] = {}
    has_grad_cam: bool = True
    audit: str
    stage_seconds: dict[str, float]
    flow_run_id: str
    moves_latest: bool = True
    precision: str = "float32"
    device: str = ""
    relevance_gain: float | None = None
    worth: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        return sum(self.stage_seconds.values())

    def with_warning(self, warning: NightWarning) -> Self:
        """The same night with something more to be looked at, in its verdict, too."""
        warnings = (*self.warnings, warning)
        return self.model_copy(update={"warnings": warnings, "verdict": verdict_of(warnings)})


class NightFailure(BaseModel):
    """A night that failed: in which stage, why, what it had done until then, and which night `latest` is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    night_id: str
    stage: str
    reason: str
    latest: str
    warnings: tuple[NightWarning, ...] = ()
    stage_seconds: dict[str, float]
    failed_seconds: float
    flow_run_id: str


def verdict_of(warnings: Sequence[NightWarning]) -> str:
    """What a sealed night says first of itself."""
    return f"sealed with warnings: {'; '.join(warning.message for warning in warnings)}" if warnings else "sealed"


def write_record(result: NightResult) -> None:
    """Writes night.json beside the night's store, in place of an earlier one."""
    with replacing(result.store.parent / NIGHT_RECORD) as temporary:
        temporary.write_text(result.model_dump_json(indent=1))
