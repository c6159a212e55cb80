"""What the night's explanations are worth, as the store records it under `worth`."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from storage import AttributionStore
from tasks.worth.controls_table import ControlsTable
from tasks.worth.known_answers import Canary, Graft
from tasks.worth.sanity import Sanity

__all__ = ["Assessment", "recorded_assessment"]


class Assessment(BaseModel):
    """controls: of a sample of rows. sanity, graft, canary: whether the method and its engine can be trusted at all.

    All None where they were not to be measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    controls: ControlsTable | None = None
    sanity: Sanity | None = None
    graft: Graft | None = None
    canary: Canary | None = None

    @property
    def relevance_gains(self) -> dict[str, float]:
        """Of each method and control by its name, where it is defined."""
        judged = self.controls.judged if self.controls else ()
        means = {each.name: each.metrics["relevance_gain"].mean for each in judged}
        return {name: mean for name, mean in means.items() if mean is not None}

    def as_json(self) -> dict[str, Any]:
        """As the store has it: empty where nothing was measured."""
        return self.model_dump(mode="json") if self.controls else {}


def recorded_assessment(store: AttributionStore) -> Assessment:
    """That of a sealed store; without anything for one that has none."""
    return Assessment.model_validate(store.attributes["worth"])
