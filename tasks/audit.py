"""Audit: a few rows a night, computed again by other people's code.

Five comparisons a row; all but the gap are relative L2 differences ||ours - theirs|| / ||theirs||:

    same rule   our engine and alibi, both Gauss-Legendre with 50 nodes: the gradients and the sum are right
    certified   the stored attribution and alibi with 512 nodes: the certificate tells the truth
    gap         the stored gap and the one that the stored attribution and the model called anew give
    map         the stored Grad-CAM map and tf-explain's, ReLU applied
    logit map   our Grad-CAM and tf-explain's for the logit: the same code where no probability saturates

Same rule and logit map must agree to `rule_tolerance`. So must the map, but for the rounding of a probability: its gradient
carries the factor 1 - p, which float32 knows to its epsilon only, and where the model is certain that is no number at all; the
sum over filters makes that rounding up to CANCELLATION times as large.
A stored attribution may be off by twice its quadrature_error, and by REFERENCE_ERROR for what 512 Gauss-Legendre nodes leave
over themselves; one in bfloat16 also by twice what the night measured of that. A reference that is zero for every row is a
failure: alibi 0.5.5 returns such zeros without a word.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from storage import AttributionStore, open_store
from tasks.config import AuditConfig
from tasks.models.registry import load_model
from tasks.numerics.explainer import Explainer, Method
from tasks.numerics.quadrature import Fixed
from tasks.numerics.references import alibi_integrated_gradients, missing_references, tf_explain_grad_cam
from tasks.pages.page import Page, escape
from tasks.pages.page_figures import audit_figure, text_figure
from tasks.parts.explained_rows import baselines_for
from tasks.parts.plan import Plan

__all__ = ["Audit", "AuditError", "AuditedRow", "audit_store", "probability_rounding", "relative_difference"]

RULE, RULE_NODES, REFERENCE_NODES = "gausslegendre", 50, 512
CERTIFICATE_FACTOR, REFERENCE_ERROR = 2.0, 0.05
GAP_TOLERANCE = 1e-3
FLOAT32_EPS = float(np.finfo(np.float32).eps)
LEAST_EPSILONS = 8
# A map sums over filters of both signs: of the gradient much cancels, of its rounding nothing. Five times as much was seen.
CANCELLATION = 8.0


class AuditError(RuntimeError):
    """Rows whose recomputation by other code does not agree."""


class AuditedRow(BaseModel):
    """The differences of one row, each with what is allowed.

    map is None in a night without Grad-CAM, logit_map there and where the model's logits cannot be reached.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    same_rule: float
    same_rule_allowed: float
    certified: float
    certified_allowed: float
    gap: float
    gap_allowed: float
    map: float | None
    map_allowed: float
    logit_map: float | None
    logit_map_allowed: float

    @property
    def passed(self) -> bool:
        return (
            self.same_rule <= self.same_rule_allowed
            and self.certified <= self.certified_allowed
            and self.gap <= self.gap_allowed
            and (self.map is None or self.map <= self.map_allowed)
            and (self.logit_map is None or self.logit_map <= self.logit_map_allowed)
        )


class Audit(BaseModel):
    """verdict: "passed", "failed", or "not audited: ..." with the reason."""

    model_config = ConfigDict(frozen=True)

    verdict: str
    rows: tuple[AuditedRow, ...] = ()
    zero_references: tuple[str, ...] = ()


def relative_difference(ours: NDArray, theirs: NDArray) -> NDArray[np.float64]:
    """||ours - theirs|| / ||theirs|| of each row, (row,): 0 where both are zero, infinite where only theirs is."""
    axes = tuple(range(1, ours.ndim))
    difference = np.sqrt(np.square(ours.astype(np.float64) - theirs).sum(axes))
    norm = np.sqrt(np.square(theirs.astype(np.float64)).sum(axes))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / norm)


