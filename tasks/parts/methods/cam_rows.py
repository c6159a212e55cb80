"""Maps of rows: Grad-CAM, and whatever else is made of a layer's activations and their gradients."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from storage import StoredMethod
from storage.file.methods import GRAD_CAM, HIRES_CAM
from tasks.parts.methods.comparison import (
    BEYOND_SAMPLE,
    Comparison,
    precision_error,
    probability_rounding,
    relative_change,
    relative_difference,
)
from tasks.parts.methods.method import Audited, Recomputed, Work

__all__ = ["CANCELLATION", "GRAD_CAM_ROWS", "HIRES_CAM_ROWS", "CamRows"]

# A map sums over filters of both signs: of the gradient much cancels, of its rounding nothing. Five times as much was seen.
CANCELLATION = 8.0
RELATIVE_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class CamRows:
    """A map of the explained layer; see tasks.parts.methods.method for what its parts are."""

    stored: StoredMethod

    @property
    def audited(self) -> str:
        """Where the model is certain, 1 - p and with it a map of a probability is rounding; a map of the logit is not."""
        title = self.stored.title
        return (
            f"A stored {title} map may be off by float32 rounding, which is large where the model is certain; its logit map, our "
            f"{title} against tf-explain's where nothing saturates, may not."
        )

    def explain(self, work: Work) -> Mapping[str, NDArray]:
        maps = work.endpoint.maps[self.stored.group]
        picture, peak = self._names
        return {picture: maps, peak: maps.max(axis=(1, 2))}

    def audit(self, audited: Audited) -> Iterator[Comparison]:
        title, method = self.stored.title, audited.explainer.settings
        theirs = audited.their_maps(audited.explainer)[self.stored.group]
        allowed = np.full(len(audited.rows), audited.tolerance)
        if method.score == "probability":
            allowed += CANCELLATION * probability_rounding(audited.endpoint.probabilities, audited.labels)
        if error := precision_error(audited.store, self.stored.group):
            # What the ReLU cuts away has an error, too: where it is nearly all of the map, the rest is no number any more.
            allowed += BEYOND_SAMPLE * error * (1 + relative_difference(theirs, np.maximum(theirs, 0)))
        off = relative_difference(audited.store.maps(audited.rows, method=self.stored), np.maximum(theirs, 0))
        zeros = "" if theirs.any() else f"tf-explain's {title}"
        yield Comparison(f"{title} map", "stored and tf-explain", off, allowed, zeros)
        if audited.plan.contract.logits:
            ours = audited.logits.endpoint(audited.images, audited.labels).maps[self.stored.group]
            theirs = audited.their_maps(audited.logits)[self.stored.group]
            off = relative_difference(ours, np.maximum(theirs, 0))
            yield Comparison(f"{title} logit map", "ours and tf-explain", off, audited.tolerance)

    def recompute(self, recomputed: Recomputed) -> Iterator[Comparison]:
        picture, _ = self._names
        error = precision_error(recomputed.store, self.stored.group)
        allowed = np.full(len(recomputed.rows), RELATIVE_TOLERANCE + BEYOND_SAMPLE * error)
        if recomputed.plan.explanation.score == "probability":
            probabilities = recomputed.store.values("probability", recomputed.rows)
            allowed += probability_rounding(probabilities, recomputed.classes)
        stored = recomputed.store.maps(recomputed.rows, recomputed.target, self.stored)
        off = relative_change(stored, recomputed.anew[picture])
        yield Comparison(picture, "relative L2 difference", off, allowed)

    @property
    def _names(self) -> tuple[str, str]:
        picture, peak = (variable.name for variable in self.stored.variables[:2])
        return picture, peak


GRAD_CAM_ROWS, HIRES_CAM_ROWS = CamRows(GRAD_CAM), CamRows(HIRES_CAM)
