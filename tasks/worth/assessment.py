"""What the night's explanations are worth, as the store records it under `worth`."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.worth.controls_table import ControlsTable

__all__ = ["Assessment"]


class Assessment(BaseModel):
    """controls: of a sample of rows; None where nothing of it was to be measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    controls: ControlsTable | None = None

    def as_json(self) -> dict[str, Any]:
        """As the store has it: empty where nothing was measured."""
        return self.model_dump(mode="json", exclude_none=True) if self.controls else {}
