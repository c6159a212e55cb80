"""Small pictures of explained rows for other people's programs: the image and the picture of each method, without captions."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.draw.figures import as_rgb, explained_picture
from storage.draw.row_pictures import explained_rows
from storage.read.reader import StoreReader, Target

__all__ = ["as_png", "fitted", "thumbnails"]


def thumbnails(
    store: StoreReader, rows: Sequence[int], side: int, target: Target
) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Of each row in its order the pictures (y, x, 3) by name: `image`, where the store has it, then each method's by its group.

    side: pixels that the longer side of a picture has at most. Raises IndexError if the store has no such row.
    """
    for shown in explained_rows(store, rows, target):
        pictures = {"image": as_rgb(shown.image)} if shown.image.shape[-1] else {}
        for method, picture in shown.pictures.items():
            pictures[method.group] = explained_picture(method, shown.image, picture)
        yield {name: fitted(picture, side) for name, picture in pictures.items()}


def fitted(picture: NDArray[np.floating], side: int) -> NDArray[np.uint8]:
    """The picture (y, x, 3) of 0..1 in 8 bits, enlarged by a whole factor or shrunk: its longer side is at most `side`."""
    pixels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= side:
        factor = side // longer
        return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    size = (max(1, width * side // longer), max(1, height * side // longer))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file of (y, x, 3)."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png", compress_level=1)
    return stream.getvalue()
