"""Small pictures as data URIs: images, signed heat and the heat of maps at their own resolution, for the browser to enlarge.

Heat is cut into LEVELS colours, which is finer than the eye and a third of the bytes; lossless WebP keeps every pixel.
"""

import base64
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from PIL import Image

from storage import AttributionStore, StoredMethod, Target
from storage.draw.figures import HEAT, RED_GREEN, as_rgb, scaled_map, signed_heat
from storage.read.row_means import block_rows

__all__ = ["Heat", "RowPictures", "draw_heat", "draw_image", "draw_rows", "draw_signed", "shown_size"]

LEVELS = 101
MOST_PIXELS = 64  # of a side; larger images are reduced
EFFORT = 25  # of WebP's 100: the rest takes a third more time for half a per cent of the bytes


def _palette(colours: Colormap) -> NDArray[np.uint8]:
    return np.rint(colours(np.arange(LEVELS) / (LEVELS - 1))[:, :3] * 255).astype(np.uint8)


SIGNED, WARM = _palette(RED_GREEN), _palette(HEAT)


@dataclass(frozen=True)
class Heat:
    """The picture of an explanation. source: a data URI, "" for an empty map.

    end: where its colours end: of an attribution in units of the score a pixel, of a map its maximum in units of the score.
    """

    source: str
    end: float

    @property
    def n_bytes(self) -> int:
        """What it costs in the page."""
        return len(self.source) + 60


@dataclass(frozen=True)
class RowPictures:
    """The pictures of a row, by the group of their method; `predicted` is empty but for the misclassified ones.

    why: it is drawn, one of REASONS; "" where somebody asked for it. image: "" in a store without images.
    """

    row: int
    why: str
    image: str
    true: Mapping[str, Heat]
    predicted: Mapping[str, Heat]

    @property
    def n_bytes(self) -> int:
        """What they cost in the page."""
        return len(self.image) + sum(heat.n_bytes for heat in (*self.true.values(), *self.predicted.values())) + 60


def draw_rows(
    store: AttributionStore, ranked: Iterable[tuple[int, str]], budget: float, most_pixels: int = MOST_PIXELS
) -> list[RowPictures]:
    """The pictures of the first of the ranked rows, (row, why) each, as many as cost no more than budget bytes.

    most_pixels: of a picture's longer side; what is larger is reduced.
    """
    drawn: list[RowPictures] = []
    spent = 0
    # Rows in order of rank lie anywhere in the store: the more are read at once, the fewer chunks are unpacked again.
    for batch in _batches(ranked, block_rows(store.image_shape, itemsize=4)):
        for pictures in _draw_batch(store, batch, most_pixels):
            spent += pictures.n_bytes
            if spent > budget:
                return drawn
            drawn.append(pictures)
    return drawn


def _batches(ranked: Iterable[tuple[int, str]], size: int) -> Iterator[list[tuple[int, str]]]:
    remaining = iter(ranked)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _draw_batch(store: AttributionStore, batch: list[tuple[int, str]], most_pixels: int) -> Iterator[RowPictures]:
    rows = np.array([row for row, _ in batch])
    images = store.images(rows)
    wrong = ~store.values("correct", rows)
    true = _explain(store, rows, "true", most_pixels)
    predicted = _explain(store, rows[wrong], "predicted", most_pixels)
    for (row, why), image, is_wrong in zip(batch, images, wrong, strict=True):
        yield RowPictures(row, why, draw_image(image, most_pixels), next(true), next(predicted) if is_wrong else {})


def _explain(
    store: AttributionStore, rows: NDArray[np.int64], target: Target, most_pixels: int
) -> Iterator[dict[str, Heat]]:
    pictures = {method: store.view(method, target)[rows] for method in store.methods}
    for k in range(len(rows)):
        yield {
            method.group: draw_heat(method, of_rows[k], store.image_shape, most_pixels)
            for method, of_rows in pictures.items()
        }


def draw_image(image: NDArray[np.uint8], most_pixels: int = MOST_PIXELS) -> str:
    """An image (y, x, channel) of one or three channels, reduced if it is large; "" for one without channels: there is none."""
    if not image.shape[-1]:
        return ""
    picture = Image.fromarray(np.rint(as_rgb(image) * 255).astype(np.uint8))
    return _data_uri(picture.resize(shown_size(image.shape, most_pixels), Image.Resampling.LANCZOS))


def draw_heat(
    method: StoredMethod, picture: NDArray, image_shape: Sequence[int], most_pixels: int = MOST_PIXELS
) -> Heat:
    """An attribution (y, x, channel) or a raw map (cam_y, cam_x) of one image. image_shape: (y, x, ...)."""
    width, height = shown_size(image_shape, most_pixels)
    if method.is_map:
        peak = float(picture.max())
        return Heat(_heat_uri(scaled_map(picture, height, width), WARM) if peak > 0 else "", _brief(peak))
    summed = Image.fromarray(picture.sum(axis=-1, dtype=np.float32)).resize((width, height), Image.Resampling.BOX)
    heat, limit = signed_heat(np.asarray(summed)[..., None])
    return Heat(draw_signed(heat / limit), _brief(limit))


def draw_signed(values: NDArray) -> str:
    """Values (y, x) in the colours of attributions, which end at -1 and 1."""
    return _heat_uri(values / 2 + 0.5, SIGNED)


def _brief(value: float) -> float:
    """In three significant digits, which is what the page says of it."""
    return float(f"{value:.3g}")


def shown_size(shape: Sequence[int], most_pixels: int = MOST_PIXELS) -> tuple[int, int]:
    """Width and height at which an image of the shape (y, x, ...) is kept in the page."""
    shrink = min(1.0, most_pixels / max(shape[:2]))
    return max(1, round(shape[1] * shrink)), max(1, round(shape[0] * shrink))


def _heat_uri(values: NDArray, palette: NDArray[np.uint8]) -> str:
    """Values in 0..1, (y, x), in the colours of a palette (level, 3)."""
    return _data_uri(Image.fromarray(palette[np.rint(np.clip(values, 0, 1) * (LEVELS - 1)).astype(np.uint8)]))


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=True, quality=EFFORT, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
