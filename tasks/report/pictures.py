"""Small pictures as data URIs: images, signed heat and Grad-CAM heat at their own resolution, for the browser to enlarge.

Heat is cut into LEVELS colours, which is finer than the eye and a third of the bytes; lossless WebP keeps every pixel.
"""

import base64
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from PIL import Image

from storage import AttributionStore, Target
from storage.figures import HEAT, RED_GREEN, as_rgb, scaled_map, signed_heat

__all__ = ["Explanation", "RowPictures", "draw_explanation", "draw_image", "draw_rows"]

LEVELS = 101
MOST_PIXELS = 64  # of a side; larger images are reduced
BATCH_ROWS = 64


@dataclass(frozen=True)
class Explanation:
    """Data URIs of a signed heat and of a Grad-CAM heat ("" where the map is empty), and the value at which the colours end.

    limit: in units of the score a pixel; peak: the map's maximum, in units of the score.
    """

    attribution: str
    limit: float
    grad_cam: str
    peak: float


@dataclass(frozen=True)
class RowPictures:
    """The pictures of a row; predicted is there for the misclassified ones only."""

    row: int
    why: str
    image: str
    true: Explanation
    predicted: Explanation | None

    @property
    def n_bytes(self) -> int:
        """What they cost in the page."""
        some = [explanation for explanation in (self.true, self.predicted) if explanation]
        return len(self.image) + sum(len(e.attribution) + len(e.grad_cam) + 40 for e in some) + 60


def draw_rows(store: AttributionStore, ranked: Iterable[tuple[int, str]], budget: int) -> list[RowPictures]:
    """The pictures of the first of the ranked rows, (row, why) each, as many as cost no more than budget bytes."""
    drawn: list[RowPictures] = []
    spent = 0
    for batch in _batches(ranked, BATCH_ROWS):
        for pictures in _draw_batch(store, batch):
            spent += pictures.n_bytes
            if spent > budget:
                return drawn
            drawn.append(pictures)
    return drawn


def _batches(ranked: Iterable[tuple[int, str]], size: int) -> Iterator[list[tuple[int, str]]]:
    remaining = iter(ranked)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _draw_batch(store: AttributionStore, batch: list[tuple[int, str]]) -> Iterator[RowPictures]:
    rows = np.array([row for row, _ in batch])
    images = store.image[rows]
    positions = rows - int(store.row_numbers[0])
    wrong = store.labels[positions] != store.predictions[positions]
    true = _explain(store, rows, "true")
    predicted = dict(zip(rows[wrong].tolist(), _explain(store, rows[wrong], "predicted"), strict=True))
    for (row, why), image, explanation in zip(batch, images, true, strict=True):
        yield RowPictures(row, why, draw_image(image), explanation, predicted.get(row))


def _explain(store: AttributionStore, rows: NDArray[np.int64], target: Target) -> Iterator[Explanation]:
    for attribution, grad_cam in zip(store.attributions(rows, target), store.maps(rows, target), strict=True):
        yield draw_explanation(attribution, grad_cam)


def draw_image(image: NDArray[np.uint8]) -> str:
    """An image (y, x, channel) of one or three channels, reduced if it is large."""
    picture = Image.fromarray(np.rint(as_rgb(image) * 255).astype(np.uint8))
    return _data_uri(picture.resize(shown_size(image.shape), Image.Resampling.LANCZOS))


def draw_explanation(attribution: NDArray, grad_cam: NDArray) -> Explanation:
    """An attribution (y, x, channel) and a raw map (cam_y, cam_x) of one image."""
    width, height = shown_size(attribution.shape)
    summed = Image.fromarray(attribution.sum(axis=-1, dtype=np.float32)).resize((width, height), Image.Resampling.BOX)
    heat, limit = signed_heat(np.asarray(summed)[..., None])
    peak = float(grad_cam.max())
    return Explanation(
        attribution=_heat_uri(heat / limit / 2 + 0.5, RED_GREEN),
        limit=limit,
        grad_cam=_heat_uri(scaled_map(grad_cam, height, width), HEAT) if peak > 0 else "",
        peak=peak,
    )


def shown_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height at which an image of the shape (y, x, ...) is kept in the page."""
    shrink = min(1.0, MOST_PIXELS / max(shape[:2]))
    return max(1, round(shape[1] * shrink)), max(1, round(shape[0] * shrink))


def _heat_uri(values: NDArray, colours: Colormap) -> str:
    """Values in 0..1, (y, x), in so many colours."""
    levels = np.rint(np.clip(values, 0, 1) * (LEVELS - 1)) / (LEVELS - 1)
    return _data_uri(Image.fromarray(np.rint(colours(levels)[..., :3] * 255).astype(np.uint8)))


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=True, quality=100, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
