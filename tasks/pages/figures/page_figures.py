"""Figures of the dataset, the training and the evaluation; those of explained rows are in storage/draw/figures.py."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.draw.figures import INK, as_rgb, blank_figure, contact_sheet, place, short_name
from tasks.night.contract_facts import FeedFact
from tasks.numerics.quality import calibration_bins

__all__ = [
    "audit_figure",
    "class_figure",
    "confusion_figure",
    "curves_figure",
    "duration",
    "feeds_figure",
    "grid_figure",
    "parameters_figure",
    "reliability_figure",
    "stages_figure",
    "text_figure",
]

BLUE, ORANGE, RED, GREY, PALE = "#0072b2", "#d55e00", "#c0391b", "#888888", "#b8cfe0"
MOST_BARS = 30
LEAST_SHARE, MOST_SHARE = 1e-6, 1e3


def grid_figure(images: NDArray[np.uint8], titles: Sequence[str], *, title: str, columns: int = 5) -> Figure:
    """Images (n, y, x, channel) in a grid, each under its title; the notebook's 5x5 of training images."""
    n_rows, height = -(-len(images) // columns), 1.2
    figure = blank_figure(1.5 * columns, 1.65 * n_rows + 0.4)
    ax = contact_sheet(figure, n_rows, columns, height)
    for number, (image, name) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(number, columns)
        place(ax, as_rgb(image), row, column, cell_height=height)
        x, y = column + 0.5, row * height + 0.2
        ax.text(x, y, short_name(name), ha="center", va="bottom", fontsize=9, color=INK, parse_math=False)
    figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    return figure


def curves_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy and loss by epoch, training and validation."""
    figure = blank_figure(8.4, 3.2)
    for ax, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        epochs = np.arange(1, len(history[name]) + 1)
        ax.plot(epochs, history[name], "o-", ms=3, color=BLUE, label="training")
        ax.plot(epochs, history[f"val_{name}"], "s--", ms=3, color=ORANGE, label="validation")
        ax.set_xlabel("epoch")
        ax.set_ylabel(name)
        ax.set_title(name.capitalize(), fontsize=10, color=INK)
        ax.set_xlim(0.5, len(epochs) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.25)
        ax.legend(frameon=False, fontsize=9)
    return figure


def confusion_figure(matrix: NDArray, class_names: Sequence[str]) -> Figure:
    """Rows of true and columns of predicted classes: shade is the share of the true class, numbers are images."""
    n = len(class_names)
    side = float(np.clip(0.5 * n + 1.8, 4.5, 11))
    figure = blank_figure(side + 0.8, side)
    ax = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shown = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 25:
        for (y, x), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[y, x] > 0.55 else INK
                ax.text(x, y, f"{count}", ha="center", va="center", fontsize=8, color=colour)
    ticks = range(0, n, -(-n // 40))
    labels = [short_name(class_names[k]) for k in ticks]
    ax.set_xticks(ticks, labels, fontsize=8, parse_math=False)
    if max(map(len, labels)) > 3:
        ax.tick_params(axis="x", rotation=45, rotation_mode="xtick")
    ax.set_yticks(ticks, labels, fontsize=8, parse_math=False)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.set_title("Images by true and predicted class", fontsize=10, color=INK)
    figure.colorbar(shown, ax=ax, shrink=0.8, label="share of the true class")
    return figure


def reliability_figure(confidences: NDArray, correct: NDArray) -> Figure:
    """Accuracy against confidence, in bins of equal width. confidences, correct: (row,)."""
    bins = calibration_bins(confidences, correct)
    sizes = 12 + 160 * bins.n_rows / bins.n_rows.sum()
    figure = blank_figure(4.2, 3.6)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=GREY, lw=1, label="calibrated")
    ax.scatter(bins.confidences, bins.accuracies, s=sizes, color=BLUE, label="bins, sized by images")
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.05)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def stages_figure(seconds: Mapping[str, float], failed: str = "") -> Figure:
    """A bar for each stage, in the order in which they ran; the one that failed is red and says so."""
    names = [f"{name} ✗" if name == failed else name for name in seconds]
    labels = [f"{duration(value)}{', failed' if name == failed else ''}" for name, value in seconds.items()]
    colours = [RED if name == failed else BLUE for name in seconds]
    return _bars(names, list(seconds.values()), labels, "seconds", colours)


def class_figure(names: Sequence[str], shares: Sequence[float], overall: float) -> Figure:
    """How many of each class are recognised, worst first, against the accuracy as a line."""
    worst = sorted(range(len(names)), key=lambda k: shares[k])[:MOST_BARS]
    which = f"the worst {MOST_BARS} of {len(names):,} classes" if len(names) > MOST_BARS else "worst first"
    figure = _bars(
        [names[k] for k in worst],
        [shares[k] for k in worst],
        [f"{shares[k]:.0%}" for k in worst],
        f"share of the class that is recognised, {which}",
        [BLUE] * len(worst),
    )
    (ax,) = figure.axes
    ax.set_xlim(0, 1.12)
    ax.axvline(overall, color=ORANGE, lw=1, ls="--")
    at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
    ax.annotate(f"accuracy {overall:.1%}", (overall, 1.01), **at, fontsize=9, color=ORANGE)
    return figure


def parameters_figure(names: Sequence[str], counts: Sequence[int]) -> Figure:
    """The parameters of each layer that has some, in the order of the model; of many, the largest."""
    largest = sorted(sorted(range(len(names)), key=lambda k: -counts[k])[:MOST_BARS])
    which = f", the {MOST_BARS} largest of {len(names):,} layers" if len(names) > MOST_BARS else ""
    return _bars(
        [names[k] for k in largest],
        [counts[k] for k in largest],
        [f"{counts[k]:,}" for k in largest],
        f"parameters{which}",
        [BLUE] * len(largest),
    )


def feeds_figure(feeds: Sequence[FeedFact]) -> Figure:
    """Accuracy of the labels under each feed and, beside it, their log-likelihood; the chosen feed is darker and says so."""
    figure = blank_figure(8.4, 0.32 * max(len(feeds), 3) + 1.0)
    names = [f"{short_name(feed.name, 20)}{' (chosen)' if feed.is_chosen else ''}" for feed in feeds]
    colours = [BLUE if feed.is_chosen else PALE for feed in feeds]
    likelihoods = [feed.log_likelihood for feed in feeds]
    least = min([-1e-3, *(value for value in likelihoods if value is not None)])
    columns = (
        ("accuracy on labelled images", [feed.accuracy for feed in feeds], "{:.3f}", (0.0, 1.25)),
        ("mean log-likelihood of the label (nats)", likelihoods, "{:.2f}", (1.3 * least, 0.0)),
    )
    for ax, (xlabel, values, form, limits) in zip(figure.subplots(1, 2, sharey=True), columns, strict=True):
        ax.barh(range(len(feeds)), [value or 0.0 for value in values], color=colours, height=0.7)
        away = -1 if limits[0] < 0 else 1
        at: dict[str, Any] = {"xytext": (4 * away, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        for height, value in enumerate(values):
            text = "not measured" if value is None else form.format(value)
            ax.annotate(text, (value or 0.0, height), ha="right" if away < 0 else "left", **at)
        ax.set_xlim(*limits)
        ax.set_xlabel(xlabel)
        ax.grid(alpha=0.25, axis="x")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    left = figure.axes[0]
    left.set_xticks(np.linspace(0, 1, 6))
    left.set_yticks(range(len(feeds)), names, fontsize=9, parse_math=False)
    left.set_ylabel("input range")
    left.set_ylim(max(len(feeds), 3) - 0.5, -0.5)
    return figure


def audit_figure(shares: Mapping[str, Sequence[float]], rows: Sequence[int]) -> Figure:
    """Of each comparison and row, the difference over what is allowed: beyond the line it has failed.

    shares: by the comparison's name, (row,); below LEAST_SHARE and above MOST_SHARE they are drawn at the edges.
    """
    figure = blank_figure(7.2, 0.5 * len(shares) + 1.3)
    ax = figure.subplots()
    ax.axvline(1, color=RED, lw=1.2, label="allowed")
    for height, values in enumerate(shares.values()):
        drawn = np.nan_to_num(np.asarray(values, np.float64), nan=np.inf).clip(LEAST_SHARE, MOST_SHARE)
        jitter = np.linspace(-0.22, 0.22, len(drawn)) if len(drawn) > 1 else np.zeros(len(drawn))
        ax.scatter(drawn, height + jitter, s=22, color=[RED if share > 1 else BLUE for share in drawn])
        for share, y, row in zip(drawn, height + jitter, rows, strict=True):
            if share > 1:
                ax.annotate(f"row {row}", (share, y), (5, 0), textcoords="offset points", fontsize=8, va="center")
    ax.set_xscale("log")
    beyond = max(drawn_share for values in shares.values() for drawn_share in [*values, 1.0])
    ax.set_xlim(LEAST_SHARE / 2, 10 * min(max(beyond, 1.0), MOST_SHARE))
    ax.set_yticks(range(len(shares)), list(shares), fontsize=9)
    ax.invert_yaxis()
    ax.set_xlabel("difference over what is allowed")
    ax.grid(alpha=0.25, axis="x")
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    return figure


def text_figure(text: str) -> Figure:
    """A line of text where there is nothing to draw."""
    figure = blank_figure(4.2, 1.2)
    figure.text(0.5, 0.5, short_name(text, 44), ha="center", va="center", fontsize=12, color=INK, parse_math=False)
    return figure


def _bars(
    names: Sequence[str], values: Sequence[float], labels: Sequence[str], xlabel: str, colours: Sequence[str]
) -> Figure:
    figure = blank_figure(7.2, 0.26 * max(len(names), 3) + 0.8)
    ax = figure.subplots()
    bars = ax.barh(range(len(names)), values, color=colours, height=0.7)
    ax.bar_label(bars, labels, padding=4, fontsize=9)
    ax.set_yticks(range(len(names)), [short_name(name, 28) for name in names], fontsize=9, parse_math=False)
    ax.set_xlim(0, 1.18 * max([*values, 1e-9]))
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    ax.grid(alpha=0.25, axis="x")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
