"""The pictures of a store's rows, captioned: what the reader's `figure`, the gallery and `nightlens show` draw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.draw.figures import short_name
from storage.draw.panels import AttributionSheet, GradCamSheet, row_figure
from storage.read.reader import StoreReader, Target
from storage.read.row_means import block_rows
from storage.read.row_views import select_rows
from storage.read.tables import certificate_table

__all__ = ["ExplainedRow", "draw_row", "explained_rows", "row_caption", "row_pictures"]

NAME_LENGTH = 17  # of a class in a caption, which has three and has to fit above a figure


@dataclass(frozen=True)
class ExplainedRow:
    """image: (y, x, channel). attribution: (y, x, channel), in units of the score. grad_cam: raw map (cam_y, cam_x), if any."""

    row: int
    image: NDArray[np.uint8]
    attribution: NDArray[np.float32]
    grad_cam: NDArray[np.float32] | None


def explained_rows(store: StoreReader, rows: Sequence[int], target: Target = "true") -> Iterator[ExplainedRow]:
    """The rows in their order, read a block at a time, so that rows of a chunk share its unpacking.

    Raises IndexError if the store has no such row.
    """
    block = block_rows(store.shape_of("image")[1:], itemsize=4)
    for start in range(0, len(rows), block):
        numbers = list(rows[start : start + block])
        maps = store.maps(numbers, target) if store.has_grad_cam else [None] * len(numbers)
        arrays = store.image[numbers], store.attributions(numbers, target), maps
        yield from (ExplainedRow(*of_row) for of_row in zip(numbers, *arrays, strict=True))


def row_caption(store: StoreReader, row: int, target: Target = "true") -> str:
    """What there is to say of a row in two lines: classes and confidence, and how far to trust its attribution.

    Raises IndexError if the store has no such row.
    """
    names, certificate = (
        store.class_names,
        certificate_table(store, target, select_rows([row], store.row_range)).iloc[0],
    )
    position = row - int(store.row_numbers[0])
    label, prediction = (
        short_name(names[k], NAME_LENGTH) for k in (store.labels[position], store.predictions[position])
    )
    trust = f"gap {certificate['gap']:+.3f}, error {certificate['quadrature_error']:.3f}"
    return (
        f"Row {row}: {label}, predicted {prediction} ({store.confidences[position]:.1%}), "
        f"explained {label if target == 'true' else prediction}\n"
        f"{trust}, {'converged' if certificate['converged'] else 'NOT CONVERGED'}"
    )


def row_pictures(
    store: StoreReader, rows: Sequence[int], dpi: int, target: Target = "true"
) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """The seed's two figures of each row, the first alone without Grad-CAM: the row, the method and the pixels (y, x, 3).

    Raises IndexError if the store has no such row.
    """
    shape = store.shape_of("image")[1:]
    signed, warm = AttributionSheet(shape, _units(store)), GradCamSheet(shape)
    for of_row in explained_rows(store, rows, target):
        caption = row_caption(store, of_row.row, target)
        signed.show(of_row.image, of_row.attribution, caption)
        yield of_row.row, "integrated-gradients", signed.render(dpi)
        if of_row.grad_cam is not None:
            warm.show(of_row.image, of_row.grad_cam, caption.splitlines()[0])
            yield of_row.row, "grad-cam", warm.render(dpi)


def draw_row(store: StoreReader, row: int, target: Target = "true") -> Figure:
    """Both figures of a row in one; without Grad-CAM the first.

    Raises IndexError if the store has no such row.
    """
    (shown,) = explained_rows(store, [row], target)
    caption = row_caption(store, row, target)
    return row_figure(shown.image, shown.attribution, shown.grad_cam, title=caption, units=_units(store))


def _units(store: StoreReader) -> str:
    """What is explained: "probability" or "logit"."""
    return cast(dict[str, Any], store.attributes["configuration"]).get("explanation", {}).get("score", "score")
