"""Drift: what two retrainings show beside the floor of reference networks, one that differs by its seed alone, and one on
training images of which many of one class have a mark. Both explain the same test images, of which some have the mark, too.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nights import run_night
from planted_shortcuts import Mark, planted, read_images
from storage import open_store


def night_of(source: Path, root: Path, epochs: int, rows: int, seed: int, n_references: int) -> dict[str, Any]:
    """The result of a night with the network of that seed; with reference networks, trained in it if they are not there."""
    return run_night(
        {
            "dataset": {"source": str(source)},
            "model": {"epochs": epochs, "seed": seed},
            "drift": {"reference_seeds": n_references},
            "gallery": {"draw": False},
            "audit": {"n_rows": 0},
            "run": {"root": str(root), "rows": f"0:{rows}"},
        }
    ).result


def drift_of(result: dict[str, Any]) -> dict[str, Any]:
    """By class: how many times its floor the reasons changed; what was warned of; the floor."""
    with open_store(result["store"]) as store:
        drift: dict[str, Any] = store.attributes["worth"]["drift"]
        names = store.class_names
    floors, changes = drift["floor"]["shares"], drift["changes"]
    return {
        "ratios": {names[int(k)]: change["share"] / floors[k] for k, change in changes.items() if floors.get(k)},
        "cells": {names[int(k)]: change["cell"] for k, change in changes.items()},
        "left_out": drift["floor"]["left_out"],
        "likeness": drift["likeness"],
        "warned": [w["message"] for w in result["warnings"] if w["kind"] == "reasons-changed"],
        "accuracy": result["accuracy"],
    }


def main(
    dataset: Annotated[Path, typer.Option(help="An .npz in Keras's layout, or a folder of images.")],
    number: Annotated[int, typer.Option("--class", help="The class that is marked.")] = 6,
    share: Annotated[float, typer.Option(help="Of its images that have the mark.")] = 0.6,
    references: Annotated[int, typer.Option(help="Reference networks.")] = 4,
    y: Annotated[int, typer.Option(help="Top of the mark.")] = 20,
    x: Annotated[int, typer.Option(help="Left of the mark.")] = 2,
    size: Annotated[int, typer.Option(help="Of the mark, a cross.")] = 6,
    colour: Annotated[str, typer.Option(help="Of the mark, a number a channel.")] = "200,40,220",
    train: Annotated[int, typer.Option(help="Training images.")] = 30_000,
    rows: Annotated[int, typer.Option(help="Test images.")] = 3_000,
    epochs: int = 2,
    seed: int = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints, of each class, how many times its floor the reasons changed."""
    arrays = read_images(dataset)
    mark = Mark(y, x, size, tuple(int(value) for value in colour.split(",")))
    spoiled, _ = planted(arrays, mark, number, share, train, seed)
    clean, _ = planted(arrays, mark, number, 0.0, train, seed)
    clean["x_test"] = spoiled["x_test"]
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, console = folder / "root", Console(width=150)
        sources = {"clean": _saved(folder, "clean", clean), "spoiled": _saved(folder, "spoiled", spoiled)}
        night_of(sources["clean"], root, epochs, rows, seed=0, n_references=0)
        for k, (what, source, n_references) in enumerate(
            (("another seed", "clean", references), ("the first seed", "clean", references), ("spoiled", "spoiled", 0))
        ):
            # The spoiled recipe has no reference networks of its own, and is judged beside those of the night before.
            found[what] = drift_of(
                night_of(sources[source], root, epochs, rows, seed=(1, 0, 2)[k], n_references=n_references)
            )
            console.print(f"{what}: {found[what]['warned'] or 'no alarm'}")
    table = Table(title=f"Times the floor of {references} networks, {dataset.name}", title_justify="left")
    table.add_column("class")
    for what in found:
        table.add_column(what, justify="right")
    for name in dict.fromkeys(name for each in found.values() for name in each["ratios"]):
        values = [each["ratios"].get(name) for each in found.values()]
        table.add_row(name, *("too few" if value is None else f"{value:.2f}" for value in values))
    console.print(table)
    if (left_out := found["another seed"]["left_out"]) is not None:
        console.print(
            f"left out in turn, a reference network showed {left_out:.2f} times the floor of the others at most"
        )
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


def _saved(folder: Path, name: str, arrays: dict[str, NDArray]) -> Path:
    path = folder / name / "images.npz"
    path.parent.mkdir()
    np.savez(path, **arrays)
    return path


if __name__ == "__main__":
    typer.run(main)
