"""The geometry of the page's charts, for the template to draw as SVG in the colours of its theme.

matplotlib's tickers choose the ticks; everything is in the pixels of a drawing WIDTH by HEIGHT.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tasks.numerics.quality import calibration_bins

__all__ = ["Chart", "calibration_chart", "curve_chart", "histogram", "log_histogram"]

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 386, 16, 192
N_BINS = 40


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """text: what is shown under the pointer and read aloud. beyond: whether it lies outside a tolerance."""

    x: float
    y: float
    width: float
    height: float
    text: str
    beyond: bool = False


@dataclass(frozen=True)
class Line:
    """points: as SVG's polyline takes them. style: name of a class of the style sheet."""

    name: str
    style: str
    points: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    text: str
    style: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart and, in summary, what it shows for those who do not see it."""

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    marks: tuple[Tick, ...] = ()


class _Scale:
    """Data to pixels, linear between two values."""

    def __init__(self, low: float, high: float, start: float, stop: float):
        self.low, self.high = low, high if high > low else low + 1
        self._start, self._step = start, (stop - start) / (self.high - self.low)

    def __call__(self, value: float) -> float:
        return round(self._start + (float(value) - self.low) * self._step, 2)

    def ticks(self, n: int, *, integer: bool = False) -> tuple[Tick, ...]:
        values = MaxNLocator(n, integer=integer, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        inside = [v for v in values if self.low - slack <= v <= self.high + slack]
        return tuple(Tick(self(v), _text(v if abs(v) > slack else 0.0)) for v in inside)


def _text(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−")


def curve_chart(history: Mapping[str, Sequence[float]], name: str) -> Chart:
    """A figure of the training by epoch. history: values by epoch, of `name` and `val_name`."""
    named = [("training", "first", name), ("validation", "second", f"val_{name}")]
    series = [(label, style, history[key]) for label, style, key in named if history.get(key)]
    values = np.concatenate([v for _, _, v in series])
    n, low, high = max(len(v) for _, _, v in series), float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.05
    x = _Scale(1, max(n, 2), LEFT, RIGHT)
    y = _Scale(low - margin, high + margin, BOTTOM, TOP)
    points = [[(x(k), y(v)) for k, v in enumerate(v, start=1)] for _, _, v in series]
    values_text = ", ".join(f"{label} {f'from {v[0]:.4g} to ' if n > 1 else ''}{v[-1]:.4g}" for label, _, v in series)
    return Chart(
        title=f"{name.capitalize()} by epoch",
        summary=f"{name.capitalize()} over {n} epoch{'s' if n > 1 else ''}: {values_text}.",
        x_label="epoch",
        y_label=name,
        x_ticks=x.ticks(6, integer=True)[: 1 if n == 1 else None],
        y_ticks=y.ticks(5),
        lines=tuple(
            Line(label, style, " ".join(f"{a},{b}" for a, b in p))
            for (label, style, _), p in zip(series, points, strict=True)
        ),
        dots=tuple(
            Dot(a, b, 3 if n < 30 else 1.5, f"epoch {k}: {v:.4g} ({label})", style)
            for (label, style, values), p in zip(series, points, strict=True)
            for k, ((a, b), v) in enumerate(zip(p, values, strict=True), start=1)
        ),
    )


def histogram(
    values: NDArray, *, title: str, x_label: str, summary: str, limits: Sequence[float] = (), zero: bool = False
) -> Chart:
    """How many rows have which value, on a linear axis.

    limits: tolerances, marked; bars beyond them are marked, too. zero: whether the axis begins at 0.
    """
    ends = [float(values.min()), float(values.max()), *limits]
    low, high = (0.0 if zero else min(ends)), max(ends)
    edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
    x = _Scale(edges[0], edges[-1], LEFT, RIGHT)
    return _histogram(values, edges, x, x.ticks(5), lambda v: v, title, x_label, summary, limits)


def log_histogram(values: NDArray, *, title: str, x_label: str, summary: str) -> Chart:
    """How many rows have which value, positive, on an axis where each step doubles."""
    low, high = np.floor(np.log2(values.min())), np.ceil(np.log2(values.max()))
    high = high if high > low else low + 1
    n_bins = int(high - low) * max(1, N_BINS // int(2 * (high - low)))
    x = _Scale(low, high, LEFT, RIGHT)
    step = max(1, round((high - low) / 8))
    ticks = tuple(Tick(x(e), _text(2.0**e)) for e in np.arange(low, high + 1, step))
    return _histogram(values, 2.0 ** np.linspace(low, high, n_bins + 1), x, ticks, np.log2, title, x_label, summary, ())


def _histogram(
    values: NDArray,
    edges: NDArray,
    x: _Scale,
    x_ticks: tuple[Tick, ...],
    transform: Callable[[float], float],
    title: str,
    x_label: str,
    summary: str,
    limits: Sequence[float],
) -> Chart:
    """Bars between the edges; their heights are logarithmic, so that a single row of ten thousand is seen."""
    # A value that rounding puts on the wrong side of the outer edges belongs to the outer bins.
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    decades = max(1, int(np.ceil(np.log10(max(1, counts.max())))))
    y = _Scale(-0.25, decades, BOTTOM, TOP)
    bars = []
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            left, top = x(transform(low)), y(np.log10(count))
            beyond = bool(limits) and not (min(limits) <= (low + high) / 2 <= max(limits) or len(limits) == 1)
            beyond |= len(limits) == 1 and (low + high) / 2 > limits[0]
            text = f"{low:.3g} to {high:.3g}: {count:,} row{'s' if count > 1 else ''}"
            width = max(1.0, round(x(transform(high)) - left - 1, 2))
            bars.append(Bar(left, top, width, round(BOTTOM - top, 2), text, beyond))
    return Chart(
        title=title,
        summary=summary,
        x_label=x_label,
        y_label="rows (log scale)",
        x_ticks=x_ticks,
        y_ticks=tuple(Tick(y(e), f"{10**e:,}") for e in range(decades + 1)),
        bars=tuple(bars),
        marks=tuple(Tick(x(limit), f"tolerance {_text(limit)}") for limit in limits),
    )


def calibration_chart(confidences: NDArray, correct: NDArray, error: float, *, note: str = "") -> Chart:
    """Accuracy against confidence, in bins of equal width; dots are sized by rows. error: expected calibration error.

    note: what else there is to say of these confidences.
    """
    x, y = _Scale(0, 1, LEFT, RIGHT), _Scale(0, 1, BOTTOM, TOP)
    dots = []
    for n_rows, confidence, accuracy in zip(*calibration_bins(confidences, correct), strict=True):
        text = f"confidence {confidence:.2f}: accuracy {accuracy:.2f}, {n_rows:,} rows"
        radius = round(2.5 + 9 * float(np.sqrt(n_rows / len(confidences))), 2)
        dots.append(Dot(x(confidence), y(accuracy), radius, text))
    return Chart(
        title="Calibration",
        summary=f"Accuracy against confidence in {len(dots)} bins; expected calibration error {error:.3f}. {note}".strip(),
        x_label="confidence",
        y_label="accuracy",
        x_ticks=x.ticks(5),
        y_ticks=y.ticks(5),
        lines=(Line("calibrated", "ideal", f"{LEFT},{BOTTOM} {RIGHT},{TOP}"),),
        dots=tuple(dots),
    )
