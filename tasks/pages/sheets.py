"""Sheets of explained rows for a page: a line a row or two, each with its caption and its pictures under common headings.

One figure of many small pictures stays legible in both of Prefect's UIs, where tables with pictures shrink them or cut
them off. Colours are those of storage/draw/figures.py, picture by picture.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.draw.figures import (
    HEAT,
    INK,
    RED_GREEN,
    as_rgb,
    blank_figure,
    contact_sheet,
    overlay,
    place,
    scaled_map,
    signed_heat,
)

__all__ = ["attribution_tile", "heat_tile", "image_tile", "overlay_tile", "rows_sheet"]

Tile = NDArray[np.float32] | None
SHEET_INCHES = 7.4
HEADING_INCHES = 0.42
BLOCK_GAP = 0.15
GREY = 0.85


def image_tile(image: NDArray[np.uint8]) -> Tile:
    """An image (y, x, channel) as it is."""
    return as_rgb(image)


def attribution_tile(attribution: NDArray) -> Tile:
    """The signed heat of an attribution (y, x, channel)."""
    heat, limit = signed_heat(attribution)
    return RED_GREEN(heat / limit / 2 + 0.5)[..., :3]


def heat_tile(image: NDArray[np.uint8], picture: NDArray) -> Tile:
    """A map (cam_y, cam_x) at the image's size; None if it is empty."""
    return HEAT(scaled_map(picture, *image.shape[:2]))[..., :3] if picture.any() else None


def overlay_tile(image: NDArray[np.uint8], picture: NDArray) -> Tile:
    """The image under its map; None if that is empty."""
    return overlay(image, scaled_map(picture, *image.shape[:2])) if picture.any() else None


def rows_sheet(
    rows: Sequence[tuple[str, Sequence[Tile]]], headings: Sequence[str], *, across: int = 1, caption: float = 1.5
) -> Figure:
    """Rows as (caption, tiles), `across` of them in a line; an empty map's tile is None and is drawn as such.

    headings: of the tiles. caption: room for it, in widths of a tile.
    """
    block, n_lines = caption + len(headings) + BLOCK_GAP, -(-len(rows) // across)
    figure = blank_figure(SHEET_INCHES, n_lines * SHEET_INCHES / (block * across) + HEADING_INCHES)
    ax = contact_sheet(figure, n_lines, block * across)
    text: dict[str, Any] = {"fontsize": 8, "color": INK, "parse_math": False}
    for number, (words, tiles) in enumerate(rows):
        line, column = divmod(number, across)
        left = column * block + caption
        ax.text(left - 0.08, line + 0.5, words, ha="right", va="center", linespacing=1.4, **text)
        for k, tile in enumerate(tiles):
            if tile is None:
                place(ax, np.full((1, 1, 3), GREY), line, left + k)
                ax.text(left + k + 0.5, line + 0.5, "empty\nmap", ha="center", va="center", **text)
            else:
                place(ax, tile, line, left + k)
            if line == 0:
                ax.text(left + k + 0.5, -0.03, headings[k], ha="center", va="bottom", **text)
    return figure
