"""What changed between two stores of the same images: maps of classes, and rows, then and now."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.draw.figures import INK, as_rgb, blank_figure, contact_sheet, explained_picture, place
from storage.file.methods import INTEGRATED_GRADIENTS
from storage.read.reader import StoreReader

__all__ = ["shares_figure", "then_and_now_figure"]


def shares_figure(before: NDArray, after: NDArray) -> Figure:
    """Mean shares of |attribution| by cell, (cell_y, cell_x), before and after, in one scale, and their difference."""
    figure = blank_figure(7.2, 2.4)
    most = float(max(before.max(), after.max()))
    difference = after - before
    largest = float(np.abs(difference).max()) or 1.0
    panels: Sequence[tuple[str, NDArray, str, float, float]] = (
        ("before", before, "viridis", 0.0, most),
        ("after", after, "viridis", 0.0, most),
        ("after - before", difference, "PuOr_r", -largest, largest),
    )
    for ax, (title, values, colours, least, largest) in zip(figure.subplots(1, 3), panels, strict=True):
        shown = ax.imshow(values, cmap=colours, vmin=least, vmax=largest)
        ax.set_title(title, fontsize=9, color=INK)
        ax.set_xticks([])
        ax.set_yticks([])
        figure.colorbar(shown, ax=ax, shrink=0.8).ax.tick_params(labelsize=7)
    return figure


def then_and_now_figure(before: StoreReader, after: StoreReader, rows: NDArray[np.int64]) -> Figure:
    """Of each row a column: the image, its attributions for the predicted class before, and after."""
    figure = blank_figure(1.1 * len(rows) + 0.6, 3.7)
    ax = contact_sheet(figure, 3, len(rows))
    images = after.image[rows]
    then, now = (store.attributions(rows, "predicted") for store in (before, after))
    for column, row in enumerate(rows):
        place(ax, as_rgb(images[column]), 0, column)
        for line, attributions in ((1, then), (2, now)):
            place(ax, explained_picture(INTEGRATED_GRADIENTS, images[column], attributions[column]), line, column)
        ax.text(column + 0.5, -0.03, f"row {row}", ha="center", va="bottom", fontsize=8, color=INK)
    for line, text in enumerate(("image", "before", "after")):
        ax.text(-0.05, line + 0.5, text, ha="right", va="center", rotation="vertical", fontsize=8, color=INK)
    return figure
