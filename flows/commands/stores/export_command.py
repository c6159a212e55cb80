"""`nightlens export`: rows of a store in the formats of other programs. Needs neither TensorFlow nor Prefect."""

import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.terminal.options import StoreArgument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from storage import AttributionStore

__all__ = ["export", "next_step"]

# A figure takes up to a second; nobody waits for ten thousand of them, or looks through them.
N_FIGURES = 100
IN_A_SHELL = ("virelay", "atlas", "tensorboard")
NEXT_STEP = {
    "virelay": "open it: pip install virelay; virelay {path}/*.yaml",
    "zarr": 'open it: xarray.open_zarr("{path}/attributions.zarr")',
    "parquet": 'open it: pandas.read_parquet("{path}/rows.parquet")',
    "png": "look at them: {path}",
    "atlas": "open it: pip install embedding-atlas; embedding-atlas {path}/atlas.parquet --state {path}/atlas.json "
    "--x projection_x --y projection_y --neighbors neighbors --image image --pagerank n_neighbor_of",
    "tensorboard": "open it: tensorboard --logdir {path}",
}


def export(
    store: StoreArgument,
    to: Annotated[
        Literal["virelay", "zarr", "parquet", "png", "atlas", "tensorboard"],
        typer.Option(metavar="virelay|zarr|parquet|png|atlas|tensorboard", help="Format."),
    ],
    destination: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="[default: exports/NIGHT-FORMAT in the root]", show_default=False),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Rows of this true class, by name or number.", show_default=False),
    ] = None,
    prediction: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Rows the model gives this class.", show_default=False)
    ] = None,
    correct: Annotated[
        bool | None, typer.Option("--correct/--wrong", help="Rows the model gets right, or wrong.", show_default=False)
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Least probability of the prediction.", show_default=False),
    ] = None,
    converged: Annotated[
        bool | None,
        typer.Option("--converged/--not-converged", help="Rows whose certificate meets both tolerances, or not."),
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(min=0, metavar="GAP", help="Largest completeness gap, either sign.", show_default=False),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="A:B", help="Row numbers, B excluded.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help=f"The first N of these rows. [default: all; png: {N_FIGURES}]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Writes rows of a store for another program: ViRelAy, Zarr, Parquet, Embedding Atlas, TensorBoard, or pictures.

    Examples:

    - `nightlens export nightlens-data --to virelay`

    - `nightlens export nightlens-data --to parquet table/`

    - `nightlens export nightlens-data --to tensorboard logs/`

    - `nightlens export nightlens-data --to png mistakes/ --wrong --min-confidence 0.9`
    """
    from storage import open_store
    from storage.export import default_destination, export_rows, prepared_destination
    from storage.nights.training_record import read_history

    filters = {
        "label": label,
        "prediction": prediction,
        "correct": correct,
        "min_confidence": min_confidence,
        "converged": converged,
        "max_gap": max_gap,
    }
    chosen: dict[str, object] = {name: value for name, value in filters.items() if value is not None}
    began = time.perf_counter()
    with open_store(store) as opened:
        path = destination or default_destination(opened.path, str(opened.attributes["run_id"]), to)
        path = prepared_destination(path, opened.path, overwrite=overwrite)
        has_images = opened.has_images
        if not opened.has_grad_cam:
            _say("this night has no Grad-CAM: Integrated Gradients alone are exported")
        history = read_history(opened) if to == "tensorboard" else {}
        if to == "tensorboard" and not history:
            _say(f"no record of the training of {opened.attributes['model_name']} is there: no curves")
        matching = _matching_rows(opened, chosen, rows)
        most = limit or (N_FIGURES if to == "png" else None)
        numbers = matching[:most]
        if len(numbers) < len(matching):
            _say(f"the first {len(numbers):,} of {len(matching):,} matching rows; --limit {len(matching)} takes all")
        noted = chosen | ({"rows": rows} if rows else {}) | ({"limit": most} if most else {})
        with _progress(len(numbers)) as (progress, task):
            try:
                export_rows(
                    opened,
                    numbers,
                    to,
                    path,
                    chosen=noted,
                    advance=lambda n_rows: progress.advance(task, n_rows),
                    history=history,
                )
            except ModuleNotFoundError as error:
                extra, package = "tensorboard" if to == "tensorboard" else "export", str(error.name).partition(".")[0]
                raise ValueError(
                    f"--to {to} needs {package}, which is not installed: pip install 'nightlens[{extra}]'"
                ) from error
    if not len(numbers):
        print(f"{path}: no row matches, so this {to} export is empty")
        return
    n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {len(numbers):,} rows, {n_bytes / 1e6:,.1f} MB, {time.perf_counter() - began:.1f} s")
    print(next_step(to, path, has_images=has_images))


def next_step(to: str, path: Path, *, has_images: bool = True) -> str:
    """The line that says how to open an export, as a shell takes it or as Python does."""
    text = NEXT_STEP[to] if has_images else NEXT_STEP[to].replace(" --image image", "")
    return text.format(path=shlex.quote(str(path)) if to in IN_A_SHELL else path)


def _matching_rows(store: "AttributionStore", filters: dict[str, Any], span: str | None) -> "NDArray[np.int64]":
    """The row numbers that meet all filters and lie in the span A:B, ascending."""
    classes: dict[str, Any] = {n: _class(store, filters[n]) for n in ("label", "prediction") if n in filters}
    numbers = store.rows(**(filters | classes))
    if span is None:
        return numbers
    if not (match := re.fullmatch(r"(\d*):(\d*)", span)):
        raise ValueError(f"--rows: expected A:B with whole numbers from 0, such as 0:500 or 500: or :500, got {span!r}")
    first, last = (int(bound) if bound else None for bound in match.groups())
    if first is not None:
        numbers = numbers[numbers >= first]
    return numbers if last is None else numbers[numbers < last]


def _class(store: "AttributionStore", text: str) -> str | int:
    """A class as it was typed: its name, or its number where no class is called so."""
    return int(text) if text not in store.class_names and text.isdecimal() else text


def _progress(n_rows: int) -> Any:
    """A bar on stderr where that is a terminal."""
    import contextlib

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextlib.contextmanager
    def shown() -> Any:
        console = Console(stderr=True)
        columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            yield progress, progress.add_task("rows", total=n_rows)

    return shown()


def _say(line: str) -> None:
    typer.secho(line, err=True)
