"""Commands on one store: they need neither TensorFlow nor Prefect, but where they say so."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.options import StoreArgument

__all__ = ["show"]

DPI = 100


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
    from storage.pictures import row_caption

    with open_store(store) as opened:
        try:
            figure, caption = opened.figure(row, target), row_caption(opened, row, target)
        except IndexError as error:
            raise ValueError(f"--row: {error}") from error
    path = out or Path(f"row-{row}.png")
    figure.savefig(path, format="png", dpi=DPI)
    print(f"{path}: {caption}")
