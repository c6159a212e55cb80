"""Sanity: attributions of networks that know nothing must not look like the model's own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tasks.models.loading import load_own_model
from tasks.numerics.explainer import Explainer, in_float32
from tasks.numerics.quadrature import Fixed
from tasks.numerics.worth.randomised import permute_weights, rank_correlation
from tasks.parts.plan import Plan
from tasks.worth.known.known_results import Sanity

__all__ = ["N_NETWORKS", "measure_sanity"]

N_NETWORKS, N_ROWS, N_NODES = 3, 50, 16
LEAST_DEFINED = 8  # rows


def measure_sanity(
    plan: Plan,
    images: NDArray[np.float32],
    baselines: NDArray[np.float32],
    targets: NDArray[np.int64],
    on_progress: Callable[[float], object] = lambda share: None,
) -> Sanity:
    """Of the first rows that are given, each for its target, by the plan's settings but a fixed rule.

    The adaptive rule would go to its last node on random networks.
    """
    images, baselines, targets = images[:N_ROWS], baselines[:N_ROWS], targets[:N_ROWS]
    network = load_own_model(plan.model.path, plan.model.code)
    original = network.get_weights()
    settings = replace(in_float32(plan.settings()), rule=Fixed(n_steps=N_NODES), layer="", ig_engine="nightlens")
    rng = np.random.default_rng(0)

    explainer = Explainer(network, settings)

    def explained() -> NDArray:
        explainer.forget()
        return explainer.integrated_gradients(images, baselines, targets).attribution.sum(axis=-1)

    own, changed = explained(), (images != baselines).any(axis=-1)
    medians = list[float]()
    for k in range(N_NETWORKS):
        on_progress(k / N_NETWORKS)
        if not permute_weights(network, original, rng):
            return Sanity(medians=(), n_rows=0, note="not defined: no weight of the model can be permuted")
        alike = rank_correlation(own, explained(), changed)
        n_defined = int(np.isfinite(alike).sum())
        if n_defined < LEAST_DEFINED:
            note = f"too few rows: defined in {n_defined} of {len(images)}, {LEAST_DEFINED} are needed"
            return Sanity(medians=(), n_rows=n_defined, note=note)
        medians.append(float(np.nanmedian(alike)))
    on_progress(1.0)
    return Sanity(medians=tuple(medians), n_rows=len(images))
