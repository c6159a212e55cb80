"""How well parts run side by side: `python tests/benchmarks/cluster.py --help`.

The same rows by one and by two threads, and by one and by two Dask workers, with the parts removed in between. The rate is that
of the stage explain, so a cluster's start counts; efficiency = rate of n / (n times the rate of one). All workers share this
machine's processors, and one of them uses them all where the arithmetic allows, so efficiency here says what a second one adds.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from night import remove_parts, trained_model
from nights import run_night

RUNNERS = ("threads", "dask")


def main(
    dataset: Annotated[str, typer.Option(help="As in `nightlens run`.")] = "digits",
    model: Annotated[
        Path | None, typer.Option(help="A .keras file. [default: the notebook's network, trained by a small night]")
    ] = None,
    root: Annotated[Path, typer.Option(help="Where dataset, model and the nights are kept.")] = Path("nightlens-data"),
    epochs: Annotated[int, typer.Option(help="Of the training, where there is no --model.")] = 2,
    rows: int = 2000,
    workers: Annotated[str, typer.Option(help="How many of each kind, one night each; 1 comes first.")] = "1,2",
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints rows a second and efficiency by runner and number of workers."""
    counts = [int(count) for count in workers.split(",")]
    if counts[0] != 1:
        raise typer.BadParameter(f"efficiency compares with one worker; expected --workers 1,2,..., got {workers}")
    console, root = Console(width=120), root.absolute()
    path = (model or trained_model(dataset, root, epochs)).absolute()
    found = []
    for runner in RUNNERS:
        alone = 0.0
        for count in counts:
            figures = explain_rows(dataset, path, root, rows, runner, count)
            alone = alone or figures["rows_per_s"]
            found.append(figures | {"efficiency": figures["rows_per_s"] / (count * alone)})
            console.print(f"{runner}, {count}: {figures['rows_per_s']:.1f} rows/s", style="dim")
    table = Table(title=f"{rows:,} rows, {path.name}, {os.cpu_count()} processors", title_justify="left")
    for column in ("runner", "workers", "explain, s", "rows/s", "efficiency", "peak memory of all, GB"):
        table.add_column(column, justify="left" if column == "runner" else "right")
    for row in found:
        cells = (f"{row['explain_s']:,.1f}", f"{row['rows_per_s']:.1f}", f"{row['efficiency']:.0%}")
        table.add_row(row["runner"], f"{row['workers']}", *cells, f"{row['peak_all_bytes'] / 1e9:.2f}")
    console.print(table)
    if json_file is not None:
        about = {"dataset": dataset, "model": path.name, "rows": rows, "processors": os.cpu_count()}
        json_file.write_text(json.dumps(about | {"runs": found}, indent=1) + "\n")


def explain_rows(dataset: str, model: Path, root: Path, rows: int, runner: str, n_workers: int) -> dict[str, Any]:
    """A night that draws and audits nothing, on rows that no earlier one has left parts of."""
    remove_parts(root)
    night = run_night(
        {
            "dataset": {"source": dataset},
            "model": {"source": str(model)},
            "gallery": {"draw": False},
            "audit": {"n_rows": 0},
            "run": {"root": str(root), "rows": f"0:{rows}", "runner": runner, "n_workers": n_workers},
        }
    )
    seconds = night.stages["explain"]
    rate = {"explain_s": seconds, "rows_per_s": rows / seconds}
    return {"runner": runner, "workers": n_workers, **rate, "peak_all_bytes": night.peak_all}


if __name__ == "__main__":
    typer.run(main)
