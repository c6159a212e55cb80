"""Where the time of the parts of a night goes: reading, Integrated Gradients, prediction and Grad-CAM, writing.

Parts run in threads side by side, as in a night; seconds are summed over the threads. The pass over the images themselves
counts for Integrated Gradients as far as its gradient alone would have taken, measured in turns: that is a node of the rule.
What it takes beyond is for prediction and Grad-CAM. Nothing is left behind.
"""

import json
import math
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from prefect.logging import disable_run_logger

from tasks.config import DatasetConfig, ExplanationConfig, GradCamConfig, IntegratedGradientsConfig
from tasks.contract import establish
from tasks.datasets import prepare
from tasks.models.registry import load_model, read_record
from tasks.numerics.explainer import Explainer
from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.network.compiled import Compiled
from tasks.parts import compute, explained_rows
from tasks.parts.plan import Plan, default_part_rows, make_plan

STEPS = ("read", "integrated_gradients", "endpoint", "write")
TURNS = 7


class Stopwatch:
    """Seconds by step, summed over threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def timing(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self.seconds[step] += time.perf_counter() - began

        return timed


def main(
    model: Annotated[Path, typer.Option(help="A .keras file.")],
    dataset: Annotated[str, typer.Option(help="As in `nightlens run`.")] = "digits",
    root: Annotated[Path, typer.Option(help="Where the dataset is prepared.")] = Path("nightlens-data"),
    night_rows: Annotated[int, typer.Option(help="Of the night whose parts are measured.")] = 10_000,
    parts: Annotated[int, typer.Option(help="How many of them, from the first, if the test split has as many.")] = 4,
    threads: int = 2,
    batch_size: int = 256,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints the share of each step."""
    record = prepare(DatasetConfig(source=dataset), root.absolute())
    part_rows = default_part_rows(night_rows, math.prod(record.shape))
    rows = min(parts * part_rows, record.n_test)
    explanation = ExplanationConfig(part_rows=part_rows, batch_size=batch_size)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as name:
        found, settings = read_record(model), {"score": explanation.score, "layer": "auto"}
        plan = make_plan(
            Path(name),
            record,
            found,
            establish(load_model(found.path, found.code), found, record, "auto", **settings),
            explanation,
            IntegratedGradientsConfig(),
            GradCamConfig(),
            f"0:{rows}",
        )
        _measure(watch)
        explainer = explained_rows.explainer_for(plan)
        images, labels = _some_rows(plan)
        explainer.integrated_gradients(images, 0 * images, labels)
        beyond = beyond_a_gradient(explainer, images, labels)
        for step in ("endpoint", "integrated_gradients"):
            setattr(explainer, step, watch.timing(step, getattr(explainer, step)))
        watch.seconds.clear()
        with disable_run_logger(), ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(lambda ends: compute.compute_part(plan, *ends), plan.ranges()))
    total = sum(part.seconds for part in done)
    shares = {step: watch.seconds[step] / total for step in STEPS}
    endpoint = shares.pop("endpoint")
    shares["integrated_gradients"] += (1 - beyond) * endpoint
    shares["prediction_and_grad_cam"] = beyond * endpoint
    shares["other"] = 1 - sum(shares.values())
    print(f"{rows} rows in {len(done)} parts, {threads} threads: {total:.1f} s of all threads together")
    for step, share in shares.items():
        print(f"{step:24}{share:7.1%}")
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": rows, "part_seconds": total, "shares": shares}, indent=1) + "\n")


def _measure(watch: Stopwatch) -> None:
    compute.read_rows = watch.timing("read", compute.read_rows)  # type: ignore[assignment]
    compute.write_part = watch.timing("write", compute.write_part)  # type: ignore[assignment]


def _some_rows(plan: Plan) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    pixels, labels = compute.read_rows(plan.dataset, "test", plan.start, min(plan.stop, plan.start + plan.batch_size))
    return pixels.astype(np.float32) / 255, labels


def beyond_a_gradient(explainer: Explainer, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The share of a pass over the images that their gradients alone would not have taken: the best of each of TURNS."""
    gradients = Compiled("gradients", target_gradients(explainer.model), explainer.settings.batch_size)
    seconds: dict[Callable[..., Any], list[float]] = {gradients: [], explainer.endpoint: []}
    for _ in range(TURNS):
        for call, taken in seconds.items():
            began = time.perf_counter()
            call(images, labels.astype(np.int32))
            taken.append(time.perf_counter() - began)
    alone, endpoint = (min(taken[1:]) for taken in seconds.values())
    return max(0.0, 1 - alone / endpoint)


if __name__ == "__main__":
    typer.run(main)
