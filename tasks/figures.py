"""Figures of the dataset, the training and the evaluation; those of explained rows are in storage/figures.py."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.figures import INK, as_rgb, blank_figure, contact_sheet, place, short_name

__all__ = ["confusion_figure", "curves_figure", "grid_figure", "reliability_figure"]


def grid_figure(images: NDArray[np.uint8], titles: Sequence[str], *, title: str, columns: int = 5) -> Figure:
    """Images (n, y, x, channel) in a grid, each under its title; the seed's 5x5 of training images."""
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
        ax.plot(epochs, history[name], "o-", ms=3, color="#0072b2", label="training")
        ax.plot(epochs, history[f"val_{name}"], "s--", ms=3, color="#d55e00", label="validation")
        ax.set_xlabel("epoch")
        ax.set_ylabel(name)
        ax.set_title(name.capitalize(), fontsize=10, color=INK)
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


def reliability_figure(confidences: NDArray, correct: NDArray, n_bins: int = 15) -> Figure:
    """Accuracy against confidence, in bins of equal width. confidences, correct: (row,)."""
    bins = np.minimum((confidences * n_bins).astype(int), n_bins - 1)
    rows = np.bincount(bins, minlength=n_bins)
    some = rows > 0
    confidence = np.bincount(bins, confidences, n_bins)[some] / rows[some]
    accuracy = np.bincount(bins, correct, n_bins)[some] / rows[some]
    figure = blank_figure(4.2, 3.6)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, label="calibrated")
    ax.scatter(
        confidence, accuracy, s=12 + 160 * rows[some] / rows.sum(), color="#0072b2", label="bins, sized by images"
    )
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.05)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    return figure
