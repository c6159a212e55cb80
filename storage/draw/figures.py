"""Pictures of explained rows, from their arrays: matplotlib figures or RGB arrays. Nothing is read or written here.

The notebook's two figures, redrawn: the image beside its signed Integrated Gradients, and the image, its Grad-CAM heat map
and both overlaid 0.6 + 0.4. Other methods are drawn as those two are. Signed attributions are summed over channels and shown
from -m to m, m the 99.5th percentile of their absolute values: green adds to the score, red takes away, in a green and a red
that the colour-blind tell apart. A map is divided by its maximum for display; an empty map stays empty and is labelled so.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from storage.file.methods import StoredMethod

__all__ = [
    "render",
    "signed_heat",
    "summary_figure",
]

RED_GREEN = LinearSegmentedColormap.from_list("red_green", ["#c0391b", "#f3b5a2", "#ffffff", "#9fd6bd", "#00795a"])
HEAT = mpl.colormaps["jet"]
IMAGE_SHARE, HEAT_SHARE = 0.6, 0.4
CLIP_PERCENTILE = 99.5
INK = "#222222"


def render(figure: Figure, dpi: int = 100) -> NDArray[np.uint8]:
    """The figure's pixels, uint8 (y, x, 3)."""
    figure.set_dpi(dpi)
    # The canvas keeps its measures of texts, for a figure that is drawn again.
    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def signed_heat(attribution: NDArray) -> tuple[NDArray[np.float32], float]:
    """An attribution (y, x, channel) summed over channels, (y, x), and the value m at which its colours end."""
    heat = attribution.sum(axis=-1)
    limit = float(np.percentile(np.abs(heat), CLIP_PERCENTILE)) or float(np.abs(heat).max())
    return heat, limit if limit > 0 else 1.0


def scaled_map(picture: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """A map (cam_y, cam_x) divided by its maximum and enlarged bilinearly to (height, width); an empty one stays zero."""
    peak = float(picture.max())
    scaled = picture.astype(np.float32) / (peak if peak > 0 else 1.0)
    return np.asarray(Image.fromarray(scaled).resize((width, height), Image.Resampling.BILINEAR))


def overlay(image: NDArray[np.uint8], heat: NDArray) -> NDArray[np.float32]:
    """The image and the jet-coloured heat (y, x), mixed 0.6 + 0.4: (y, x, 3) in 0..1."""
    return np.clip(IMAGE_SHARE * as_rgb(image) + HEAT_SHARE * HEAT(heat)[..., :3], 0, 1)


def explained_picture(method: StoredMethod, image: NDArray[np.uint8], picture: NDArray) -> NDArray[np.float32]:
    """(y, x, 3) in 0..1: the signed heat of an attribution, or the image under a map; an empty map leaves it as it is.

    image: (y, x, channel); without channels, as in a store without images, there is the map's heat alone.
    """
    if not method.is_map:
        heat, limit = signed_heat(picture)
        return RED_GREEN(heat / limit / 2 + 0.5)[..., :3]
    if not image.shape[-1]:
        return HEAT(scaled_map(picture, *image.shape[:2]))[..., :3]
    return overlay(image, scaled_map(picture, *image.shape[:2])) if picture.any() else as_rgb(image)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An image (y, x, channel) of one or three channels as (y, x, 3) in 0..1."""
    return np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32) / 255


def blank_figure(width: float, height: float) -> Figure:
    """An empty white figure of that size in inches, which makes room for its labels by itself."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def summary_figure(
    images: NDArray[np.uint8],
    explained: Sequence[tuple[StoredMethod, NDArray]],
    titles: Sequence[str],
    *,
    title: str = "",
    columns: int = 10,
) -> Figure:
    """A column a row of the store: the image under its title, and below it the picture of each method.

    images: (n, y, x, channel). explained: each method with its pictures: attributions (n, y, x, channel), drawn signed, or
    maps (n, cam_y, cam_x), drawn over the image. columns: at most in a line.
    """
    methods = ("Image", *(method.title for method, _ in explained))
    n, line = min(len(images), columns), len(methods) + 0.25
    n_lines = -(-len(images) // columns)
    figure = blank_figure(1.45 * n + 0.4, 1.45 * line * n_lines + 0.1 + (0.3 if title else 0))
    ax = contact_sheet(figure, line * n_lines - 0.25, n)
    for number, image in enumerate(images):
        top, column = number // columns * line, number % columns
        place(ax, as_rgb(image), top, column)
        for below, (method, pictures) in enumerate(explained, start=1):
            place(ax, explained_picture(method, image, pictures[number]), top + below, column)
        name: dict[str, Any] = {"fontsize": 9, "color": INK, "parse_math": False}
        ax.text(column + 0.5, top - 0.03, short_name(titles[number]), ha="center", va="bottom", **name)
    for number in range(len(methods) * n_lines):
        step, which = divmod(number, len(methods))
        middle: dict[str, Any] = {"ha": "right", "va": "center", "rotation": "vertical", "fontsize": 9, "color": INK}
        ax.text(-0.03, step * line + which + 0.5, methods[which], **middle)
    if title:
        figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    return figure


def contact_sheet(figure: Figure, n_rows: float, n_columns: float, cell_height: float = 1.0) -> Axes:
    """Axes without ticks for many small pictures: `place` puts them into cells of 1 by `cell_height`.

    One set of axes for all, because a set of axes for each takes seconds to lay out.
    """
    ax = figure.subplots()
    ax.axis("off")
    ax.set_aspect("equal")
    ax.set_xlim(0, n_columns)
    ax.set_ylim(n_rows * cell_height, 0)
    ax.autoscale(False)
    return ax


def place(ax: Axes, picture: NDArray, row: float, column: float, *, cell_height: float = 1.0, **colours: Any) -> None:
    """Show a picture, framed, at the bottom of a cell of a contact sheet. colours: as imshow takes them."""
    height, width = (0.94 * side / max(picture.shape[:2]) for side in picture.shape[:2])
    left, bottom = column + (1 - width) / 2, (row + 1) * cell_height - 0.03
    extent = (left, left + width, bottom, bottom - height)
    ax.imshow(picture, interpolation="nearest", aspect="equal", extent=extent, **colours)
    ax.add_patch(Rectangle((left, bottom - height), width, height, fill=False, edgecolor=INK, linewidth=0.6))


def short_name(name: str, n: int = 18) -> str:
    """A class name in one line of at most n characters."""
    line = " ".join(str(name).split())
    return line if len(line) <= n else line[: n - 1] + "…"
