"""Audit: a few rows a night, computed again by other people's code.

Each method says what of it is compared, and what is allowed (tasks/parts/methods):

    same rule   our engine and alibi, both Gauss-Legendre with 50 nodes: the gradients and the sum are right
    certified   the stored attribution and alibi with 512 nodes: the certificate tells the truth
    gap         the stored gap and the one that the stored attribution and the model called anew give
    map         a stored map and the one that tf-explain's activations and gradients give
    logit map   our map and tf-explain's for the logit: the same code where no probability saturates

All but the gap are relative L2 differences ||ours - theirs|| / ||theirs||. Same rule and logit map must agree to
`rule_tolerance`. So must the map, but for the rounding of a probability: its gradient carries the factor 1 - p, which float32
knows to its epsilon only, and where the model is certain that is no number at all; the sum over filters makes that rounding up
to CANCELLATION times as large.
A stored attribution may be off by twice its quadrature_error, and by REFERENCE_ERROR for what 512 Gauss-Legendre nodes leave
over themselves. What is computed here is float32. What is stored in bfloat16 or tf32 may be off by more: attributions by twice
what the night measured of that on its sample, maps and the scores under the gap by BEYOND_SAMPLE times that.
A reference that is zero for every row is a failure: alibi 0.5.5 returns such zeros without a word.
"""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from storage import open_store
from tasks.config import AuditConfig
from tasks.models.registry import load_model
from tasks.numerics.quadrature import Fixed
from tasks.numerics.references import missing_references
from tasks.pages.figures.page_figures import audit_figure, text_figure
from tasks.pages.page import Page, escape
from tasks.parts.explained_rows import baselines_for
from tasks.parts.methods import Audited, Comparison, Method, methods_of
from tasks.parts.methods.integrated_gradients_rows import RULE, RULE_NODES
from tasks.parts.plan import Plan
from tasks.parts.precision_sample import float32_beside

__all__ = ["Audit", "AuditError", "AuditedRow", "Check", "audit_store", "compare"]


class AuditError(RuntimeError):
    """Rows whose recomputation by other code does not agree."""


class Check(BaseModel):
    """One comparison of one row, and what was compared with what. A difference that is no number has not passed."""

    model_config = ConfigDict(frozen=True)

    about: str
    difference: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.allowed

    @property
    def share(self) -> float:
        """The difference over what is allowed for it."""
        return 0.0 if self.difference <= 0 or np.isinf(self.allowed) else self.difference / self.allowed


class AuditedRow(BaseModel):
    """The comparisons of one row by name; those of maps only where there are maps, of logits where they can be reached."""

    model_config = ConfigDict(frozen=True)

    row: int
    checks: dict[str, Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks.values())


class Audit(BaseModel):
    """verdict: "passed", "failed", or "not audited: ..." with the reason."""

    model_config = ConfigDict(frozen=True)

    verdict: str
    rows: tuple[AuditedRow, ...] = ()
    zero_references: tuple[str, ...] = ()


@task(name="audit")
def audit_store(plan: Plan, store: Path, config: AuditConfig, seed: int) -> Audit:
    """Recomputes `config.n_rows` random rows and publishes the comparison as the artifact `audit`.

    Raises AuditError naming the rows that do not agree.
    """
    missing, methods = missing_references(), methods_of(maps=bool(plan.layer))
    if config.n_rows == 0 or missing:
        why = f"{', '.join(missing)} not installed (extra 'reference')" if missing else "switched off (n_rows is 0)"
        result = Audit(verdict=f"not audited: {why}")
    else:
        result = compare(plan, store, config, seed, methods)
    get_run_logger().info("audit: %s", result.verdict)
    _publish(result, config, methods)
    if result.verdict == "failed":
        rows = [row.row for row in result.rows if not row.passed]
        raise AuditError(
            "the audit failed: "
            + "; ".join([f"rows {rows} differ beyond tolerance"] * bool(rows) + list(result.zero_references))
            + "; the artifact `audit` has the numbers. The store is kept, `latest` stays where it was"
        )
    return result


def compare(plan: Plan, store: Path, config: AuditConfig, seed: int, methods: tuple[Method, ...]) -> Audit:
    """The comparison of random rows of a sealed store with other people's code. seed: of the choice of rows."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(np.arange(plan.start, plan.stop), min(config.n_rows, plan.n_rows), replace=False))
    rule = Fixed(rule=RULE, n_steps=RULE_NODES)
    settings = dataclasses.replace(plan.settings(), rule=rule, ig_engine="nightlens", cam_engine="nightlens")
    network = load_model(plan.model.path, plan.model.code)
    explainer = float32_beside(network, settings)
    with open_store(store) as sealed:
        images, labels = sealed.image[rows].astype(np.float32) / 255, sealed.values("label", rows)
        audited = Audited(
            plan=plan,
            store=sealed,
            rows=rows,
            network=network,
            explainer=explainer,
            images=images,
            baselines=baselines_for(plan, images),
            labels=labels,
            endpoint=explainer.endpoint(images, labels),
            tolerance=config.rule_tolerance,
        )
        found = [comparison for method in methods for comparison in method.audit(audited)]
    checked = tuple(AuditedRow(row=int(row), checks=_checks(found, k)) for k, row in enumerate(rows))
    zeros = tuple(
        f"{c.zero_reference} returned zeros for all of rows {rows.tolist()}" for c in found if c.zero_reference
    )
    passed = not zeros and all(row.passed for row in checked)
    return Audit(verdict="passed" if passed else "failed", rows=checked, zero_references=zeros)


def _checks(comparisons: list[Comparison], k: int) -> dict[str, Check]:
    """Of the row at position k."""
    return {
        each.name: Check(
            about=each.about,
            difference=float(each.off[k]),
            allowed=float(np.broadcast_to(each.allowed, each.off.shape)[k]),
        )
        for each in comparisons
    }


def _figure(rows: tuple[AuditedRow, ...]) -> Figure:
    if not rows:
        return text_figure("not audited")
    shares = {name: [row.checks[name].share for row in rows] for name in rows[0].checks}
    return audit_figure(shares, [row.row for row in rows])


def _publish(result: Audit, config: AuditConfig, methods: tuple[Method, ...]) -> None:
    page = Page("audit", "Look for a row that did not pass: a few rows computed again by other people's code.")
    page.heading(f"Audit: {result.verdict}")
    for zero in result.zero_references:
        page.text(f"**Failed:** {escape(zero)}")
    page.figure(partial(_figure, result.rows), "Differences over what is allowed", thumbnail=True)
    page.table(
        [
            {
                "row": row.row,
                **{
                    f"{name}: {check.about}": f"{check.difference:.2g} of {check.allowed:.2g}"
                    for name, check in row.checks.items()
                },
                "passed": "yes" if row.passed else "NO",
            }
            for row in result.rows
        ]
    )
    page.text(
        "Each number is a relative L2 difference, but for the gap, of what is allowed; the same arithmetic may differ by "
        f"{config.rule_tolerance:g}. {' '.join(method.audited for method in methods)}"
    )
    page.publish()
