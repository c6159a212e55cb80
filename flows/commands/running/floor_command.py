"""`nightlens floor`: how much the reasons of networks differ that differ in their seed alone, ahead of the nights."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.running.foreground import run_in_foreground
from flows.parameters import read_parameters
from flows.terminal.options import DEFAULT_ROOT, DataDirOption

__all__ = ["floor"]

FLOOR = "flows.floor:floor"
PARAMETERS = ("dataset", "model", "explanation", "integrated_gradients", "grad_cam", "drift", "run")
DEFAULT_SEEDS = 4


def floor(
    seeds: Annotated[
        int | None,
        typer.Option(
            min=3, max=20, metavar="N", help=f"Reference networks. [default: drift.reference_seeds, or {DEFAULT_SEEDS}]"
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="digits, a TFDS name, an .npz, or a folder of images. [default: digits]"
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs of training.", show_default=False)] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help=f"Folder of everything written. [default: {DEFAULT_ROOT}]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="The nights' parameters; options override it.", show_default=False),
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Trains reference networks, and measures how much their reasons differ: the floor under the drift of nights.

    They differ from the nights' model in their seed alone, so how the reasons for each class differ among them is chance. A
    night with a new model whose reasons changed more than `alert.reasons_changed` times as much warns of it. It takes as long as
    N trainings, once for a dataset and recipe; networks that are there are not trained again.

    Example: `nightlens floor --seeds 4 --config night.yaml`
    """
    options = {"--dataset": dataset, "--data-dir": data_dir, "--epochs": epochs, "--root": root, "--seeds": seeds}
    given = {name: value for name, value in options.items() if value is not None}
    parameters = read_parameters(config, given)
    if not parameters["drift"].reference_seeds:
        parameters["drift"] = parameters["drift"].model_copy(update={"reference_seeds": DEFAULT_SEEDS})
    run_in_foreground(FLOOR, {name: parameters[name] for name in PARAMETERS}, say=_print_floor)


def _print_floor(found: Any, where: str) -> None:
    accuracies = ", ".join(f"{accuracy:.3f}" for accuracy in found.accuracies)
    print(f"networks  seeds {', '.join(map(str, found.seeds))}, accuracy {accuracies} on {found.n_rows:,} rows")
    for number, share in sorted(found.shares.items()):
        print(f"class {number:3}  the share of a cell moved by {share:.3f} at most between two of them")
    if not found.shares:
        print("floor     none: no class was called the same by two networks in enough rows")
    if found.left_out is not None:
        print(f"left out  each in turn, a network showed {found.left_out:.2f} times the floor of the others at most")
    print(f"record    {where}", flush=True)
