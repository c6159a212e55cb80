"""What whole nights cost, by stage and by size: `python tests/benchmarks/night.py --help`.

Each night runs as a user would run it, in a process of its own, explains the first N rows with a model that is given, and finds
no part of another. Sizes beyond the test split explain the training split instead. "Everything but IG" is of explain, seal and
publish together: Integrated Gradients' share of the parts is measured by part.py in as many threads as the night has.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from nights import REPOSITORY, NightFigures, run_night
from storage import open_store

MOST_MINUTES, MOST_BESIDES, MOST_GB = 6.0, 0.15, 2.5
FULL_ROWS = 10_000
JUDGED = ("explain", "seal", "publish")
TRAINING_ROWS = 32


def training_as_test(path: Path, folder: Path) -> Path:
    """An .npz whose test split is the training split of another, and the other way round."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("x", "y"):
        arrays[f"{name}_train"], arrays[f"{name}_test"] = arrays[f"{name}_test"], arrays[f"{name}_train"]
    swapped = folder / f"{path.stem}-training.npz"
    np.savez(swapped, **arrays)
    return swapped


def trained_model(dataset: str, root: Path, epochs: int) -> Path:
    """The notebook's network, trained by a small night or found where an earlier one left it."""
    parameters = {
        "dataset": {"source": dataset},
        "model": {"epochs": epochs},
        "gallery": {"draw": False},
        "audit": {"n_rows": 0},
        "run": {"root": str(root), "rows": f"0:{TRAINING_ROWS}"},
    }
    with open_store(Path(run_night(parameters).result["store"])) as store:
        configuration: Any = store.attributes["configuration"]
        return Path(configuration["resolved"]["model_path"])


def remove_parts(root: Path) -> None:
    """So that no night finds what another one computed."""
    shutil.rmtree(root / "parts", ignore_errors=True)


def part_shares(model: Path, dataset: str, root: Path, threads: int, n_rows: int) -> dict[str, float]:
    """Shares of the steps of a part, by part.py in a process of its own.

    Raises RuntimeError with the end of what it said if it fails.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [
            sys.executable,
            str(Path(__file__).with_name("part.py")),
            "--model",
            str(model),
            "--dataset",
            dataset,
        ]
        command += ["--root", str(root), "--threads", str(threads), "--night-rows", str(n_rows), "--json", file.name]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError("part.py failed and ends with\n" + "\n".join(done.stderr.splitlines()[-8:]))
        shares: dict[str, float] = json.load(file)["shares"]
    return shares


def figures_of(night: NightFigures, ig_share: float, threads: int) -> dict[str, Any]:
    """The figures of a night that are printed and written."""
    judged = sum(night.stages[stage] for stage in JUDGED)
    integrating = ig_share * night.part_seconds / threads
    return {
        "rows": night.n_rows,
        "wall_s": night.wall,
        "start_s": night.start,
        "stages_s": night.stages,
        "explain_seal_publish_s": judged,
        "besides_ig_share": 1 - integrating / judged,
        "ms_per_image": 1e3 * judged / night.n_rows,
        "images_per_s": night.n_rows / night.stages["explain"],
        "peak_flow_bytes": night.peak_flow,
        "peak_all_bytes": night.peak_all,
        "store_bytes": night.result["store_bytes"],
        "gradients_per_image": night.result["gradients_per_image"],
        "converged_share": night.result["converged_share"],
        "worst_gap": night.result["worst_gap"],
    }


def main(
    dataset: Annotated[
        str, typer.Option(help="As in `nightlens run`; an .npz for sizes beyond its test split.")
    ] = "digits",
    model: Annotated[
        Path | None, typer.Option(help="A .keras file. [default: the notebook's network, trained by a small night]")
    ] = None,
    root: Annotated[Path, typer.Option(help="Where dataset, model and the nights are kept.")] = Path("nightlens-data"),
    epochs: Annotated[int, typer.Option(help="Of the training, where there is no --model.")] = 2,
    rows: Annotated[int, typer.Option(help="Rows of the one night, without --sizes.")] = FULL_ROWS,
    sizes: Annotated[str | None, typer.Option(help="Rows of several nights, such as 500,2000,10000,60000.")] = None,
    threads: Annotated[int, typer.Option(help="Parts side by side (run.n_workers).")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints seconds by stage, memory and size of each night, and the targets of a whole test split."""
    console, root = Console(width=150), root.absolute()
    path = (model or trained_model(dataset, root, epochs)).absolute()
    numbers = [int(size) for size in sizes.split(",")] if sizes else [rows]
    shares = part_shares(path, dataset, root, threads, FULL_ROWS if FULL_ROWS in numbers else max(numbers))
    console.print("a part's time: " + ", ".join(f"{step} {share:.1%}" for step, share in shares.items()))
    found = []
    for n in numbers:
        with tempfile.TemporaryDirectory() as name:
            night = run_size(dataset, n, path, root, threads, Path(name))
        found.append(figures_of(night, shares["integrated_gradients"], threads))
        console.print(f"{n:,} rows: {night.wall:,.0f} s", style="dim")
    console.print(night_table(found, path.name))
    console.print(target_table(found))
    if json_file is not None:
        about = {"dataset": dataset, "model": path.name, "threads": threads, "processors": os.cpu_count()}
        json_file.write_text(json.dumps(about | {"part_shares": shares, "nights": found}, indent=1) + "\n")


