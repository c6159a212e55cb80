"""Figures of methods beside their controls: bars with intervals, removal curves, and nights."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.draw.figures import INK, blank_figure, short_name
from tasks.pages.figures.page_figures import BLUE, GREY, ORANGE
from tasks.worth.controls_table import FRACTIONS, ControlsTable, Judged
from tasks.worth.worth_words import METRIC_TITLES

__all__ = ["classes_figure", "controls_figure", "nights_figure", "removal_figure"]

INTERVAL = 2  # standard errors
MOST_CLASSES = 40
LINES = ("-", "--", ":", "-.")


def controls_figure(table: ControlsTable) -> Figure:
    """Each metric a panel: methods and, below them, controls, as bars with intervals of two standard errors."""
    judged = table.judged
    figure = blank_figure(9.6, 0.3 * len(judged) + 1.2)
    axes = figure.subplots(1, len(METRIC_TITLES), sharey=True)
    for ax, (metric, title) in zip(axes, METRIC_TITLES.items(), strict=True):
        for place, each in enumerate(judged):
            _bar(ax, place, each, metric)
        ax.axvline(0, color=INK, lw=0.8)
        ax.set_title(title + (" (less is better)" if metric == "deletion" else ""), fontsize=9, color=INK)
        ax.set_xlabel("correlation" if metric == "mu_fidelity" else "score", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.25, axis="x")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(judged)), [each.name for each in judged], fontsize=9)
    axes[0].set_ylim(len(judged) - 0.5, -0.5)
    return figure


def _bar(ax: Axes, place: int, judged: Judged, metric: str) -> None:
    estimate = judged.metrics[metric]
    if estimate.mean is None or estimate.standard_error is None:
        ax.text(0, place, " not defined", va="center", fontsize=8, color=GREY)
        return
    colour = GREY if judged.is_control else BLUE
    error = INTERVAL * estimate.standard_error
    ax.barh(place, estimate.mean, xerr=error, color=colour, ecolor=INK, capsize=2, height=0.65)


def removal_figure(table: ControlsTable) -> Figure:
    """Deletion and insertion curves: the mean score by the share of pixels that are replaced, or kept."""
    figure = blank_figure(9.6, 3.4)
    columns = (("deletion_curve", "removed", "Deletion"), ("insertion_curve", "kept", "Insertion"))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, verb, title) in zip(axes, columns, strict=True):
        for number, each in enumerate(table.judged):
            if (curve := getattr(each, name)) is not None:
                colour = GREY if each.is_control else (BLUE, ORANGE, INK)[number % 3]
                ax.plot(FRACTIONS, curve, LINES[number % len(LINES)], color=colour, lw=1.6, label=each.name)
        ax.set_xlabel(f"share of the pixels {verb}, the most relevant first", fontsize=9)
        ax.set_title(title, fontsize=10, color=INK)
        ax.set_xlim(0, 1)
        ax.grid(alpha=0.25)
        ax.tick_params(labelsize=8)
    axes[0].set_ylabel("mean score of the predicted class", fontsize=9)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def classes_figure(gains: Sequence[tuple[str, NDArray]]) -> Figure:
    """Relevance gain by class: the middle half of its rows as a bar, the middle 90 % as a line, the median as a stroke.

    gains: the name of each class and its rows', (row,); the first MOST_CLASSES are drawn.
    """
    shown = gains[:MOST_CLASSES]
    figure = blank_figure(7.2, 0.26 * len(shown) + 1.0)
    ax = figure.subplots()
    for place, (_, values) in enumerate(shown):
        least, low, median, high, most = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
        ax.hlines(place, least, most, color=GREY, lw=1.2)
        ax.barh(place, high - low, left=low, height=0.6, color=BLUE, alpha=0.75)
        ax.vlines(median, place - 0.38, place + 0.38, color=INK, lw=2)
    ax.axvline(0, color=INK, lw=0.8, ls=":")
    ax.set_yticks(range(len(shown)), [short_name(name) for name, _ in shown], fontsize=9, parse_math=False)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel("relevance gain of its rows", fontsize=9)
    ax.set_ylabel("predicted class", fontsize=9)
    ax.grid(alpha=0.25, axis="x")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def nights_figure(nights: Sequence[str], lines: Mapping[str, Sequence[float]]) -> Figure:
    """Relevance gain over nights, a line each. nights: the oldest first. lines: by name, NaN where a night has none."""
    figure = blank_figure(9.6, 2.6)
    ax = figure.subplots()
    for number, (name, values) in enumerate(lines.items()):
        ax.plot(np.arange(len(nights)), values, "o" + LINES[number % len(LINES)], ms=3, label=name)
    step = -(-len(nights) // 10)
    ax.set_xticks(range(0, len(nights), step), [night[:8] for night in nights[::step]], fontsize=8)
    ax.set_xlabel("night")
    ax.set_ylabel("relevance gain")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
