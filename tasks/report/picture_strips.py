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
from storage.draw.figures import HEAT, RED_GREEN, as_rgb, scaled_map, signed_heat
from storage.read.row_means import block_rows

__all__ = ["Explanation", "RowPictures", "draw_explanation", "draw_image", "draw_rows"]

LEVELS = 101
MOST_PIXELS = 64  # of a side; larger images are reduced
EFFORT = 25  # of WebP's 100: the rest takes a third more time for half a per cent of the bytes


def _palette(colours: Colormap) -> NDArray[np.uint8]:
    return np.rint(colours(np.arange(LEVELS) / (LEVELS - 1))[:, :3] * 255).astype(np.uint8)


SIGNED, WARM = _palette(RED_GREEN), _palette(HEAT)


@dataclass(frozen=True)
class Explanation:
    """Data URIs of a signed heat and of a Grad-CAM heat ("" where the map is empty), and the value at which the colours end.

    limit: in units of the score a pixel; peak: the map's maximum, in units of the score. grad_cam, peak: None where the
    night has no Grad-CAM.
    """

    attribution: str
    limit: float
    grad_cam: str | None
    peak: float | None


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
        return len(self.image) + sum(len(e.attribution) + len(e.grad_cam or "") + 40 for e in some) + 60


def draw_rows(store: AttributionStore, ranked: Iterable[tuple[int, str]], budget: int) -> list[RowPictures]:
    """The pictures of the first of the ranked rows, (row, why) each, as many as cost no more than budget bytes."""
    drawn: list[RowPictures] = []
    spent = 0
    # Rows in order of rank lie anywhere in the store: the more are read at once, the fewer chunks are unpacked again.
    for batch in _batches(ranked, block_rows(store.shape_of("image")[1:], itemsize=4)):
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
    true, predicted = _explain(store, rows, "true"), _explain(store, rows[wrong], "predicted")
    for (row, why), image, is_wrong in zip(batch, images, wrong, strict=True):
        yield RowPictures(row, why, draw_image(image), next(true), next(predicted) if is_wrong else None)


def _explain(store: AttributionStore, rows: NDArray[np.int64], target: Target) -> Iterator[Explanation]:
    maps = store.maps(rows, target) if store.has_grad_cam else [None] * len(rows)
    for attribution, grad_cam in zip(store.attributions(rows, target), maps, strict=True):
        yield draw_explanation(attribution, grad_cam)


def draw_image(image: NDArray[np.uint8]) -> str:
    """An image (y, x, channel) of one or three channels, reduced if it is large."""
    picture = Image.fromarray(np.rint(as_rgb(image) * 255).astype(np.uint8))
    return _data_uri(picture.resize(shown_size(image.shape), Image.Resampling.LANCZOS))


def draw_explanation(attribution: NDArray, grad_cam: NDArray | None) -> Explanation:
    """An attribution (y, x, channel) and a raw map (cam_y, cam_x) of one image; None without Grad-CAM."""
    width, height = shown_size(attribution.shape)
    summed = Image.fromarray(attribution.sum(axis=-1, dtype=np.float32)).resize((width, height), Image.Resampling.BOX)
    heat, limit = signed_heat(np.asarray(summed)[..., None])
    signed = _heat_uri(heat / limit / 2 + 0.5, SIGNED)
    if grad_cam is None:
        return Explanation(signed, limit, None, None)
    peak = float(grad_cam.max())
    return Explanation(signed, limit, _heat_uri(scaled_map(grad_cam, height, width), WARM) if peak > 0 else "", peak)


def shown_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height at which an image of the shape (y, x, ...) is kept in the page."""
    shrink = min(1.0, MOST_PIXELS / max(shape[:2]))
    return max(1, round(shape[1] * shrink)), max(1, round(shape[0] * shrink))


def _heat_uri(values: NDArray, palette: NDArray[np.uint8]) -> str:
    """Values in 0..1, (y, x), in the colours of a palette (level, 3)."""
    return _data_uri(Image.fromarray(palette[np.rint(np.clip(values, 0, 1) * (LEVELS - 1)).astype(np.uint8)]))


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=True, quality=EFFORT, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
