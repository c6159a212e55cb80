"""What a method is to the pipeline. Whoever adds one implements Method, and adds its entry to storage/file/methods.py."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore, StoredMethod, Target
from tasks.numerics.endpoint import Endpoint
from tasks.numerics.explainer import Explainer
from tasks.numerics.references import tf_explain_maps
from tasks.parts.methods.comparison import Comparison
from tasks.parts.plan import Plan

__all__ = ["Audited", "Method", "Recomputed", "Work"]


@dataclass(frozen=True)
class Work:
    """Rows to be explained. images, baselines: (row, y, x, channel) float32 in 0..1. targets: (row,).

    endpoint: what the network says at the images. on_progress: called with the number of rows that are done, now and then.
    """

    plan: Plan
    explainer: Explainer
    images: NDArray[np.float32]
    baselines: NDArray[np.float32]
    targets: NDArray[np.int64]
    endpoint: Endpoint
    on_progress: Callable[[int], object] | None


@dataclass(frozen=True)
class Audited:
    """Rows of a sealed store, beside what other people's code needs to explain them for their label again.

    explainer: ours, in float32 and by the rule that alibi has, too. tolerance: what the same arithmetic may differ by.
    """

    plan: Plan
    store: AttributionStore
    rows: NDArray[np.int64]
    network: keras.Model
    explainer: Explainer
    images: NDArray[np.float32]
    baselines: NDArray[np.float32]
    labels: NDArray[np.int64]
    endpoint: Endpoint
    tolerance: float
    _their_maps: dict[int, Mapping[str, NDArray]] = field(default_factory=dict)

    @cached_property
    def logits(self) -> Explainer:
        """Our explainer of the logit instead of the probability."""
        return Explainer(self.network, replace(self.explainer.settings, score="logit"))

    def their_maps(self, explainer: Explainer) -> Mapping[str, NDArray]:
        """What tf-explain gives for the score of one of our explainers, before its ReLU; computed once for all methods."""
        if id(explainer) not in self._their_maps:
            self._their_maps[id(explainer)] = tf_explain_maps(explainer.activations_model(), self.images, self.labels)
        return self._their_maps[id(explainer)]


@dataclass(frozen=True)
class Recomputed:
    """Rows of a sealed store that were explained again for the same class. anew: their arrays by the name of the dataset."""

    plan: Plan
    store: AttributionStore
    rows: NDArray[np.int64]
    target: Target
    classes: NDArray[np.int64]
    anew: Mapping[str, NDArray]


class Method(Protocol):
    """A method of explaining rows.

    stored: its datasets, how its picture is drawn and read. audited: a sentence on what the audit compares.
    """

    @property
    def stored(self) -> StoredMethod: ...

    @property
    def audited(self) -> str: ...

    def explain(self, work: Work) -> Mapping[str, NDArray]:
        """Every per-row array of the method by the name of its dataset, (row, ...)."""
        ...

    def audit(self, audited: Audited) -> Iterator[Comparison]:
        """What is stored, and what our code gives, beside what other people's code gives."""
        ...

    def recompute(self, recomputed: Recomputed) -> Iterator[Comparison]:
        """What is stored beside what comes out again, named by dataset."""
        ...
