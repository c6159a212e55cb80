"""Drift of a night: its predictions and reasons against those of the last comparable night, as the store records it."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from storage import AttributionStore
from tasks.worth.store_drift import StoreDrift, compare_stores

__all__ = ["ClassChange", "NightDrift"]

N_MOVED, N_FLOWS = 12, 30
NO_FLOOR = "no floor yet: how much two trainings that differ in their seed alone differ is not known, and so nothing is an alarm"


class ClassChange(BaseModel):
    """share: the largest change of a cell's mean share of |attribution|, at `cell` (y, x) of 8x8. energy: distance of heats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    share: float
    cell: tuple[int, int]
    energy: float


class NightDrift(BaseModel):
    """compared_with: the night's id. n_rows: that both have; n_changed: whose prediction changed, flows: from what to what.

    likeness: mean cosine of the reasons of the others, None where there are none. moved_most: their row numbers, the least
    alike first. changes: by predicted class; notes: why a class has none. floor: what the numbers are to be compared with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    compared_with: str
    n_rows: int
    n_changed: int
    flows: tuple[tuple[int, int, int], ...]
    likeness: float | None
    moved_most: tuple[int, ...]
    changes: dict[int, ClassChange]
    notes: dict[int, str]
    floor: str = NO_FLOOR

    @classmethod
    def of(cls, before: AttributionStore, after: AttributionStore) -> Self:
        """Raises OtherImages if the stores cannot be compared."""
        found: StoreDrift = compare_stores(before, after)
        return cls(
            compared_with=str(before.attributes["run_id"]),
            n_rows=len(found.rows),
            n_changed=len(found.rows) - len(found.stayed),
            flows=tuple(found.flows()[:N_FLOWS]),
            likeness=float(found.likeness.mean()) if len(found.stayed) else None,
            moved_most=tuple(found.moved_most(N_MOVED).tolist()),
            changes={
                number: ClassChange(n_rows=c.n_rows, share=c.share, cell=c.cell, energy=c.energy)
                for number, c in found.changes.items()
            },
            notes=found.notes,
        )
