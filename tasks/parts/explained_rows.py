"""The rows of a part explained: every per-row array of the store, from images and labels."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from storage.file.methods import INTEGRATED_GRADIENTS
from tasks.datasets import Dataset, mean_image
from tasks.models.registry import load_model
from tasks.numerics.baselines import make_baselines
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.network.device import places
from tasks.parts.methods import Work, methods_of
from tasks.parts.plan import Plan
from tasks.parts.quality_rows import judge_rows

__all__ = ["baselines_for", "explain_rows", "explainer_for"]

_loading, _counting = threading.Lock(), threading.Lock()
_at_work: dict[str | None, int] = {}  # parts, by place
_turn = count(os.getpid())


def explainer_for(plan: Plan, place: str | None = None) -> Explainer:
    """The plan's model with its compiled functions, made once a process; of several GPUs once on each. place: of `places`.

    It is to be called under `tf.device(place)`.
    """
    with _loading, tf.device(place):
        model = plan.model
        made = _explainers(model.path, model.sha256, model.code, model.code_sha256, plan.settings())
        if place not in made:
            made[place] = Explainer(load_model(model.path, model.code, place), plan.settings(), _warn)
        return made[place]


@lru_cache(maxsize=1)
def _explainers(
    _path: Path, _sha256: str, _code: Path | None, _code_sha256: str, _settings: Settings
) -> dict[str | None, Explainer]:
    """Of one plan at a time, by place."""
    return {}


@contextmanager
def _place_for_a_part() -> Iterator[str | None]:
    """The GPU on which the fewest parts are at work, of several; parts go round."""
    with _counting:
        there = places()
        # Of equals another one each time, and to begin with another one in each process, as Dask's are.
        first = next(_turn) % len(there)
        place = min(there[first:] + there[:first], key=lambda name: _at_work.get(name, 0))
        _at_work.setdefault(place, 0)
        _at_work[place] += 1
    try:
        yield place
    finally:
        with _counting:
            _at_work[place] -= 1


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
    with _place_for_a_part() as place, tf.device(place):
        return _explain(plan, explainer_for(plan, place), pixels, labels, first_row, on_progress)


def _explain(
    plan: Plan,
    explainer: Explainer,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    first_row: int,
    on_progress: Callable[[float], object] | None,
) -> dict[str, NDArray]:
    images = pixels.astype(np.float32) / 255
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
    attributions = arrays[INTEGRATED_GRADIENTS.picture].copy()
    attributions[wrong] = arrays[INTEGRATED_GRADIENTS.predicted()[0].path]
    return arrays | judge_rows(explainer, images, baselines, predictions, attributions)
