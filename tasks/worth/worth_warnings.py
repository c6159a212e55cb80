"""What of the worth of a night's explanations is to be looked at."""

from collections.abc import Iterator, Sequence

from storage.file.methods import HIRES_CAM, INTEGRATED_GRADIENTS
from tasks.config import AlertConfig
from tasks.night.result import NightWarning
from tasks.worth.assessment import Assessment
from tasks.worth.controls_table import PERMUTED
from tasks.worth.drift.night_drift import NightDrift
from tasks.worth.strategies.shortcuts import Shortcut
from tasks.worth.worth_words import METRIC_TITLES

__all__ = ["find_drift_warnings", "find_worth_warnings"]

GRAFT_ERROR = 1e-6
# Grad-CAM is shown beside them. It takes the mean of the gradient over space, and is known not to tell the canaries apart.
TRUSTED = (INTEGRATED_GRADIENTS.title, HIRES_CAM.title)
MOST_NAMED = 3
JUDGING = ("relevance_gain", "mu_fidelity")


def find_worth_warnings(
    found: Assessment, alert: AlertConfig, shortcuts: Sequence[Shortcut] = ()
) -> Iterator[NightWarning]:
    """What there is to warn of.

    shortcut: a small region alone makes a class. uninformative: by no measure Integrated Gradients do better than their own
    values in random places of the object. sanity: a random network's attributions are like the model's. known-answer: the
    engine, or a method, misses one.
    """
    for shortcut in shortcuts:
        yield NightWarning(kind="shortcut", message=shortcut.sentence, value=shortcut.score, threshold=alert.shortcut)
    yield from _uninformative(found, alert)
    if found.sanity and found.sanity.largest is not None and found.sanity.largest > alert.sanity:
        yield NightWarning(
            kind="sanity",
            message=f"attributions of a network with its weights in random places correlate with the model's by "
            f"{found.sanity.largest:.2f} in the median",
            value=found.sanity.largest,
            threshold=alert.sanity,
        )
    if found.graft and found.graft.error is not None and found.graft.error > GRAFT_ERROR:
        yield NightWarning(
            kind="known-answer",
            message=f"a graft's attribution is known, and the engine is off by {found.graft.error:.1g} of the largest",
            value=found.graft.error,
            threshold=GRAFT_ERROR,
        )
    for title in TRUSTED:
        contrast = found.canary.contrast(title) if found.canary else None
        if contrast is not None and contrast < alert.canary:
            yield NightWarning(
                kind="known-answer",
                message=f"{title} put {contrast:.2f} more of their heat on a mark for a network that knows the mark than for "
                "one that knows the object",
                value=contrast,
                threshold=alert.canary,
            )


def find_drift_warnings(drift: NightDrift, alert: AlertConfig, names: Sequence[str]) -> Iterator[NightWarning]:
    """reasons-changed: of a class, more than chance changes them. names: of the classes.

    The limit is raised to what a network as good as the others shows beside them, where that is known to be more.
    """
    limit = max(alert.reasons_changed, drift.floor.left_out or 0.0)
    beyond = {number: ratio for number, ratio in drift.ratios.items() if ratio > limit}
    if not beyond or alert.reasons_changed == 0:
        return
    said = ", ".join(f"{names[number]} {ratio:.2f} times its floor" for number, ratio in [*beyond.items()][:MOST_NAMED])
    more = f" and {len(beyond) - MOST_NAMED} classes more" if len(beyond) > MOST_NAMED else ""
    yield NightWarning(
        kind="reasons-changed",
        message=f"since night {drift.compared_with} the reasons changed for {said}{more}; see the page drift",
        value=max(beyond.values()),
        threshold=limit,
    )


def _uninformative(found: Assessment, alert: AlertConfig) -> Iterator[NightWarning]:
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
