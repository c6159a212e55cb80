"""What a store records of the worth of its explanations: a page is written whatever that is."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from storage import AttributionStore
from tasks.worth.assessment import Assessment, recorded_assessment

__all__ = ["is_wanted", "read_worth"]


def read_worth(store: AttributionStore) -> tuple[Assessment, str]:
    """The assessment, and "" or why it cannot be read; nothing is measured in it then."""
    try:
        return recorded_assessment(store), ""
    except ValidationError as error:
        n = error.error_count()
        return (
            Assessment(),
            f"What the store records of it cannot be read by this version of nightlens ({n} unknown things).",
        )


def is_wanted(store: AttributionStore) -> bool:
    """Whether the night's settings want anything said of the worth; those of nights before there was such a setting, too."""
    configuration: Any = store.attributes["configuration"]
    section = configuration.get("worth", {}) if isinstance(configuration, Mapping) else {}
    return not (isinstance(section, Mapping) and section.get("level") == "none")
