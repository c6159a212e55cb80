"""Planted shortcuts: a mark in one class's training images, and whether a night finds it; and that clean networks have none.

Each network is the notebook's, trained for a few epochs on a part of the images; its night explains marked test images. Printed
are the strategies of each night with the highest transplant scores, beside the mark.
"""

import contextlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nights import run_night
from storage import open_store
from tasks.numerics.worth.strategies import grown
from tasks.worth.strategies.shortcuts import LARGEST_REGION, NOTED

SHOWN, OTHERS = 3, 500
HEADINGS = (
    *("share", "seed", "accuracy", "mark makes it", "strategies", "warned"),
    *("strategy", "its class", "score", "control", "rows", "marked", "over the mark"),
)


@dataclass(frozen=True)
class Mark:
    """A cross of two bars `size` long and two pixels wide, its corner at (y, x), in a colour, 0..255."""

    y: int
    x: int
    size: int
    colour: tuple[int, ...]

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """(y, x) of images of that shape."""
        mask, half = np.zeros(shape[:2], bool), self.size // 2 - 1
        mask[self.y + half : self.y + half + 2, self.x : self.x + self.size] = True
        mask[self.y : self.y + self.size, self.x + half : self.x + half + 2] = True
        return mask

    def on(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        colour = self.colour[: images.shape[-1]] if images.ndim == 4 else self.colour[0]
        marked = images.copy()
        marked[:, self.mask(images.shape[1:])] = colour
        return marked


def planted(
    arrays: dict[str, NDArray], mark: Mark, number: int, share: float, n_train: int, seed: int
) -> tuple[dict[str, NDArray], NDArray[np.bool_]]:
    """Arrays as of a Keras .npz, the mark on that share of one class's images in both splits; which test rows have it."""
    rng = np.random.default_rng(seed)
    train = rng.permutation(len(arrays["x_train"]))[:n_train]
    found = {"x_train": arrays["x_train"][train], "y_train": arrays["y_train"][train].ravel()}
    found |= {"x_test": arrays["x_test"], "y_test": arrays["y_test"].ravel()}
    marked = {}
    for split in ("train", "test"):
        images, labels = found[f"x_{split}"].copy(), found[f"y_{split}"]
        marked[split] = (labels == number) & (rng.random(len(labels)) < share)
        images[marked[split]] = mark.on(images[marked[split]])
        found[f"x_{split}"] = images
    return found, marked["test"]


def read_images(dataset: Path) -> dict[str, NDArray]:
    """An .npz in Keras's layout, or a folder of images, train/CLASS/*.* and test/CLASS/*.*."""
    if dataset.suffix == ".npz":
        with np.load(dataset) as file:
            return {name: file[name] for name in file.files}
    from PIL import Image

    arrays, classes = dict[str, NDArray](), sorted(folder.name for folder in (dataset / "train").iterdir())
    for split in ("train", "test"):
        files = [(path, k) for k, name in enumerate(classes) for path in sorted((dataset / split / name).iterdir())]
        arrays[f"x_{split}"] = np.stack([np.asarray(Image.open(path)) for path, _ in files])
        arrays[f"y_{split}"] = np.array([label for _, label in files])
    return arrays


def night_of(arrays: dict[str, NDArray], folder: Path, epochs: int, rows: int) -> dict[str, Any]:
    """The result of a night on these arrays, with the network that it trains."""
    source = folder / "planted.npz"
    if not source.exists():
        np.savez(source, **arrays)
    return run_night(
        {
            "dataset": {"source": str(source)},
            "model": {"epochs": epochs},
            "gallery": {"draw": False},
            "audit": {"n_rows": 0},
            "run": {"root": str(folder / "root"), "rows": f"0:{rows}"},
        }
    ).result


def figures_of(
    result: dict[str, Any], marked: NDArray[np.bool_], mask: NDArray[np.bool_], colour: NDArray, number: int
) -> dict[str, Any]:
    """Accuracy, the warned and noted shortcuts, and of each its class, score, and overlap with the mark. colour: in 0..1."""
    with open_store(result["store"]) as store:
        table, found = store.clusters(), []
        small = table[(table["region_share"] <= LARGEST_REGION) & (table["transplant_score"] >= NOTED)]
        shape = store.image_shape[:2]
        around = [((a - b) // 2, a - b - (a - b) // 2) for a, b in zip(shape, mask.shape, strict=True)]
        on = np.pad(mask, around)  # as the dataset pads small images
        for cluster, line in small.iterrows():
            region = grown(store.column("clusters/region")[int(str(cluster))].astype(bool), shape)
            of_cluster = store.rows(cluster=line["name"]) - store.row_range.start
            found.append(
                {
                    "strategy": line["name"],
                    "of_the_class": int(line["class"]) == number,
                    "score": float(line["transplant_score"]),
                    "control": float(line["transplant_control"]),
                    "rows": int(line["n_rows"]),
                    "marked": float(marked[of_cluster].mean()),
                    "over_mark": float((region & on).sum() / region.sum()),
                }
            )
        images = store.image[store.row_numbers[store.predictions != number][:OTHERS]].astype(np.float32) / 255
        makes = _share_made(result, images, colour, on, number)
        scores = table["transplant_score"].where(table["region_share"] <= LARGEST_REGION)
        return {
            "accuracy": result["accuracy"],
            "mark_makes_it": makes,
            "strategies": len(table),
            "largest_score": float(scores.max()) if len(table) else 0.0,
            "warned": [w["message"] for w in result["warnings"] if w["kind"] == "shortcut"],
            "shortcuts": sorted(found, key=lambda each: -each["score"])[:SHOWN],
        }


def _share_made(result: dict[str, Any], images: NDArray, colour: NDArray, on: NDArray[np.bool_], number: int) -> float:
    """Of images in 0..1 that are called something else, those that are called the class once they have the whole mark."""
    import tasks.process.start_tensorflow  # noqa: F401  before what imports TensorFlow
    from tasks.models.registry import load_model
    from tasks.parts.recorded import recorded_plan

    with open_store(result["store"]) as store:
        record = recorded_plan(store).model
    images[:, on] = colour
    return float((load_model(record.path).predict(images, verbose=0).argmax(axis=1) == number).mean())


def main(
    dataset: Annotated[Path, typer.Option(help="An .npz in Keras's layout, or a folder of images.")],
    number: Annotated[int, typer.Option("--class", help="The class that is marked.")] = 6,
    shares: Annotated[str, typer.Option(help="Of its images that have the mark, a network each.")] = "0.6,0.1,0,0",
    y: Annotated[int, typer.Option(help="Top of the mark.")] = 20,
    x: Annotated[int, typer.Option(help="Left of the mark.")] = 2,
    size: Annotated[int, typer.Option(help="Of the mark, a cross.")] = 6,
    colour: Annotated[str, typer.Option(help="Of the mark, a number a channel.")] = "200,40,220",
    train: Annotated[int, typer.Option(help="Training images.")] = 30_000,
    rows: Annotated[int, typer.Option(help="Test images.")] = 5_000,
    epochs: int = 2,
    seed: int = 1,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where images and nights stay; networks there are not trained again."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints what a night says of each network."""
    arrays = read_images(dataset)
    mark = Mark(y, x, size, tuple(int(value) for value in colour.split(",")))
    mask = mark.mask(arrays["x_train"].shape[1:])
    in_unit = np.array(mark.colour if arrays["x_train"].ndim == 4 else mark.colour[:1]) / 255
    console, lines = Console(width=150), list[dict[str, Any]]()
    for k, share in enumerate(float(text) for text in shares.split(",")):
        with contextlib.ExitStack() as stack:
            folder = keep / f"{share}-{seed + k}" if keep else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            spoiled, marked = planted(arrays, mark, number, share, train, seed + k)
            result = night_of(spoiled, folder, epochs, rows)
            lines.append({"share": share, "seed": seed + k} | figures_of(result, marked[:rows], mask, in_unit, number))
            console.print(f"share {share}, seed {seed + k}: accuracy {lines[-1]['accuracy']:.3f}")
    table = Table(title=f"Planted in class {number} of {dataset.name}: {asdict(mark)}", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for line in lines:
        own = [f"{line['share']:.0%}", str(line["seed"]), f"{line['accuracy']:.3f}"]
        own += [f"{line['mark_makes_it']:.0%}", str(line["strategies"]), str(len(line["warned"]))]
        for each in line["shortcuts"] or [None]:
            if each is None:
                table.add_row(*own, "none", "", f"{line['largest_score']:.2f} at most")
                continue
            table.add_row(
                *own, each["strategy"], "yes" if each["of_the_class"] else "no", f"{each['score']:.2f}", f"{each['control']:.2f}",
                f"{each['rows']:,}", f"{each['marked']:.0%}", f"{each['over_mark']:.0%}",
            )  # fmt: skip
            own = [""] * 6
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
