"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DEFAULT_ROOT", "DataDirOption", "RootOption", "StoreArgument"]

DEFAULT_ROOT = Path("nightlens-data")

RootOption = Annotated[Path, typer.Option("--root", metavar="DIR", help="Folder of the nights, models and datasets.")]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of prepared TFDS datasets.", show_default=False)
]
StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="An attributions.h5, a night's folder, or a root.")
]
