"""The rows of a part explained: every per-row array of the store, from images and labels."""

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from tasks.datasets import Dataset, mean_image
from tasks.models.registry import load_model
from tasks.numerics.baselines import make_baselines
from tasks.numerics.explainer import Explainer, Settings
from tasks.parts.methods import Work, methods_of
from tasks.parts.plan import Plan

__all__ = ["baselines_for", "explain_rows", "explainer_for"]

_loading = threading.Lock()


def explainer_for(plan: Plan) -> Explainer:
    """The plan's model with its compiled functions, made once a process."""
    with _loading:
        model = plan.model
        return _explainer(model.path, model.sha256, model.code, model.code_sha256, plan.settings())


@lru_cache(maxsize=1)
def _explainer(path: Path, sha256: str, code: Path | None, code_sha256: str, settings: Settings) -> Explainer:
    return Explainer(load_model(path, code), settings, _warn)


def _warn(line: str) -> None:
    get_run_logger().warning(line)


@lru_cache(maxsize=1)
def _mean_image(dataset: Dataset) -> NDArray[np.float64]:
    return mean_image(dataset)


def baselines_for(plan: Plan, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The plan's baseline of each image."""
    kind = plan.integrated_gradients.baseline
    with _loading:
        mean = _mean_image(plan.dataset) if kind == "mean" else None
    return make_baselines(kind, images, mean)


def explain_rows(
    plan: Plan,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    first_row: int,
    on_progress: Callable[[float], object] | None = None,
) -> dict[str, NDArray]:
    """Every per-row array of the store, by its path. pixels: (row, y, x, channel). labels: (row,).

    The misclassified rows are explained a second time, for the predicted class, in the same batches.
    on_progress: called again and again with the share of the attributions that is done.
    """
    explainer, images = explainer_for(plan), pixels.astype(np.float32) / 255
    endpoint = explainer.endpoint(images, labels)
    probabilities = endpoint.probabilities
    if not np.isfinite(probabilities).all():
        bad = first_row + np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
        raise ValueError(f"model {plan.model.name} gives outputs that are not finite for rows {bad[:8].tolist()}")
    predictions = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    again = np.concatenate([np.arange(len(images)), wrong])
    baselines = baselines_for(plan, images)
    work = Work(
        plan=plan,
        explainer=explainer,
        images=images[again],
        baselines=baselines[again],
        targets=np.concatenate([labels, predictions[wrong]]),
        endpoint=endpoint.followed_by(explainer.endpoint(images[wrong], predictions[wrong])),
        on_progress=(lambda n_done: on_progress(n_done / len(again))) if on_progress else None,
    )
    arrays = {"image": pixels, "label": labels, "prediction": predictions, "probability": probabilities}
    arrays["predicted_row"] = first_row + wrong
    n = len(images)
    for method in methods_of(maps=bool(plan.layer)):
        for name, values in method.explain(work).items():
            arrays[f"{method.stored.group}/{name}"] = values[:n]
            arrays[f"{method.stored.group}/predicted/{name}"] = values[n:]
    return arrays
