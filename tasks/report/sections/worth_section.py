"""The section of the page that says what the explanations are worth: sentences, bars beside controls, and known answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage import AttributionStore
from tasks.report.charts import Chart, histogram
from tasks.worth.assessment import Assessment
from tasks.worth.controls_table import ControlsTable, Judged
from tasks.worth.worth_words import METRIC_ABOUT, METRIC_TITLES, Check, known_checks, say_worth

__all__ = ["BarLine", "Bars", "WorthSection", "worth_section"]

SHOWN = ("relevance_gain", "mu_fidelity")
LEFT, RIGHT, TOP, STEP = 4.0, 396.0, 14.0, 34.0
INTERVAL = 2  # standard errors


@dataclass(frozen=True)
class BarLine:
    """A method or a control. text: its number in words. bar: from and to; whisker: the interval; None where there is none."""

    name: str
    is_control: bool
    text: str
    top: float
    bar: tuple[float, float] | None
    whisker: tuple[float, float] | None


@dataclass(frozen=True)
class Bars:
    """Methods above controls by one measure, in the pixels of a drawing 400 wide. zero: where 0 is."""

    title: str
    about: str
    zero: float
    height: float
    lines: tuple[BarLine, ...]


@dataclass(frozen=True)
class WorthSection:
    """sentences: what it comes to. n_rows: of the sample, 0 where nothing was measured on one. gains: of every row, if known."""

    sentences: tuple[str, ...]
    n_rows: int
    bars: tuple[Bars, ...]
    checks: tuple[Check, ...]
    gains: Chart | None


def worth_section(store: AttributionStore, found: Assessment, unreadable: str = "") -> WorthSection | None:
    """None where there is nothing to say: no row has a relevance gain, and nothing else was measured.

    unreadable: why what is recorded cannot be read, in place of what it comes to.
    """
    gains = _gains_chart(store)
    if gains is None and found.controls is None and not unreadable:
        return None
    return WorthSection(
        sentences=(unreadable,) if unreadable else tuple(say_worth(found)),
        n_rows=found.controls.n_rows if found.controls else 0,
        bars=tuple(_bars(found.controls, metric) for metric in SHOWN) if found.controls else (),
        checks=tuple(known_checks(found)),
        gains=gains,
    )


def _gains_chart(store: AttributionStore) -> Chart | None:
    gains = store.values("relevance_gain", ...)
    gains = gains[np.isfinite(gains)]
    if not len(gains):
        return None
    below = f"{(gains < 0).mean():.1%}".replace("%", "\u202f%")
    said = f"Median {np.median(gains):+.3f}, from {gains.min():+.3f} to {gains.max():+.3f}".replace("-", "−")
    return histogram(
        gains,
        title="Relevance gain of every row",
        x_label="relevance gain (units of the score)",
        summary=f"{said}; {below} of the rows are below 0: there the half of the pixels that the explanation puts last speaks "
        "more for the class.",
    )


def _bars(table: ControlsTable, metric: str) -> Bars:
    ends = [0.0, *(end for each in table.judged for end in _interval(each, metric))]
    low, high = min(ends), max(ends)
    scale = (RIGHT - LEFT) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return round(LEFT + (value - low) * scale, 2)

    lines = []
    for place, each in enumerate(table.judged):
        mean, interval = each.metrics[metric].mean, _interval(each, metric)
        bar = None if mean is None else (x(min(mean, 0)), x(max(mean, 0)))
        whisker = (x(interval[0]), x(interval[1])) if interval else None
        lines.append(BarLine(each.name, each.is_control, _number(each, metric), TOP + STEP * place, bar, whisker))
    return Bars(METRIC_TITLES[metric], METRIC_ABOUT[metric], x(0), TOP + STEP * len(lines), tuple(lines))


def _interval(judged: Judged, metric: str) -> Sequence[float]:
    estimate = judged.metrics[metric]
    if estimate.mean is None or estimate.standard_error is None:
        return ()
    return estimate.mean - INTERVAL * estimate.standard_error, estimate.mean + INTERVAL * estimate.standard_error


def _number(judged: Judged, metric: str) -> str:
    estimate = judged.metrics[metric]
    return "not defined" if estimate.mean is None else str(estimate).replace("-", "−")
