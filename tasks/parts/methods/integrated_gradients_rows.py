"""Integrated Gradients of rows, with a certificate each."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from storage.file.methods import INTEGRATED_GRADIENTS
from storage.file.rounding import EXPLICIT_BITS, round_significand
from tasks.numerics.integrated_gradients import Attributions, completeness_gap, within
from tasks.numerics.quadrature import Tolerances
from tasks.numerics.references import alibi_integrated_gradients
from tasks.parts.methods.comparison import (
    BEYOND_SAMPLE,
    Comparison,
    precision_error,
    relative_change,
    relative_difference,
)
from tasks.parts.methods.method import Audited, Recomputed, Work

__all__ = ["INTEGRATED_GRADIENTS_ROWS", "RULE", "RULE_NODES", "IntegratedGradientsRows", "round_attributions"]

# The rule that alibi has, too, and with which ours is compared; with so many nodes alibi's error is below REFERENCE_ERROR.
RULE, RULE_NODES, REFERENCE_NODES = "gausslegendre", 50, 512
CERTIFICATE_FACTOR, REFERENCE_ERROR = 2.0, 0.05
GAP_TOLERANCE = 1e-3
SCORE_TOLERANCE, RELATIVE_TOLERANCE = 1e-4, 1e-3


class IntegratedGradientsRows:
    """Integrated Gradients; see tasks.parts.methods.method for what its parts are."""

    stored = INTEGRATED_GRADIENTS
    audited = (
        f"Same rule is our engine against alibi 0.9.6, both Gauss-Legendre with {RULE_NODES} nodes. A stored attribution may "
        f"be off by {CERTIFICATE_FACTOR:g} times its quadrature_error, and by {REFERENCE_ERROR:g} for alibi's own error."
    )

    def explain(self, work: Work) -> Mapping[str, NDArray]:
        explainer = work.explainer
        attributions = explainer.integrated_gradients(
            work.images, work.baselines, work.targets, work.on_progress, endpoint=work.endpoint
        )
        if (bits := work.plan.integrated_gradients.keep_mantissa_bits) is not None:
            attributions = round_attributions(attributions, bits, explainer.settings.tolerances)
        return vars(attributions)

    def audit(self, audited: Audited) -> Iterator[Comparison]:
        explainer, store, rows = audited.explainer, audited.store, audited.rows
        ours = explainer.integrated_gradients(
            audited.images, audited.baselines, audited.labels, endpoint=audited.endpoint
        )
        same, fine = (_alibi(audited, n_steps) for n_steps in (RULE_NODES, REFERENCE_NODES))
        off = relative_difference(ours.attribution, same)
        yield Comparison("same rule", "ours and alibi", off, audited.tolerance, _zeros("alibi", same))
        stored, error = store.attributions(rows), store.values("quadrature_error", rows).astype(np.float64)
        yield Comparison(
            "certified",
            f"stored and alibi, {REFERENCE_NODES} nodes",
            relative_difference(stored, fine),
            CERTIFICATE_FACTOR * (error + precision_error(store)) + REFERENCE_ERROR,
            _zeros(f"alibi with {REFERENCE_NODES} nodes", fine),
        )
        difference = ours.score.astype(np.float64) - ours.score_baseline
        gap = stored.sum(axis=(1, 2, 3), dtype=np.float64) - difference
        off = np.abs(store.values("gap", rows).astype(np.float64) - gap)
        scores = np.maximum(1, np.abs(ours.score)) + np.maximum(1, np.abs(ours.score_baseline))
        allowed = GAP_TOLERANCE * np.maximum(1, np.abs(difference))
        allowed += BEYOND_SAMPLE * precision_error(store, "score") * scores
        yield Comparison("gap", "stored and anew", off, allowed)

    def recompute(self, recomputed: Recomputed) -> Iterator[Comparison]:
        names = ("score", "score_baseline", "quadrature_error", "n_gradients")
        stored, anew = (
            {name: values(name).astype(np.float64) for name in names}
            for values in (
                lambda name: recomputed.store.values(name, recomputed.rows, recomputed.target),
                lambda name: recomputed.anew[name],
            )
        )
        for name in ("score", "score_baseline"):
            tolerance = SCORE_TOLERANCE + BEYOND_SAMPLE * precision_error(recomputed.store, "score")
            allowed = tolerance * np.maximum(1, np.abs(anew[name]))
            yield Comparison(name, "difference", np.abs(stored[name] - anew[name]), allowed)
        other_cost = stored["n_gradients"] != anew["n_gradients"]
        errors = stored["quadrature_error"] + anew["quadrature_error"]
        off = np.where(other_cost, 0.0, np.abs(stored["quadrature_error"] - anew["quadrature_error"]))
        relative = RELATIVE_TOLERANCE + BEYOND_SAMPLE * precision_error(recomputed.store)
        yield Comparison("quadrature_error", "difference", off, relative)
        bits = recomputed.plan.integrated_gradients.keep_mantissa_bits or EXPLICIT_BITS
        allowed = relative + (0.0 if bits == EXPLICIT_BITS else 2.0**-bits) + np.where(other_cost, errors, 0.0)
        off = relative_change(
            recomputed.store.attributions(recomputed.rows, recomputed.target), recomputed.anew["attribution"]
        )
        yield Comparison("attribution", "relative L2 difference", off, allowed)


INTEGRATED_GRADIENTS_ROWS = IntegratedGradientsRows()


def round_attributions(attributions: Attributions, bits: int, tolerances: Tolerances) -> Attributions:
    """The attributions with `bits` explicit bits of the significand, and gap and converged of what is left."""
    attribution = round_significand(attributions.attribution, bits)
    difference = attributions.score.astype(np.float64) - attributions.score_baseline
    gap = completeness_gap(attribution, difference)
    converged = within(tolerances, gap, attributions.quadrature_error, difference)
    return dataclasses.replace(
        attributions, attribution=attribution, gap=gap.astype(np.float32), converged=converged.astype(np.uint8)
    )


def _alibi(audited: Audited, n_steps: int) -> NDArray[np.float32]:
    return alibi_integrated_gradients(
        audited.explainer.model, audited.images, audited.baselines, audited.labels,
        rule=RULE, n_steps=n_steps, batch_size=audited.explainer.settings.batch_size,
    )  # fmt: skip


def _zeros(name: str, reference: NDArray) -> str:
    return "" if reference.any() else name
