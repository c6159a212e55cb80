"""The pictures of a store's rows, captioned: what the reader's `figure`, the gallery and `nightlens show` draw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.draw.figures import short_name
from storage.draw.panels import Sheet, row_figure
from storage.file.methods import StoredMethod
from storage.file.schema import CLASS_COLUMNS
from storage.read.reader import StoreReader, Target
from storage.read.row_means import block_rows

__all__ = ["ExplainedRow", "draw_row", "explained_rows", "row_caption", "row_pictures", "score_units"]

NAME_LENGTH = 17  # of a class in a caption, which has three and has to fit above a figure


@dataclass(frozen=True)
class ExplainedRow:
    """image: (y, x, channel), without channels in a store without images.

    pictures: by method, attributions (y, x, channel) and raw maps (cam_y, cam_x).
    """

    row: int
    image: NDArray[np.uint8]
    pictures: Mapping[StoredMethod, NDArray[np.float32]]


def explained_rows(store: StoreReader, rows: Sequence[int], target: Target = "true") -> Iterator[ExplainedRow]:
    """The rows in their order, read a block at a time, so that rows of a chunk share its unpacking.

    Raises IndexError if the store has no such row.
    """
    block = block_rows(store.image_shape, itemsize=4)
    for start in range(0, len(rows), block):
        numbers = list(rows[start : start + block])
        images = store.images(numbers)
        explained = {method: store.view(method, target)[numbers] for method in store.methods}
        for k, row in enumerate(numbers):
            yield ExplainedRow(row, images[k], {method: pictures[k] for method, pictures in explained.items()})


def row_caption(store: StoreReader, row: int, target: Target = "true") -> str:
    """What there is to say of a row in two lines: classes and confidence, and how far to trust its attribution.

    Raises IndexError if the store has no such row.
    """
    about = {column.name: store.values(column.name, row)[0] for column in CLASS_COLUMNS}
    label, prediction = (short_name(about[name], NAME_LENGTH) for name in ("label_name", "prediction_name"))
    converged = bool(store.values("converged", row, target)[0])
    trust = [
        f"gap {store.values('gap', row, target)[0]:+.3f}",
        f"error {store.values('quadrature_error', row, target)[0]:.3f}",
    ]
    return (
        f"Row {row}: {label}, predicted {prediction} ({about['confidence']:.1%}), "
        f"explained {label if target == 'true' else prediction}\n"
        f"{', '.join(trust)}, {'converged' if converged else 'NOT CONVERGED'}"
    )


def row_pictures(
    store: StoreReader, rows: Sequence[int], dpi: int, target: Target = "true"
) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """A figure of each row by each method: the row, what the method is called in a file's name, and the pixels (y, x, 3).

    Raises IndexError if the store has no such row.
    """
    shape = store.image_shape
    sheets = {method: Sheet(method, shape, score_units(store)) for method in store.methods}
    for of_row in explained_rows(store, rows, target):
        caption = row_caption(store, of_row.row, target)
        for method, sheet in sheets.items():
            title = caption.splitlines()[0] if method.is_map else caption
            sheet.show(of_row.image, of_row.pictures[method], title)
            yield of_row.row, method.slug, sheet.render(dpi)


def draw_row(store: StoreReader, row: int, target: Target = "true") -> Figure:
    """The figures of a row by all methods in one.

    Raises IndexError if the store has no such row.
    """
    (shown,) = explained_rows(store, [row], target)
    caption = row_caption(store, row, target)
    return row_figure(shown.image, list(shown.pictures.items()), title=caption, units=score_units(store))


def score_units(store: StoreReader) -> str:
    """What is explained: "probability" or "logit"."""
    return cast(dict[str, Any], store.attributes["configuration"]).get("explanation", {}).get("score", "score")
