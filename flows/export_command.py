"""`nightlens export`: a store, or some of its rows, in the formats of other programs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.options import StoreArgument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from storage import AttributionStore

__all__ = ["export"]

MOST_PICTURES = 200


def export(
    store: StoreArgument,
    to: Annotated[
        Literal["virelay", "zarr", "parquet", "png"], typer.Option(metavar="virelay|zarr|parquet|png", help="Format.")
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="[default: exports/NIGHT-FORMAT in the root]", show_default=False),
    ] = None,
    rows: Annotated[str | None, typer.Option(metavar="A:B", help="Rows by number, B excluded. [default: all]")] = None,
    label: Annotated[str | None, typer.Option(metavar="CLASS", help="True class, by name or number.")] = None,
    prediction: Annotated[str | None, typer.Option(metavar="CLASS", help="Predicted class.")] = None,
    correct: Annotated[
        bool | None,
        typer.Option("--correct/--wrong", help="Rows that are predicted right, or wrong.", show_default=False),
    ] = None,
    converged: Annotated[
        bool | None, typer.Option("--converged/--not-converged", help="By the certificate.", show_default=False)
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="P", help="Least probability of the predicted class.")
    ] = None,
    max_gap: Annotated[
        float | None, typer.Option(min=0, metavar="G", help="Largest |completeness gap|, in units of the score.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"The first N rows. [default: all; png: {MOST_PICTURES}]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that is there.")] = False,
) -> None:
    """Writes a store, or the rows that are asked for, for other programs.

    - **virelay**: projects that ViRelAy opens, of both methods and both targets

    - **zarr**: the store as a Zarr group

    - **parquet**: the table of a row per image

    - **png**: a picture per row

    Examples:

    - `nightlens export nightlens-data --to virelay`

    - `nightlens export nightlens-data --to png wrong/ --wrong --min-confidence 0.9 --limit 50`
    """
    from storage import open_store
    from storage.export import destination, export_rows

    with open_store(store) as opened:
        chosen = opened.rows(
            label=_class(opened, label),
            prediction=_class(opened, prediction),
            correct=correct,
            converged=converged,
            min_confidence=min_confidence,
            max_gap=max_gap,
        )
        chosen = _within(chosen, rows)
        target = destination(opened.path, str(opened.attributes["run_id"]), to, folder)
        most = limit or (MOST_PICTURES if to == "png" else None)
        with _progress(to) as told:
            written = export_rows(opened, chosen[:most], to, target, overwrite=overwrite, progress=told)
    cut = f" of {len(chosen)}; --limit {len(chosen)} writes them all" if most and len(chosen) > most else ""
    none = "; nothing matches the filter" if not len(chosen) else ""
    print(f"{written}: {len(chosen[:most])} rows{cut}{none}")


def _class(store: "AttributionStore", name: str | None) -> str | int | None:
    """A class by its name, or by its number where no class is called so."""
    return int(name) if name is not None and name not in store.class_names and name.isdecimal() else name


def _within(chosen: "NDArray[np.int64]", rows: str | None) -> "NDArray[np.int64]":
    if rows is None:
        return chosen
    first, colon, last = rows.partition(":")
    if not colon or not all(bound.isdecimal() or not bound for bound in (first, last)):
        raise ValueError(f"--rows must be A:B with whole numbers from 0, such as 0:500 or 500: or :500, got {rows!r}")
    chosen = chosen[chosen >= int(first or 0)]
    return chosen[chosen < int(last)] if last else chosen


@contextmanager
def _progress(to: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(to, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
