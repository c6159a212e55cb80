"""Drift of a night: its predictions and reasons against those of the last comparable night, as the store records it."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.numerics.worth.drift import CELLS
from tasks.worth.drift.drift_floor import LEAST_NIGHTS, ClassChange, ReferenceFloor, chart_floor
from tasks.worth.drift.store_drift import StoreDrift

__all__ = ["NO_FLOOR", "DriftFloor", "NightDrift", "drift_tables"]

N_MOVED, N_FLOWS = 12, 30
NO_FLOOR = "no floor yet: how much two trainings that differ in their seed alone differ is not known, and so nothing is an alarm"


class DriftFloor(BaseModel):
    """What a night's changes are compared with. about: in words. shares: the floor of each class; empty where there is none.

    left_out: what a network as good as the others may show over the floor; None where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = NO_FLOOR
    shares: dict[int, float] = {}
    left_out: float | None = None

    @classmethod
    def of_references(cls, floor: ReferenceFloor) -> Self:
        largest = (
            ""
            if floor.left_out is None
            else f"; of them, each left out in turn, the largest is {floor.left_out:.2f} x the others"
        )
        return cls(
            about=f"floor: the largest change among {len(floor.seeds)} networks that differ in their seed alone, over "
            f"{floor.n_rows:,} rows{largest}",
            shares=floor.shares,
            left_out=floor.left_out,
        )

    @classmethod
    def of_nights(cls, nights: list[Mapping[int, ClassChange]], *, has_recipe: bool = True) -> Self:
        """By earlier nights whose models changed without an alarm; no floor where they are too few.

        has_recipe: whether there may be reference networks.
        """
        shares = chart_floor(nights)
        if not shares:
            waiting = f"{LEAST_NIGHTS} nights with another model each are needed, {len(nights)} so far"
            hint = "set drift.reference_seeds, run `nightlens floor`, or wait: " if has_recipe else ""
            return cls(about=f"{NO_FLOOR}; {hint}{waiting}")
        return cls(
            about=f"floor: the largest change in {len(nights)} earlier nights whose models changed", shares=shares
        )


class NightDrift(BaseModel):
    """compared_with: the night's id. n_rows: that both have; n_changed: whose prediction changed, flows: from what to what.

    likeness: mean cosine of the reasons of the others, None where there are none. moved_most: their row numbers, the least
    alike first. changes: by predicted class; notes: why a class has none. floor: what these are to be compared with.
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
    floor: DriftFloor = DriftFloor()

    @property
    def ratios(self) -> dict[int, float]:
        """Of each class that has a floor, its largest change of a share over it; the largest ratio first."""
        floors = {number: share for number, share in self.floor.shares.items() if number in self.changes and share > 0}
        found = {number: self.changes[number].share / share for number, share in floors.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @classmethod
    def of(cls, found: StoreDrift, compared_with: str, floor: DriftFloor) -> Self:
        return cls(
            compared_with=compared_with,
            n_rows=len(found.rows),
            n_changed=len(found.rows) - len(found.stayed),
            flows=tuple(found.flows()[:N_FLOWS]),
            likeness=float(found.likeness[found.stayed].mean()) if len(found.stayed) else None,
            moved_most=tuple(found.moved_most(N_MOVED).tolist()),
            changes={number: ClassChange.of(change) for number, change in found.changes.items()},
            notes=found.notes,
            floor=floor,
        )


def drift_tables(found: StoreDrift, row_numbers: NDArray[np.int64], n_classes: int) -> dict[str, NDArray]:
    """The table /drift of a store with these rows, by path."""
    before, alike = np.full(len(row_numbers), -1), np.zeros(len(row_numbers), np.float32)
    at = np.searchsorted(row_numbers, found.rows)
    before[at], alike[at] = found.before, found.likeness
    cells = next((change.before.shape for change in found.changes.values()), (CELLS, CELLS))
    shares = np.zeros((2, n_classes, *cells))
    for number, change in found.changes.items():
        shares[:, number] = change.before, change.after
    return {
        "drift/prediction_before": before,
        "drift/likeness": alike,
        "drift/mean_share_before": shares[0],
        "drift/mean_share": shares[1],
    }
