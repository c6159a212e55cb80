"""Commands on one store: they need neither TensorFlow nor Prefect, but where they say so."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.options import StoreArgument

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["show"]


def show(
    store: StoreArgument,
    row: Annotated[int, typer.Option(metavar="N", help="Row of the test split.")],
    target: Annotated[
        Literal["true", "predicted"], typer.Option(metavar="true|predicted", help="The class that is explained.")
    ] = "true",
    out: Annotated[Path | None, typer.Option(metavar="PNG", help="[default: row-N.png]", show_default=False)] = None,
) -> None:
    """Draws one row: its image, Integrated Gradients and Grad-CAM. Needs neither TensorFlow nor Prefect.

    Example: `nightlens show nightlens-data/latest --row 91 --target predicted --out row.png`
    """
    from storage import open_store
    from tasks.pictures import row_caption, row_figures

    with open_store(store) as opened:
        try:
            figures, caption = row_figures(opened, row, target), row_caption(opened, row, target)
        except IndexError as error:
            raise ValueError(f"--row: {error}") from error
    path = out or Path(f"row-{row}.png")
    _stacked(figures.values()).save(path, format="PNG")
    print(f"{path}: {caption}")


def _stacked(figures: "Iterable[Figure]") -> "Image":
    """Figures one above the other."""
    from PIL import Image

    from tasks.numerics.figures import render

    pictures = [Image.fromarray(render(figure)) for figure in figures]
    stacked = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        stacked.paste(picture, (0, top))
        top += picture.height
    return stacked
