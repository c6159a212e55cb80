"""The notebook's two figures of a row, as panels that many rows can share one after the other.

Setting up axes and drawing what is the same in all of them takes longer than the rest, and a night draws many rows: a panel
is set up once, `show` exchanges what is in it, and a sheet draws anew only what changes. Places are fixed, in inches,
because finding room for labels takes longer still.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from storage.draw.figures import HEAT, INK, RED_GREEN, as_rgb, overlay, scaled_map, signed_heat
from storage.file.methods import StoredMethod

__all__ = ["Sheet", "row_figure"]

PANEL_INCHES = 3.3  # of one panel to the next
TITLE_SIZES = (11, 10, 9, 8, 7, 6)


class AttributionPanel:
    """An image beside its signed Integrated Gradients with a colour bar. changing: what differs from row to row."""

    SIZE = (7.6, 3.9)

    def __init__(
        self, figure: Figure, shape: Sequence[int], title: str, units: str, *, left: float = 0.1, bottom: float = 0.1
    ):
        """shape: (y, x, ...) of every image. title: of the method. units: name those of the score.

        left, bottom: of the panel, in inches.
        """
        boxes = ((0, 0, 3, 3), (3.1, 0, 3, 3), (6.5, 0.15, 0.14, 2.7))
        original, heat_ax, bar_ax = _axes_at(figure, boxes, left, bottom)
        self._image = _picture(original, np.zeros((*shape[:2], 3)))
        self._heat = heat_ax.imshow(np.zeros(shape[:2]), cmap=RED_GREEN, vmin=-1, vmax=1, interpolation="nearest")
        original.set_title("Image", fontsize=10, color=INK)
        heat_ax.set_title(title, fontsize=10, color=INK)
        ticks = ScalarFormatter(useMathText=True)
        ticks.set_powerlimits((-2, 3))
        bar = figure.colorbar(self._heat, cax=bar_ax, extend="both", format=ticks)
        bar.set_label(f"green adds, red takes away ({units})", fontsize=9)
        self.changing = [*_with_frame(self._image), *_with_frame(self._heat), bar_ax]

    def show(self, image: NDArray[np.uint8], attribution: NDArray) -> None:
        """image, attribution: (y, x, channel), the latter in units of the score."""
        heat, limit = signed_heat(attribution)
        self._image.set_data(_opaque(image))
        self._heat.set_data(heat)
        self._heat.set_clim(-limit, limit)


class MapPanel:
    """An image, the heat of its map with a colour bar, and both overlaid. changing: what differs from row to row."""

    SIZE = (9.6, 3.5)

    def __init__(
        self, figure: Figure, shape: Sequence[int], title: str, units: str, *, left: float = 0.1, bottom: float = 0.1
    ):
        """Arguments as those of AttributionPanel."""
        self._name = title
        boxes = ((0, 0, 2.8, 2.8), (2.9, 0, 2.8, 2.8), (6.6, 0, 2.8, 2.8), (5.78, 0.15, 0.13, 2.5))
        original, heat_ax, mixed, bar_ax = _axes_at(figure, boxes, left, bottom)
        self._image, self._mixed = (_picture(ax, np.zeros((*shape[:2], 3))) for ax in (original, mixed))
        self._heat = heat_ax.imshow(np.zeros(shape[:2]), cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        original.set_title("Image", fontsize=10, color=INK)
        # At a fixed height: matplotlib would find it only where it draws whole axes.
        self._titles = [ax.set_title("", y=1, fontsize=10, color=INK) for ax in (heat_ax, mixed)]
        self._bar = figure.colorbar(self._heat, cax=bar_ax)
        pictures = (self._image, self._heat, self._mixed)
        framed = [part for picture in pictures for part in _with_frame(picture)]
        self.changing = [*framed, *self._titles, bar_ax.yaxis.label]

    def show(self, image: NDArray[np.uint8], picture: NDArray) -> None:
        """image: (y, x, channel). picture: raw map (cam_y, cam_x)."""
        heat, empty = scaled_map(picture, *image.shape[:2]), not picture.any()
        self._image.set_data(_opaque(image))
        self._heat.set_data(heat)
        self._mixed.set_data(as_rgb(image) if empty else overlay(image, heat))
        names = (f"{self._name}: empty map", "No overlay: empty map") if empty else (self._name, "Overlay 0.6 + 0.4")
        for title, name in zip(self._titles, names, strict=True):
            title.set_text(name)
        self._bar.set_label(f"share of the row's maximum ({picture.max():.2g})", fontsize=9)


class Sheet:
    """A figure of one row after the other, by one method. What no row changes is drawn once and kept as pixels."""

    def __init__(self, method: StoredMethod, shape: Sequence[int], units: str):
        """shape: (y, x, ...) of every image. units: name those of the score."""
        panel = _panel_of(method)
        self.figure, self._title = _titled_figure(*panel.SIZE)
        self._panel = panel(self.figure, shape, method.title, units)
        self._canvas = FigureCanvasAgg(self.figure)
        self._still: tuple[int, Any] | None = None

    def show(self, image: NDArray[np.uint8], picture: NDArray, title: str) -> None:
        """image: (y, x, channel). picture: of the method, raw. title: two lines at most."""
        _write(self.figure, self._title, title)
        self._panel.show(image, picture)

    def render(self, dpi: int) -> NDArray[np.uint8]:
        """The pixels of the row that was shown last, uint8 (y, x, 3): those of figures.render."""
        changing = [self._title, *self._panel.changing]
        if self._still is None or self._still[0] != dpi:
            self._still = dpi, self._draw_without(changing, dpi)
        self._canvas.restore_region(self._still[1])
        renderer = self._canvas.get_renderer()
        for artist in changing:
            artist.draw(renderer)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()

    def _draw_without(self, changing: Sequence[Artist], dpi: int) -> Any:
        self.figure.set_dpi(dpi)
        for artist in changing:
            artist.set_visible(False)
        self._canvas.draw()
        for artist in changing:
            artist.set_visible(True)
        return self._canvas.copy_from_bbox(self.figure.bbox)


def row_figure(
    image: NDArray[np.uint8], explained: Sequence[tuple[StoredMethod, NDArray]], *, title: str, units: str
) -> Figure:
    """The figures of all methods of one row, one above the other. Arguments as those of Sheet.show."""
    if len(explained) == 1:
        (method, picture) = explained[0]
        sheet = Sheet(method, image.shape, units)
        sheet.show(image, picture, title)
        return sheet.figure
    n_below = len(explained) - 1
    figure, heading = _titled_figure(MapPanel.SIZE[0], AttributionPanel.SIZE[1] + n_below * PANEL_INCHES)
    _write(figure, heading, title)
    for above, (method, picture) in enumerate(explained):
        panel, bottom = _panel_of(method), 0.1 + (n_below - above) * PANEL_INCHES
        left = 0.1 + (MapPanel.SIZE[0] - panel.SIZE[0]) / 2
        panel(figure, image.shape, method.title, units, left=left, bottom=bottom).show(image, picture)
    return figure


def _panel_of(method: StoredMethod) -> type[AttributionPanel] | type[MapPanel]:
    return MapPanel if method.is_map else AttributionPanel


def _titled_figure(width: float, height: float) -> tuple[Figure, Text]:
    """An empty figure of that size in inches, and its title, still empty, with room for two lines."""
    figure = Figure(figsize=(width, height), facecolor="white")
    return figure, figure.suptitle(
        "", y=1 - 0.06 / height, va="top", fontsize=TITLE_SIZES[0], color=INK, parse_math=False
    )


def _write(figure: Figure, title: Text, text: str) -> None:
    """In letters so small that the figure is wide enough for it."""
    title.set_text(text)
    for size in TITLE_SIZES:
        title.set_fontsize(size)
        if title.get_window_extent().width <= 0.97 * figure.bbox.width:
            break


def _axes_at(
    figure: Figure, boxes: Sequence[tuple[float, float, float, float]], left: float, bottom: float
) -> list[Axes]:
    """Axes without ticks at boxes of (left, bottom, width, height) in inches, all moved by `left` and `bottom`."""
    width, height = figure.get_size_inches()
    return [
        figure.add_axes(((left + x) / width, (bottom + y) / height, w / width, h / height), xticks=[], yticks=[])
        for x, y, w, h in boxes
    ]


def _picture(ax: Axes, pixels: NDArray) -> AxesImage:
    return ax.imshow(pixels, interpolation="nearest")


def _with_frame(picture: AxesImage) -> list[Artist]:
    """A picture, and what is drawn over its edges."""
    return [picture, *picture.axes.spines.values()]


def _opaque(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An image as (y, x, 4), its alpha one: matplotlib would add that in float64, and take three times as long."""
    return np.dstack([as_rgb(image), np.ones(image.shape[:2], np.float32)])
