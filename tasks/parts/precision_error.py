"""How far a night's precision is from float32: measured on a sample of its rows, and said in words."""

import gc
from collections.abc import Mapping
from typing import Any

from prefect.logging import get_run_logger

from tasks.models.registry import load_model
from tasks.parts.explained_rows import explainer_for
from tasks.parts.plan import Plan
from tasks.parts.precision_sample import float32_beside, precision_error, read_sample

__all__ = ["describe_precision", "measure_precision_error"]


def measure_precision_error(plan: Plan) -> dict[str, Any]:
    """As `precision_error` says, over a sample spread over the plan's rows, by the plan's rule and for the true class.

    Empty for a plan in float32. Logs what it finds.
    """
    if plan.precision == "float32":
        return {}
    sample = read_sample(plan.dataset, plan.start, plan.stop, plan.integrated_gradients.baseline)
    exact = float32_beside(load_model(plan.model.path, plan.model.code), plan.settings())
    found = precision_error(explainer_for(plan), exact, sample)
    del exact
    gc.collect()  # what it holds of the device's memory: it and its functions refer to each other
    get_run_logger().info("explained in %s", describe_precision(plan.precision, found))
    return found


def describe_precision(precision: str, error: Mapping[str, Any] | None) -> str:
    """In a line for people. error: as of `measure_precision_error`, also of a store before schema 6, without maps."""
    if not error:
        return precision
    maps = [spread["max"] for spread in error.get("maps", {}).values()]
    of_maps = f", maps {max(maps):.1%} at most" if maps else ""
    return (
        f"{precision}: attributions are {error['median']:.1%} off those in float32 in the median, {error['max']:.1%} at "
        f"most{of_maps}, over {error['n_rows']} rows"
    )
