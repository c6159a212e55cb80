"""Pictures of explained rows, from their arrays: matplotlib figures or RGB arrays. Nothing is read or written here.

The seed's two figures, redrawn: the image beside its signed Integrated Gradients, and the image, its Grad-CAM heat map and
both overlaid 0.6 + 0.4. Signed attributions are summed over channels and shown from -m to m, m the 99.5th percentile of
their absolute values: green adds to the score, red takes away, in a green and a red that the colour-blind tell apart.
A Grad-CAM map is divided by its maximum for display; an empty map stays empty and is labelled so.
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
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "attribution_figure",
    "grad_cam_figure",
    "render",
    "row_figure",
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
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def signed_heat(attribution: NDArray) -> tuple[NDArray[np.float32], float]:
    """An attribution (y, x, channel) summed over channels, (y, x), and the value m at which its colours end."""
    heat = attribution.sum(axis=-1)
    limit = float(np.percentile(np.abs(heat), CLIP_PERCENTILE)) or float(np.abs(heat).max())
    return heat, limit if limit > 0 else 1.0


def scaled_map(grad_cam: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """A map (cam_y, cam_x) divided by its maximum and enlarged bilinearly to (height, width); an empty one stays zero."""
    peak = float(grad_cam.max())
    scaled = grad_cam.astype(np.float32) / (peak if peak > 0 else 1.0)
    return np.asarray(Image.fromarray(scaled).resize((width, height), Image.Resampling.BILINEAR))


def overlay(image: NDArray[np.uint8], heat: NDArray) -> NDArray[np.float32]:
    """The image and the jet-coloured heat (y, x), mixed 0.6 + 0.4: (y, x, 3) in 0..1."""
    return np.clip(IMAGE_SHARE * as_rgb(image) + HEAT_SHARE * HEAT(heat)[..., :3], 0, 1)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An image (y, x, channel) of one or three channels as (y, x, 3) in 0..1."""
    return np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32) / 255


def blank_figure(width: float, height: float) -> Figure:
    """An empty white figure of that size in inches, which makes room for its labels by itself."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _axes_at(
    figure: Figure, boxes: Sequence[tuple[float, float, float, float]], left: float, bottom: float
) -> list[Axes]:
    """Axes without ticks at boxes of (left, bottom, width, height) in inches, all moved by `left` and `bottom`.

    Fixed places, because finding room for labels takes longer than drawing, and a night draws many rows.
    """
    width, height = figure.get_size_inches()
    return [
        figure.add_axes(((left + x) / width, (bottom + y) / height, w / width, h / height), xticks=[], yticks=[])
        for x, y, w, h in boxes
    ]


def _row_sheet(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.suptitle(title, y=1 - 0.06 / height, va="top", fontsize=11, color=INK, parse_math=False)
    return figure


def attribution_figure(image: NDArray[np.uint8], attribution: NDArray, *, title: str, units: str) -> Figure:
    """The seed's first figure: the image beside its signed Integrated Gradients with a colour bar.

    image: (y, x, channel). attribution: (y, x, channel), in units of the score, which `units` names. title: two lines at most.
    """
    figure = _row_sheet(7.6, 3.9, title)
    _draw_attribution(figure, image, attribution, units, left=0.1, bottom=0.1)
    return figure


def grad_cam_figure(image: NDArray[np.uint8], grad_cam: NDArray, *, title: str) -> Figure:
    """The seed's second figure: the image, its Grad-CAM heat map and both overlaid.

    image: (y, x, channel). grad_cam: raw map (cam_y, cam_x).
    """
    figure = _row_sheet(9.6, 3.5, title)
    _draw_grad_cam(figure, image, grad_cam, left=0.1, bottom=0.1)
    return figure


def row_figure(image: NDArray[np.uint8], attribution: NDArray, grad_cam: NDArray, *, title: str, units: str) -> Figure:
    """Both of the seed's figures, one above the other. Arguments as theirs."""
    figure = _row_sheet(9.6, 7.2, title)
    _draw_attribution(figure, image, attribution, units, left=1.1, bottom=3.4)
    _draw_grad_cam(figure, image, grad_cam, left=0.1, bottom=0.1)
    return figure


