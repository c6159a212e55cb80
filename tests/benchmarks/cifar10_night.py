"""CIFAR-10 as the deployment `nightly/cifar10` explains it: three nights by their cron, through `nightlens up`.

The first trains the notebook's network, the second finds model and parts and computes neither again, the third trains with
another seed and is compared with the one before. Nights that the root has are not run again, so what was cut short goes on.
The pictures are of the first night: its spotlight, which are the notebook's row numbers, and a frog.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from scheduled import EVERY_DAY, ScheduledNight, read_nights, service, write_deployments
from storage import AttributionStore, open_store
from storage.draw.figures import render, summary_figure
from tasks.worth.assessment import recorded_assessment

NIGHTS = (("a training", 0), ("the same again", 0), ("another seed", 1))
DPI = 100
# Side by side in the summary, without HiResCAM, so that it is not too high for a README.
METHODS = ("Integrated Gradients", "Grad-CAM")


def main(
    images: Annotated[Path, typer.Option(help="CIFAR-10 as a folder of images: SPLIT/CLASS/*.jpg.")],
    root: Annotated[Path, typer.Option(help="Where the nights are kept.")],
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 4,
    rows: Annotated[str | None, typer.Option(help="Rows to explain, as 0:500. [default: all]")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder to draw summary.png and frog.png into.")] = None,
) -> None:
    """Prints what the three nights took and found, a column a night."""
    console, root = Console(width=150), root.absolute()
    run_nights(images.absolute(), root, epochs, rows, console)
    nights = read_nights(root)
    console.print(table_of(nights))
    if pictures is not None:
        with open_store(Path(nights[0].result["store"])) as store:
            for path in draw_pictures(store, pictures):
                console.print(f"drew {path}")


def run_nights(images: Path, root: Path, epochs: int, rows: str | None, console: Console) -> None:
    """Those of NIGHTS that the root does not have yet, each at a minute of its own."""
    missing = NIGHTS[len(read_nights(root)) :]
    if not missing:
        return

    def parameters(seed: int) -> dict[str, dict[str, Any]]:
        asked: dict[str, dict[str, Any]] = {
            "dataset": {"source": str(images)},
            "model": {"epochs": epochs, "seed": seed},
        }
        return asked | ({"run": {"rows": rows}} if rows else {})

    root.mkdir(parents=True, exist_ok=True)
    deployments = write_deployments(root / "nights.yaml", parameters(missing[0][1]), EVERY_DAY)
    with service(root, deployments) as running:
        for n, (name, seed) in enumerate(missing, start=1):
            at = running.plan_night(parameters(seed))
            console.print(f"{name}: seed {seed}, at {at:%H:%M} UTC", style="dim")
            running.wait_for_nights(n)


def cells_of(night: ScheduledNight) -> dict[str, str]:
    """What is printed of a night, by what it is."""
    result = night.result
    with open_store(Path(result["store"])) as store:
        worth, strategies = recorded_assessment(store), store.clusters()
    cells = {
        "model": night.model,
        "accuracy": f"{result['accuracy']:.4f}",
        "rows, of them explained now": f"{result['n_rows']:,}, {night.n_computed:,}",
        "the whole night, s": f"{sum(night.stages.values()):,.0f}",
        **{f"  {stage}": f"{seconds:,.1f}" for stage, seconds in night.stages.items()},
        "converged, worst |gap|": f"{result['converged_share']:.2%}, {result['worst_gap']:.3f}",
        "gradients/image": f"{result['gradients_per_image']:.1f}",
        "store, MB": f"{result['store_bytes'] / 1e6:.1f}",
        "audit": result["audit"],
    }
    for judged in worth.controls.judged if worth.controls else ():
        cells[f"relevance gain, {judged.name}"] = str(judged.metrics["relevance_gain"])
    if worth.sanity:
        largest = worth.sanity.largest
        cells["like a random network's, at most"] = f"{largest:.2f}" if largest is not None else worth.sanity.note
    for method in worth.canary.mark if worth.canary else ():
        cells[f"canaries differ, {method}"] = f"{worth.canary.contrast(method):.2f}"
    if len(strategies):
        best = strategies.loc[strategies["transplant_score"].idxmax()]
        cells["strategies"] = str(len(strategies))
        cells["  highest transplant score"] = f"{best['transplant_score']:.2f} ({best['class_name']})"
        cells["  its region"] = f"{best['region_share']:.0%} of the image"
    if worth.drift:
        cells["predictions changed"] = f"{worth.drift.n_changed:,} of {worth.drift.n_rows:,}"
        cells["  likeness of others' reasons"] = f"{worth.drift.likeness:.2f}"
    cells["warnings"] = ", ".join(warning["kind"] for warning in result["warnings"]) or "none"
    return cells


def table_of(nights: list[ScheduledNight]) -> Table:
    """A column a night."""
    table = Table(title="nightly/cifar10", title_justify="left")
    table.add_column("what")
    for name, _ in NIGHTS[: len(nights)]:
        table.add_column(name, justify="right")
    found = [cells_of(night) for night in nights]
    for what in dict.fromkeys(what for cells in found for what in cells):
        table.add_row(what, *(cells.get(what, "") for cells in found))
    return table


def chosen_frog(store: AttributionStore) -> int | None:
    """The row of the frog whose explanation is worth most, by its relevance gain, of those that the model knows; None of none.

    Not the surest: where a probability is 1 to rounding its gradient is 0, and Grad-CAM has nothing to show.
    """
    table = store.table()
    frogs = table[(table["label_name"].str.lower() == "frog") & (table["correct"] != 0)]
    return int(frogs.index[frogs["relevance_gain"].argmax()]) if len(frogs) else None


def draw_pictures(store: AttributionStore, folder: Path) -> list[Path]:
    """summary.png: a column a row of the spotlight, and a frog. frog.png: that frog by every method of the store."""
    configuration: Any = store.attributes["configuration"]
    frog = chosen_frog(store)
    rows = [row for row in configuration["gallery"]["spotlight"] if row in store.row_numbers]
    rows += [] if frog is None else [frog]
    methods = [method for method in store.methods if method.title in METHODS]
    explained = [(method, store.view(method)[rows]) for method in methods]
    figures = {"summary": summary_figure(store.image[rows], explained, titles(store, rows))}
    if frog is not None:
        figures["frog"] = store.figure(frog)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(drawn, figures.values(), strict=True):
        Image.fromarray(render(figure, DPI)).save(path)
    return drawn


def titles(store: AttributionStore, rows: list[int]) -> list[str]:
    """The class of each row, with a question mark where the model takes it for another."""
    labels, predictions = (store.values(name, rows).tolist() for name in ("label_name", "prediction_name"))
    pairs = zip(labels, predictions, strict=True)
    return [label if label == prediction else f"{label}?" for label, prediction in pairs]


if __name__ == "__main__":
    typer.run(main)
