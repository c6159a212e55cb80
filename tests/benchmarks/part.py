"""Where the time of the parts of a night goes: reading, scores, Integrated Gradients, Grad-CAM, writing.

Parts run in threads side by side, as in a night; seconds are summed over the threads. Nothing is left behind.
"""

import json
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect.logging import disable_run_logger

import tasks.explain
import tasks.quiet_start
from tasks.config import DatasetConfig, ExplanationConfig, GradCamConfig, IntegratedGradientsConfig
from tasks.datasets import prepare
from tasks.plan import make_plan
from tasks.registry import read_record

STEPS = ("read", "probabilities", "integrated_gradients", "grad_cam", "write")


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
    rows: Annotated[int, typer.Option(help="Rows from the first, in parts of --part-rows.")] = 512,
    part_rows: int = 128,
    threads: int = 2,
    batch_size: int = 256,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints the share of each step."""
    record = prepare(DatasetConfig(source=dataset), root.absolute())
    rows = min(rows, record.n_test)
    explanation = ExplanationConfig(part_rows=part_rows, batch_size=batch_size)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as name:
        plan = make_plan(
            Path(name),
            record,
            read_record(model),
            explanation,
            IntegratedGradientsConfig(),
            GradCamConfig(),
            f"0:{rows}",
        )
        _measure(watch)
        explainer = tasks.explain.explainer_for(plan)
        explainer.integrated_gradients(*_warm_up(plan))
        for step in ("probabilities", "integrated_gradients", "grad_cam"):
            setattr(explainer, step, watch.timing(step, getattr(explainer, step)))
        watch.seconds.clear()
        with disable_run_logger(), ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda ends: tasks.explain.compute_part(plan, *ends), plan.ranges()))
    total = sum(part.seconds for part in parts)
    shares = {step: watch.seconds[step] / total for step in STEPS}
    shares["other"] = 1 - sum(shares.values())
    print(f"{rows} rows in {len(parts)} parts, {threads} threads: {total:.1f} s of all threads together")
    for step, share in shares.items():
        print(f"{step:22}{share:7.1%}")
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": rows, "part_seconds": total, "shares": shares}, indent=1) + "\n")


def _measure(watch: Stopwatch) -> None:
    tasks.explain.read_rows = watch.timing("read", tasks.explain.read_rows)  # type: ignore[assignment]
    tasks.explain.write_part = watch.timing("write", tasks.explain.write_part)  # type: ignore[assignment]


def _warm_up(plan: Any) -> tuple[Any, Any, Any]:
    pixels, labels = tasks.explain.read_rows(plan.dataset, "test", 0, 4)
    images = pixels.astype("float32") / 255
    tasks.explain.explainer_for(plan).grad_cam(images, labels)
    return images, 0 * images, labels


if __name__ == "__main__":
    typer.run(main)