def _draw_attribution(
    figure: Figure, image: NDArray[np.uint8], attribution: NDArray, units: str, *, left: float, bottom: float
) -> None:
    boxes = ((0, 0, 3, 3), (3.1, 0, 3, 3), (6.5, 0.15, 0.14, 2.7))
    original, heat_ax, bar_ax = _axes_at(figure, boxes, left, bottom)
    original.imshow(as_rgb(image), interpolation="nearest")
    original.set_title("Image", fontsize=10, color=INK)
    heat, limit = signed_heat(attribution)
    shown = heat_ax.imshow(heat, cmap=RED_GREEN, vmin=-limit, vmax=limit, interpolation="nearest")
    heat_ax.set_title("Integrated Gradients", fontsize=10, color=INK)
    ticks = ScalarFormatter(useMathText=True)
    ticks.set_powerlimits((-2, 3))
    bar = figure.colorbar(shown, cax=bar_ax, extend="both", format=ticks)
    bar.set_label(f"green adds, red takes away ({units})", fontsize=9)


def _draw_grad_cam(figure: Figure, image: NDArray[np.uint8], grad_cam: NDArray, *, left: float, bottom: float) -> None:
    boxes = ((0, 0, 2.8, 2.8), (2.9, 0, 2.8, 2.8), (6.6, 0, 2.8, 2.8), (5.78, 0.15, 0.13, 2.5))
    *axes, bar_ax = _axes_at(figure, boxes, left, bottom)
    heat = scaled_map(grad_cam, *image.shape[:2])
    empty = not grad_cam.any()
    axes[0].imshow(as_rgb(image), interpolation="nearest")
    shown = axes[1].imshow(heat, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    axes[2].imshow(as_rgb(image) if empty else overlay(image, heat), interpolation="nearest")
    names = ("Image", "Grad-CAM", "Overlay 0.6 + 0.4")
    if empty:
        names = ("Image", "Grad-CAM: empty map", "No overlay: empty map")
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(name, fontsize=10, color=INK)
    bar = figure.colorbar(shown, cax=bar_ax)
    bar.set_label(f"share of the row's maximum ({grad_cam.max():.2g})", fontsize=9)


def summary_figure(
    images: NDArray[np.uint8],
    attributions: NDArray,
    maps: NDArray,
    titles: Sequence[str],
    *,
    title: str = "",
    columns: int = 10,
) -> Figure:
    """A column a row of the store: the image under its title, its signed Integrated Gradients, its Grad-CAM overlay.

    images: (n, y, x, channel). attributions: (n, y, x, channel). maps: (n, cam_y, cam_x). columns: at most in a line.
    """
    n, line = min(len(images), columns), 3.25
    n_lines = -(-len(images) // columns)
    figure = blank_figure(1.45 * n + 0.4, 1.45 * line * n_lines + 0.1 + (0.3 if title else 0))
    ax = contact_sheet(figure, line * n_lines - 0.25, n)
    for number, (image, attribution, grad_cam) in enumerate(zip(images, attributions, maps, strict=True)):
        top, column = number // columns * line, number % columns
        heat, limit = signed_heat(attribution)
        warm = overlay(image, scaled_map(grad_cam, *image.shape[:2])) if grad_cam.any() else as_rgb(image)
        place(ax, as_rgb(image), top, column)
        place(ax, heat, top + 1, column, cmap=RED_GREEN, vmin=-limit, vmax=limit)
        place(ax, warm, top + 2, column)
        name: dict[str, Any] = {"fontsize": 9, "color": INK, "parse_math": False}
        ax.text(column + 0.5, top - 0.03, short_name(titles[number]), ha="center", va="bottom", **name)
    for number in range(3 * n_lines):
        method = ("Image", "Integrated Gradients", "Grad-CAM")[number % 3]
        middle = number // 3 * line + number % 3 + 0.5
        ax.text(-0.03, middle, method, ha="right", va="center", rotation="vertical", fontsize=9, color=INK)
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
