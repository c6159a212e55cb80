"""Housekeeping: old nights go, with the parts and models that no night refers to any more.

What Prefect's server remembers is none of this flow's business: `nightlens up` has the server itself forget old runs.
"""

from datetime import UTC, datetime

from prefect import flow

from tasks.config import PruneConfig
from tasks.housekeeping import prune_nights

__all__ = ["housekeeping"]


def run_name() -> str:
    """What a run is called in the UI: when it began, UTC."""
    return f"housekeeping {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="housekeeping", flow_run_name=run_name)
def housekeeping(prune: PruneConfig = PruneConfig()) -> None:  # noqa: B008 (frozen, and Prefect draws its form from it)
    """Removes old nights, the parts and models that no night refers to, and what killed writers left behind."""
    prune_nights(prune)
