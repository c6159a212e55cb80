"""What an explained image costs and how exact it is: `python tests/benchmarks/attribution.py --help`.

Speed on many rows, error on a few against a midpoint rule of 1,500 nodes, for the adaptive rule, for the same rule with
every panel halved that has a claim (close to doubling the nodes of a whole row) and for fixed Gauss-Legendre. Rules take
turns within a repeat, so that a noisy machine is noisy to all; times are medians over the repeats.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tasks.config import DatasetConfig
from tasks.datasets import prepare, read_rows
from tasks.numerics.explainer import Explainer, Method
from tasks.numerics.grad_cam import find_layer
from tasks.numerics.integrated_gradients import Attributions
from tasks.numerics.quadrature import Adaptive, Fixed, Rule, Tolerances
from tasks.numerics.scores import score_model
from tasks.registry import load_model

RULES: dict[str, Rule] = {
    "adaptive (default)": Adaptive(),
    "refine_fraction 1": Adaptive(refine_fraction=1),
    "Gauss-Legendre 50": Fixed(rule="gausslegendre", n_steps=50),
    "Gauss-Legendre 128": Fixed(rule="gausslegendre", n_steps=128),
}
REFERENCE = Fixed(rule="riemann_middle", n_steps=1500)


def relative_errors(ours: NDArray, reference: NDArray) -> NDArray[np.float64]:
    axes = tuple(range(1, ours.ndim))
    return np.sqrt(np.square(ours - reference).sum(axes) / np.square(reference).sum(axes))


def main(
    model: Annotated[Path, typer.Option(help="A .keras file, such as one of <root>/models.")],
    dataset: Annotated[str, typer.Option(help="Dataset, as in `nightlens run`.")] = "digits",
    root: Annotated[Path, typer.Option(help="Where the dataset is prepared.")] = Path("nightlens-data"),
    rows: Annotated[int, typer.Option(help="Random rows that are timed.")] = 256,
    exact_rows: Annotated[int, typer.Option(help="Of these, rows compared with the reference.")] = 40,
    repeats: int = 3,
    batch_size: int = 256,
    seed: int = 0,
) -> None:
    """Prints a table of cost and error by rule, and the cost of Grad-CAM."""
    record, network = prepare(DatasetConfig(source=dataset), root.absolute()), load_model(model)
    chosen = np.sort(np.random.default_rng(seed).choice(record.n_test, min(rows, record.n_test), replace=False))
    pixels, labels = read_rows(record, "test", 0, record.n_test)
    images, labels = pixels[chosen].astype(np.float32) / 255, labels[chosen]
    baselines, layer = np.zeros_like(images), find_layer(score_model(network, "probability"), "auto")

    def explainer(rule: Rule) -> Explainer:
        return Explainer(
            network,
            Method(score="probability", rule=rule, tolerances=Tolerances(), layer=layer, batch_size=batch_size),
        )

    explainers = {name: explainer(rule) for name, rule in RULES.items()}
    cost: dict[str, list[float]] = {name: [] for name in (*RULES, "Grad-CAM")}
    results: dict[str, Attributions] = {}
    for one in explainers.values():
        one.integrated_gradients(images[:8], baselines[:8], labels[:8])
    explainers["adaptive (default)"].grad_cam(images[:8], labels[:8])
    for _ in range(repeats):
        for name, one in explainers.items():
            began = time.perf_counter()
            results[name] = one.integrated_gradients(images, baselines, labels)
            cost[name].append(time.perf_counter() - began)
        began = time.perf_counter()
        explainers["adaptive (default)"].grad_cam(images, labels)
        cost["Grad-CAM"].append(time.perf_counter() - began)
    few = slice(0, exact_rows)
    reference = explainer(REFERENCE).integrated_gradients(images[few], baselines[few], labels[few]).attribution
    _print(results, cost, reference, len(images), f"{record.name}, {len(images)} rows, {model.name}")


def _print(
    results: dict[str, Attributions], cost: dict[str, list[float]], reference: NDArray, n_rows: int, title: str
) -> None:
    table = Table(title=title)
    for column in ("rule", "gradients/image", "ms/image", "ms/gradient", "converged", "|gap| p95", "max"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for column in ("relative L2 median", "p95", "max", "error > 1.5 reported"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        seconds, gradients = float(np.median(cost[name])), int(result.n_gradients.sum())
        gaps = np.abs(result.gap)
        errors = relative_errors(result.attribution[: len(reference)], reference)
        dishonest = (errors > 1.5 * result.quadrature_error[: len(reference)]).mean()
        table.add_row(
            name,
            f"{gradients / n_rows:.1f}",
            f"{1e3 * seconds / n_rows:.2f}",
            f"{1e3 * seconds / gradients:.3f}",
            f"{result.converged.mean():.1%}",
            f"{np.quantile(gaps, 0.95):.3f}",
            f"{gaps.max():.3f}",
            f"{np.median(errors):.3f}",
            f"{np.quantile(errors, 0.95):.3f}",
            f"{errors.max():.3f}",
            f"{dishonest:.1%}",
        )
    console = Console(width=160)
    console.print(table)
    console.print(f"Grad-CAM: {1e3 * float(np.median(cost['Grad-CAM'])) / n_rows:.2f} ms/image")


if __name__ == "__main__":
    typer.run(main)
