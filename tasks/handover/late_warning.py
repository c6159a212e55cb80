"""A warning that comes when a night is sealed, promoted and published already: its record is written anew, with it."""

from prefect.logging import get_run_logger

from tasks.night.outage import note_result
from tasks.night.result import NightResult, NightWarning

__all__ = ["add_late_warning"]


def add_late_warning(result: NightResult, warning: NightWarning) -> NightResult:
    """The night with one more warning, in its night.json, too."""
    get_run_logger().warning(warning.message)
    warned = result.with_warning(warning)
    warned.write(warned.store.parent)
    note_result(warned)
    return warned
