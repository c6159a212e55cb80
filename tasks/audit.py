"""Audit: a few rows a night, computed again by other people's code.

Three comparisons a row, each a relative L2 difference ||ours - theirs|| / ||theirs||:

    same rule   our engine and alibi, both Gauss-Legendre with 50 nodes: the gradients and the sum are right
    certified   the stored attribution and alibi with 512 nodes: the certificate tells the truth
    map         the stored Grad-CAM map and tf-explain's, ReLU applied

The first and the last must agree to `rule_tolerance`, the map also to float32's rounding of a saturated probability. A
stored attribution may be off by twice its quadrature_error, and by REFERENCE_ERROR for what 512 Gauss-Legendre nodes leave
over themselves. A reference that is all zero where we are not, or zero for every row, is a failure: alibi 0.5.5 returns such
zeros without a word.
"""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from storage import open_store
from tasks.artifacts import Page, escape
from tasks.config import AuditConfig
from tasks.explain import baselines_for
from tasks.numerics.explainer import Explainer
from tasks.numerics.quadrature import Fixed
from tasks.numerics.references import alibi_integrated_gradients, missing_references, tf_explain_grad_cam
from tasks.plan import Plan
from tasks.registry import load_model

__all__ = ["Audit", "AuditError", "AuditedRow", "audit_store", "relative_difference"]

RULE, RULE_NODES, REFERENCE_NODES = "gausslegendre", 50, 512
CERTIFICATE_FACTOR, REFERENCE_ERROR = 2.0, 0.05
FLOAT32_EPS = float(np.finfo(np.float32).eps)


class AuditError(RuntimeError):
    """Rows whose recomputation by other code does not agree."""


class AuditedRow(BaseModel):
    """The three differences of one row, each with what is allowed."""

    model_config = ConfigDict(frozen=True)

    row: int
    same_rule: float
    same_rule_allowed: float
    certified: float
    certified_allowed: float
    map: float
    map_allowed: float

    @property
    def passed(self) -> bool:
        return (
            self.same_rule <= self.same_rule_allowed
            and self.certified <= self.certified_allowed
            and self.map <= self.map_allowed
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
        stored, maps = sealed.attributions(rows), sealed.maps(rows)
        errors = sealed.certificate()["quadrature_error"].loc[rows].to_numpy(np.float64)
    baselines = baselines_for(plan, images)
    method = dataclasses.replace(
        plan.method(), rule=Fixed(rule=RULE, n_steps=RULE_NODES), ig_engine="nightlens", cam_engine="nightlens"
    )
    explainer = Explainer(load_model(plan.model.path), method)
    ours = explainer.integrated_gradients(images, baselines, labels).attribution
    same, fine = (
        alibi_integrated_gradients(
            explainer.model, images, baselines, labels, rule=RULE, n_steps=n_steps, batch_size=method.batch_size
        )
        for n_steps in (RULE_NODES, REFERENCE_NODES)
    )
    raw = tf_explain_grad_cam(explainer.model, plan.layer, images, labels)
    columns = {
        "same_rule": relative_difference(ours, same),
        "same_rule_allowed": np.full(len(rows), config.rule_tolerance),
        "certified": relative_difference(stored, fine),
        "certified_allowed": CERTIFICATE_FACTOR * errors + REFERENCE_ERROR,
        "map": relative_difference(maps, np.maximum(raw, 0)),
        "map_allowed": config.rule_tolerance + _rounding(explainer, images, labels),
    }
    audited = tuple(
        AuditedRow(row=int(row), **{name: float(values[k]) for name, values in columns.items()})
        for k, row in enumerate(rows)
    )
    zeros = tuple(
        f"{name} returned zeros for all of rows {rows.tolist()}"
        for name, reference in (("alibi", same), ("tf-explain", raw))
        if not reference.any()
    )
    passed = not zeros and all(row.passed for row in audited)
    return Audit(verdict="passed" if passed else "failed", rows=audited, zero_references=zeros)


def _rounding(explainer: Explainer, images: NDArray, labels: NDArray) -> NDArray[np.float64]:
    # The gradient of a probability p carries the factor 1 - p, and float32 knows 1 - p only to its own epsilon: two right
    # answers for a saturated image differ by epsilon / (1 - p).
    if explainer.method.score == "logit":
        return np.zeros(len(images))
    others = explainer.probabilities(images).astype(np.float64)
    others[np.arange(len(images)), labels] = 0
    return FLOAT32_EPS / np.maximum(others.sum(axis=1), FLOAT32_EPS)


def _publish(result: Audit, config: AuditConfig) -> None:
    page = Page("audit", "A few rows computed again by other people's code. Look for a row that did not pass.")
    page.heading(f"Audit: {result.verdict}")
    for zero in result.zero_references:
        page.text(f"**Failed:** {escape(zero)}")
    page.table(
        [
            {
                "row": row.row,
                "same rule: ours and alibi": row.same_rule,
                "stored and alibi, 512 nodes": row.certified,
                "allowed by its certificate": row.certified_allowed,
                "map: stored and tf-explain": row.map,
                "allowed for the map": row.map_allowed,
                "passed": "yes" if row.passed else "NO",
            }
            for row in result.rows
        ]
    )
    page.text(
        "Numbers are relative L2 differences. Same rule is our engine against alibi 0.9.6, both Gauss-Legendre with "
        f"{RULE_NODES} nodes (allowed {config.rule_tolerance:g}). A stored attribution may be off by "
        f"{CERTIFICATE_FACTOR:g} times its quadrature_error and {REFERENCE_ERROR:g} for alibi's own error. "
        "A map may be off by float32 rounding, which is large where the model is certain."
    )
    page.publish()
