"""What of the worth of a night's explanations is to be looked at."""

from collections.abc import Iterator

from storage.file.methods import INTEGRATED_GRADIENTS
from tasks.config import AlertConfig
from tasks.night.result import NightWarning
from tasks.worth.assessment import Assessment
from tasks.worth.controls_table import PERMUTED
from tasks.worth.worth_words import METRIC_TITLES

__all__ = ["find_worth_warnings"]

JUDGING = ("relevance_gain", "mu_fidelity")


def find_worth_warnings(found: Assessment, alert: AlertConfig) -> Iterator[NightWarning]:
    """uninformative: by no measure Integrated Gradients do better than their own values in random places of the object."""
    if found.controls is None or alert.uninformative == 0:
        return
    differences = {m: found.controls.difference(INTEGRATED_GRADIENTS.title, PERMUTED, m) for m in JUDGING}
    known = {m: d.mean / max(d.standard_error or 0.0, 1e-12) for m, d in differences.items() if d.mean is not None}
    if not known or max(known.values()) > alert.uninformative:
        return
    said = ", ".join(f"{METRIC_TITLES[m]} {differences[m]}" for m in known)
    yield NightWarning(
        kind="uninformative",
        message=f"{INTEGRATED_GRADIENTS.title} do no better than the same values {PERMUTED}: advantage in {said}",
    )
