"""What the night's explanations are worth, as the store records it under `worth`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storage import AttributionStore
from tasks.worth.controls_table import ControlsTable
from tasks.worth.drift.night_drift import NightDrift
from tasks.worth.known.known_results import Canary, Graft, Sanity

__all__ = ["NOT_ASSESSED", "Assessed", "Assessment", "StrategyNotes", "recorded_assessment"]


class StrategyNotes(BaseModel):
    """What /clusters does not say. notes: why a class has no strategies, by its number. pasted: by the name of a strategy,
    pairs of rows: the region of the first makes the class of the second.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    notes: dict[int, str]
    pasted: dict[str, tuple[tuple[int, int], ...]]


class Assessment(BaseModel):
    """controls: of a sample of rows. sanity, graft, canary: whether the method and its engine can be trusted at all.
    strategies: what /clusters does not say of them. drift: since the last night on the same images.

    All None where they were not to be measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    controls: ControlsTable | None = None
    sanity: Sanity | None = None
    graft: Graft | None = None
    canary: Canary | None = None
    strategies: StrategyNotes | None = None
    drift: NightDrift | None = None

    @property
    def relevance_gains(self) -> dict[str, float]:
        """Of each method and control by its name, where it is defined."""
        judged = self.controls.judged if self.controls else ()
        means = {each.name: each.metrics["relevance_gain"].mean for each in judged}
        return {name: mean for name, mean in means.items() if mean is not None}

    def as_json(self) -> dict[str, Any]:
        """As the store has it: empty where nothing was measured."""
        return self.model_dump(mode="json") if self.controls else {}


@dataclass(frozen=True)
class Assessed:
    """What is recorded with the store, and its tables by path."""

    assessment: Assessment
    tables: Mapping[str, NDArray]


NOT_ASSESSED = Assessed(Assessment(), {})


def recorded_assessment(store: AttributionStore) -> Assessment:
    """That of a sealed store; without anything for one that has none."""
    return Assessment.model_validate(store.attributes["worth"])