@task(name="audit")
def audit_store(plan: Plan, store: Path, config: AuditConfig, seed: int) -> Audit:
    """Recomputes `config.n_rows` random rows and publishes the comparison as the artifact `audit`.

    Raises AuditError naming the rows that do not agree.
    """
    missing = missing_references()
    if config.n_rows == 0 or missing:
        why = f"{', '.join(missing)} not installed (extra 'reference')" if missing else "switched off (n_rows is 0)"
        result = Audit(verdict=f"not audited: {why}")
    else:
        result = compare(plan, store, config, seed)
    get_run_logger().info("audit: %s", result.verdict)
    _publish(result, config)
    if result.verdict == "failed":
        rows = [row.row for row in result.rows if not row.passed]
        raise AuditError(
            "the audit failed: "
            + "; ".join([f"rows {rows} differ beyond tolerance"] * bool(rows) + list(result.zero_references))
            + "; the artifact `audit` has the numbers. The store is kept, `latest` stays where it was"
        )
    return result


def compare(plan: Plan, store: Path, config: AuditConfig, seed: int) -> Audit:
    """The comparison of random rows of a sealed store with alibi and tf-explain. seed: of the choice of rows."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(np.arange(plan.start, plan.stop), min(config.n_rows, plan.n_rows), replace=False))
    with open_store(store) as sealed:
        images, labels = sealed.image[rows].astype(np.float32) / 255, sealed.labels[rows - plan.start]
        stored, certificate = sealed.attributions(rows), sealed.certificate().loc[rows]
        maps = sealed.maps(rows) if plan.layer else None
        of_precision = precision_error(sealed)
    baselines = baselines_for(plan, images)
    method = dataclasses.replace(
        plan.method(),
        rule=Fixed(rule=RULE, n_steps=RULE_NODES),
        precision="float32",
        ig_engine="nightlens",
        cam_engine="nightlens",
    )
    network = load_model(plan.model.path, plan.model.code)
    explainer = Explainer(network, method)
    endpoint = explainer.endpoint(images, labels)
    ours = explainer.integrated_gradients(images, baselines, labels, endpoint=endpoint)
    same, fine = (
        alibi_integrated_gradients(
            explainer.model, images, baselines, labels, rule=RULE, n_steps=n_steps, batch_size=method.batch_size
        )
        for n_steps in (RULE_NODES, REFERENCE_NODES)
    )
    raw = tf_explain_grad_cam(explainer.activations_model(), images, labels) if plan.layer else None
    difference = ours.score.astype(np.float64) - ours.score_baseline
    gap = stored.sum(axis=(1, 2, 3), dtype=np.float64) - difference
    n, strict = len(rows), config.rule_tolerance
    logit_map = _logit_map(plan, network, method, images, labels)
    columns = {
        "same_rule": relative_difference(ours.attribution, same),
        "same_rule_allowed": np.full(n, strict),
        "certified": relative_difference(stored, fine),
        "certified_allowed": CERTIFICATE_FACTOR * certificate["quadrature_error"].to_numpy(np.float64)
        + REFERENCE_ERROR
        + CERTIFICATE_FACTOR * of_precision,
        "gap": np.abs(certificate["gap"].to_numpy(np.float64) - gap),
        "gap_allowed": GAP_TOLERANCE * np.maximum(1, np.abs(difference)),
        "map": np.full(n, np.nan) if raw is None or maps is None else relative_difference(maps, np.maximum(raw, 0)),
        "map_allowed": strict + _rounding(method.score, endpoint.probabilities, labels),
        "logit_map_allowed": np.full(n, strict),
    }
    audited = tuple(
        AuditedRow(
            row=int(row),
            logit_map=None if logit_map is None else float(logit_map[k]),
            map=float(columns["map"][k]) if plan.layer else None,
            **{name: float(values[k]) for name, values in columns.items() if name != "map"},
        )
        for k, row in enumerate(rows)
    )
    references = [("alibi", same), (f"alibi with {REFERENCE_NODES} nodes", fine)]
    references += [] if raw is None else [("tf-explain", raw)]
    zeros = tuple(
        f"{name} returned zeros for all of rows {rows.tolist()}"
        for name, reference in references
        if not reference.any()
    )
    passed = not zeros and all(row.passed for row in audited)
    return Audit(verdict="passed" if passed else "failed", rows=audited, zero_references=zeros)


def precision_error(store: AttributionStore) -> float:
    """The largest relative error of the store's attributions that comes from computing in bfloat16, as it was measured."""
    measured: Any = store.attributes["precision_error"]
    return float(measured["max"]) if measured else 0.0


