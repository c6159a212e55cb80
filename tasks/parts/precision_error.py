"""Precision: how far attributions of a night in bfloat16 are from those in float32, on a sample of its rows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from prefect.logging import get_run_logger

from tasks.datasets import read_rows
from tasks.models.registry import load_model
from tasks.numerics.explainer import Explainer
from tasks.parts.explained_rows import baselines_for, explainer_for
from tasks.parts.plan import Plan

__all__ = ["describe_precision", "measure_precision_error"]

SAMPLE_ROWS = 16
TINY = float(np.finfo(np.float32).tiny)


def measure_precision_error(plan: Plan) -> dict[str, float]:
    """n_rows of a sample spread over the plan's rows, and median and max of ||IG - IG_float32|| / ||IG_float32|| over them.

    Both by the plan's rule, for the true class. Empty for a plan in float32. Logs what it finds.
    """
    if plan.explanation.precision == "float32":
        return {}
    numbers = np.unique(np.linspace(plan.start, plan.stop - 1, SAMPLE_ROWS).astype(int))
    pairs = [read_rows(plan.dataset, "test", int(row), int(row) + 1) for row in numbers]
    images = np.concatenate([pixels for pixels, _ in pairs]).astype(np.float32) / 255
    labels = np.concatenate([label for _, label in pairs])
    baselines = baselines_for(plan, images)
    reference = Explainer(
        load_model(plan.model.path, plan.model.code), dataclasses.replace(plan.settings(), precision="float32")
    )
    ours, exact = (
        each.integrated_gradients(images, baselines, labels).attribution.reshape(len(numbers), -1).astype(np.float64)
        for each in (explainer_for(plan), reference)
    )
    errors = np.linalg.norm(ours - exact, axis=1) / np.maximum(np.linalg.norm(exact, axis=1), TINY)
    found = {"n_rows": len(numbers), "median": float(np.median(errors)), "max": float(errors.max())}
    get_run_logger().info("gradients in %s", describe_precision(plan.explanation.precision, found))
    return found


def describe_precision(precision: str, error: Mapping[str, Any] | None) -> str:
    """In a line for people. error: as of `measure_precision_error`."""
    if not error:
        return precision
    return (
        f"{precision}: attributions are {error['median']:.1%} off those in float32 in the median, {error['max']:.1%} at "
        f"most, over {error['n_rows']} rows"
    )