def run_size(dataset: str, n_rows: int, model: Path, root: Path, threads: int, scratch: Path) -> NightFigures:
    """A night on the first n rows of the test split, or of the training split where the other has too few."""
    if dataset.endswith(".npz"):
        with np.load(dataset) as file:
            n_test = len(file["y_test"])
        if n_rows > n_test:
            dataset, root = str(training_as_test(Path(dataset), scratch)), scratch / "root"
    remove_parts(root)
    return run_night(
        {
            "dataset": {"source": dataset},
            "model": {"source": str(model)},
            "run": {"root": str(root), "rows": f"0:{n_rows}", "n_workers": threads},
        }
    )


def night_table(found: list[dict[str, Any]], model: str) -> Table:
    """A column a night."""
    table = Table(title=f"Nights, {model}", title_justify="left")
    table.add_column("what")
    for night in found:
        table.add_column(f"{night['rows']:,} rows", justify="right")

    def add(what: str, cell: Any) -> None:
        table.add_row(what, *(cell(night) for night in found))

    add("whole command, s", lambda night: f"{night['wall_s']:,.1f}")
    add("  start and end", lambda night: f"{night['start_s']:,.1f}")
    for stage in found[0]["stages_s"]:
        add(f"  {stage}", lambda night, stage=stage: f"{night['stages_s'].get(stage, 0):,.1f}")
    add("explain + seal + publish, s", lambda night: f"{night['explain_seal_publish_s']:,.1f}")
    add("of it, everything but IG", lambda night: f"{night['besides_ig_share']:.1%}")
    add("of it, ms/image", lambda night: f"{night['ms_per_image']:.2f}")
    add("explained, images/s", lambda night: f"{night['images_per_s']:.1f}")
    add("gradients/image", lambda night: f"{night['gradients_per_image']:.1f}")
    add("converged", lambda night: f"{night['converged_share']:.2%}")
    add("worst |gap|", lambda night: f"{night['worst_gap']:.3f}")
    add("peak memory of the flow, GB", lambda night: f"{night['peak_flow_bytes'] / 1e9:.2f}")
    add("  with all it started, GB", lambda night: f"{night['peak_all_bytes'] / 1e9:.2f}")
    add("store, MB", lambda night: f"{night['store_bytes'] / 1e6:.1f}")
    return table


def target_table(found: list[dict[str, Any]]) -> Table:
    """What the largest night is to keep, and what is to be the same at every size."""
    night, smallest = max(found, key=lambda one: one["rows"]), min(found, key=lambda one: one["rows"])
    table = Table(title=f"Targets, for {FULL_ROWS:,} rows; this is {night['rows']:,}", title_justify="left")
    for column in ("what", "measured", "target", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    full = next((one for one in found if one["rows"] == FULL_ROWS), night)

    def add(what: str, value: float, bound: float, form: str) -> None:
        table.add_row(
            what, format(value, form), f"at most {format(bound, form)}", "met" if value <= bound else "not met"
        )

    add("explain + seal + publish, minutes", full["explain_seal_publish_s"] / 60, MOST_MINUTES, ".2f")
    add("of it, everything but IG", full["besides_ig_share"], MOST_BESIDES, ".1%")
    add("peak memory of the flow, GB", night["peak_flow_bytes"] / 1e9, MOST_GB, ".2f")
    if len(found) > 1:
        name = f"{night['rows']:,} over {smallest['rows']:,} rows"
        memory, cost = (night[key] / smallest[key] for key in ("peak_flow_bytes", "ms_per_image"))
        table.add_row(f"peak memory, {name}", f"{memory:.2f}x", "flat", "")
        table.add_row(f"ms/image, {name}", f"{cost:.2f}x", "flat", "")
    return table


if __name__ == "__main__":
    typer.run(main)