def _logit_map(
    plan: Plan, network: keras.Model, method: Method, images: NDArray, labels: NDArray
) -> NDArray[np.float64] | None:
    if not plan.layer or not plan.contract.logits:
        return None
    explainer = Explainer(network, dataclasses.replace(method, score="logit"))
    theirs = tf_explain_grad_cam(explainer.activations_model(), images, labels)
    return relative_difference(explainer.endpoint(images, labels).maps, np.maximum(theirs, 0))


def _rounding(score: str, probabilities: NDArray, labels: NDArray) -> NDArray[np.float64]:
    if score == "logit":
        return np.zeros(len(labels))
    return CANCELLATION * probability_rounding(probabilities, labels)


def probability_rounding(probabilities: NDArray, targets: NDArray) -> NDArray[np.float64]:
    """How far two right answers for the gradient of the target's probability p may differ, relative to either.

    That gradient has the factor 1 - p, which each knows to float32's epsilon: 2 epsilon / (1 - p), and infinite where
    1 - p is so few epsilons that not even its order of magnitude is known.
    probabilities: (row, class) float32. targets: (row,). Returns (row,).
    """
    others = probabilities.astype(np.float64)
    others[np.arange(len(others)), targets] = 0
    rest = others.sum(axis=1)
    known = rest > LEAST_EPSILONS * FLOAT32_EPS
    return np.where(known, 2 * FLOAT32_EPS / np.where(known, rest, 1), np.inf)


def _figure(rows: tuple[AuditedRow, ...]) -> Figure:
    if not rows:
        return text_figure("not audited")
    kinds = {"same rule": "same_rule", "certified": "certified", "gap": "gap", "map": "map", "logit map": "logit_map"}
    shares = {kind: [share for row in rows if (share := _share(row, name)) is not None] for kind, name in kinds.items()}
    return audit_figure({kind: values for kind, values in shares.items() if values}, [row.row for row in rows])


def _share(row: AuditedRow, name: str) -> float | None:
    """A difference over what is allowed for it."""
    came, allowed = getattr(row, name), getattr(row, f"{name}_allowed")
    return None if came is None else 0.0 if came <= 0 or np.isinf(allowed) else came / allowed


def _publish(result: Audit, config: AuditConfig) -> None:
    page = Page("audit", "Look for a row that did not pass: a few rows computed again by other people's code.")
    page.heading(f"Audit: {result.verdict}")
    for zero in result.zero_references:
        page.text(f"**Failed:** {escape(zero)}")
    page.figure(partial(_figure, result.rows), "Differences over what is allowed", thumbnail=True)
    page.table(
        [
            {
                "row": row.row,
                "same rule: ours and alibi": f"{row.same_rule:.2g}",
                "stored and alibi, 512 nodes": f"{row.certified:.2g}",
                "allowed by its certificate": f"{row.certified_allowed:.2g}",
                "gap: stored and anew": f"{row.gap:.2g}",
                "map: stored and tf-explain": "no Grad-CAM" if row.map is None else f"{row.map:.2g}",
                "allowed for the map": f"{row.map_allowed:.2g}",
                "logit map": "none" if row.logit_map is None else f"{row.logit_map:.2g}",
                "passed": "yes" if row.passed else "NO",
            }
            for row in result.rows
        ]
    )
    page.text(
        "Numbers are relative L2 differences, but for the gap. Same rule is our engine against alibi 0.9.6, both "
        f"Gauss-Legendre with {RULE_NODES} nodes (allowed {config.rule_tolerance:g}). A stored attribution may be off by "
        f"{CERTIFICATE_FACTOR:g} times its quadrature_error and {REFERENCE_ERROR:g} for alibi's own error. "
        "A stored map may be off by float32 rounding, which is large where the model is certain; the logit map, our "
        "Grad-CAM against tf-explain's where nothing saturates, may not."
    )
    page.publish()
