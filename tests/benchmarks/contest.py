"""Engines that take turns: within a repeat each explains its rows once, so that a noisy machine is noisy to all.

The foreign engines are called directly. alibi is made once and asked again and again, as its users do; of tf-explain only the
map is asked for, not the coloured overlay of `GradCAM.explain`, which would only add to its time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALIBI_BATCH",
    "Contestant",
    "Explain",
    "Spread",
    "Timed",
    "alibi_batched",
    "alibi_one_by_one",
    "best_alibi_batch",
    "least_ms",
    "take_turns",
]

ALIBI_BATCH = 100  # its default
ALIBI_BATCHES = (64, 128, 256, 512, 1024)
SWEEP_ROWS = 32

Explain = Callable[[NDArray, NDArray], Any]
Way = TypeVar("Way", int, str)


@dataclass(frozen=True)
class Timed:
    """A result with its seconds: an engine in another process returns one, and its own clock counts."""

    result: Any
    seconds: float

    @classmethod
    def of(cls, explain: Explain, images: NDArray, targets: NDArray) -> "Timed":
        began = time.perf_counter()
        found = explain(images, targets)
        return found if isinstance(found, Timed) else cls(found, time.perf_counter() - began)


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float], scale: float = 1.0) -> "Spread":
        scaled = scale * np.array(values)
        return cls(float(np.median(scaled)), float(scaled.min()), float(scaled.max()))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g}-{self.most:.3g})"


@dataclass
class Contestant:
    """explain: from images (row, y, x, channel) and targets (row,) to a result, called on the first n_rows of those given.

    n_nodes: of a fixed rule. seconds: of each repeat. result: the last one.
    """

    name: str
    explain: Explain
    n_rows: int
    n_nodes: int = 0
    seconds: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def ms_per_image(self) -> Spread:
        return Spread.of(self.seconds, 1e3 / self.n_rows)


def take_turns(
    contestants: Sequence[Contestant], images: NDArray, targets: NDArray, repeats: int, between: Callable[[], object]
) -> None:
    """Every contestant warms up on a few rows, then each explains its rows once a repeat. between: called once a repeat."""
    for one in contestants:
        one.explain(images[:2], targets[:2])
    for _ in range(repeats):
        between()
        for one in contestants:
            timed = Timed.of(one.explain, images[: one.n_rows], targets[: one.n_rows])
            one.result = timed.result
            one.seconds.append(timed.seconds)


def _alibi(model: keras.Model, n_steps: int, internal_batch_size: int) -> Any:
    from alibi.explainers import IntegratedGradients

    return IntegratedGradients(model, method="gausslegendre", n_steps=n_steps, internal_batch_size=internal_batch_size)


def alibi_batched(model: keras.Model, n_steps: int, internal_batch_size: int) -> Explain:
    """alibi's attributions against black, all images in one call."""
    explainer = _alibi(model, n_steps, internal_batch_size)
    return lambda images, targets: explainer.explain(
        images, baselines=np.zeros_like(images), target=targets.astype(int)
    ).attributions[0]


def alibi_one_by_one(model: keras.Model, n_steps: int) -> Explain:
    """The same, an image a call with alibi's default batch, as the notebook calls it."""
    one = alibi_batched(model, n_steps, ALIBI_BATCH)
    return lambda images, targets: np.concatenate(
        [one(images[k : k + 1], targets[k : k + 1]) for k in range(len(images))]
    )


def best_alibi_batch(model: keras.Model, images: NDArray, targets: NDArray, n_steps: int) -> dict[int, float]:
    """ms an image by internal_batch_size, over sizes that the images, at most SWEEP_ROWS, can fill."""
    some, chosen = images[:SWEEP_ROWS], targets[:SWEEP_ROWS]
    sizes = [size for size in ALIBI_BATCHES if size <= max(len(some) * n_steps, ALIBI_BATCHES[0])]
    return least_ms({size: alibi_batched(model, n_steps, size) for size in sizes}, some, chosen)


def least_ms(ways: Mapping[Way, Explain], images: NDArray, targets: NDArray) -> dict[Way, float]:
    """ms an image of each way to explain, the better of two."""
    cost: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(2):
        for way, explain in ways.items():
            cost[way].append(Timed.of(explain, images, targets).seconds)
    return {way: 1e3 * min(seconds) / len(images) for way, seconds in cost.items()}
