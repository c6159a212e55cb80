"""The floor of drift: how much the reasons for each class change where nothing but chance made the models differ.

Two trainings that differ in their seed alone share less than half of their reasons, so a change is judged beside the largest
among reference networks: the recipe of the night's model with other seeds. Where there are none, beside the largest among
earlier nights whose models changed without an alarm. Of a few networks the largest change of a class may be small by luck, so
its floor is at least the median of all classes'.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Self

from pydantic import BaseModel, ConfigDict

from tasks.numerics.worth.drift import Change

__all__ = ["LEAST_NIGHTS", "ClassChange", "NetworkPair", "ReferenceFloor", "chart_floor"]

LEAST_NIGHTS = 8  # whose models changed, for a chart
LEAST_LEFT_OUT = 4  # networks, for three are left


class ClassChange(BaseModel):
    """share: the largest change of a cell's mean share of |attribution|, at `cell` (y, x) of 8x8. energy: distance of heats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    share: float
    cell: tuple[int, int]
    energy: float

    @classmethod
    def of(cls, change: Change) -> Self:
        return cls(n_rows=change.n_rows, share=change.share, cell=change.cell, energy=change.energy)


class NetworkPair(BaseModel):
    """Two reference networks, by their seeds, and the change of each class between them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, int]
    changes: dict[int, ClassChange]


class ReferenceFloor(BaseModel):
    """seeds, accuracies: of the reference networks. n_rows: of the test split, that all of them explained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    n_rows: int
    pairs: tuple[NetworkPair, ...]

    @property
    def shares(self) -> dict[int, float]:
        """The floor of each class: the largest change of a share between two networks, and at least the median of these."""
        return _floors([pair.changes for pair in self.pairs])

    @property
    def left_out(self) -> float | None:
        """The largest change that a network would show over the floor of all others, each left out in turn; None of fewer
        than LEAST_LEFT_OUT networks, for two of them are no floor, and where no class has both.
        """
        found = list[float]()
        if len(self.seeds) < LEAST_LEFT_OUT:
            return None
        for seed in self.seeds:
            own = _largest([pair.changes for pair in self.pairs if seed in pair.seeds])
            others = _floors([pair.changes for pair in self.pairs if seed not in pair.seeds])
            found += [own[number] / others[number] for number in own.keys() & others.keys() if others[number] > 0]
        return max(found, default=None)


def chart_floor(nights: Sequence[Mapping[int, ClassChange]]) -> dict[int, float]:
    """The floor by earlier nights whose models changed: of each class that LEAST_NIGHTS of them or more have.

    nights: the changes of each, without those that were an alarm.
    """
    n_nights = {number: sum(number in night for night in nights) for night in nights for number in night}
    return {number: share for number, share in _floors(nights).items() if n_nights[number] >= LEAST_NIGHTS}


def _floors(changes: Sequence[Mapping[int, ClassChange]]) -> dict[int, float]:
    largest = _largest(changes)
    middle = median(largest.values()) if largest else 0.0
    return {number: max(share, middle) for number, share in largest.items()}


def _largest(changes: Sequence[Mapping[int, ClassChange]]) -> dict[int, float]:
    numbers = sorted({number for each in changes for number in each})
    return {number: max(each[number].share for each in changes if number in each) for number in numbers}
