"""Quadrature rules that were tried against the product's and lost, or drew: kept so that anyone can measure them again.

`Trial` is the adaptive trapezoid of tasks/numerics/quadrature.py with one thing changed, `ClenshawCurtis` a rule over the whole
path. They are written for clarity: every node is kept, and everything is computed anew in each round.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.numerics.quadrature import LEAST_GROWTH, TINY, Tolerances

__all__ = ["ClenshawCurtis", "Trial"]

MOST_STRETCH = 3.0  # a node's weight is corrected by no more than this factor


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A rule, as `integrate` takes it.

    result: of a panel's three nodes. "trapezoid": as the product. "simpson": Simpson's rule, judged by the trapezoids' change.
        "complete": the trapezoid with its weights changed least, in proportion to each node's slope of the score, so that the
        panel's sum is the score's difference.
    variable: "u": the trapezoid in u = a^(1/exponent). "a": the trapezoid in a itself, on the same nodes.
    claims: "all": of change and miss, added. "failing": only of what is not within its tolerance yet, the change squared, and
        misses only on the side of the whole gap.
    """

    exponent: int = 3
    n_start: int = 4
    n_max: int = 512
    refine_fraction: float = 0.5
    result: Literal["trapezoid", "simpson", "complete"] = "trapezoid"
    variable: Literal["u", "a"] = "u"
    claims: Literal["all", "failing"] = "all"

    def integral(
        self, n_features: int, score: float, score_baseline: float, end: NDArray[np.float32] | None = None
    ) -> "TrialIntegral":
        return TrialIntegral(self, n_features, score, score_baseline)


@dataclass(frozen=True)
class _Node:
    u: float
    vector: NDArray[np.float64]
    score: float


@dataclass(frozen=True)
class _Panel:
    left: float
    right: float
    fine: NDArray[np.float64]
    coarse: NDArray[np.float64]
    miss: float

    @property
    def change(self) -> float:
        return float(np.linalg.norm(self.fine - self.coarse))


class TrialIntegral:
    """The integral of one row by a trial. `fine` and `coarse` are judged, as those of the product."""

    def __init__(self, rule: Trial, n_features: int, score: float, score_baseline: float):
        self.rule, self.difference = rule, score - score_baseline
        self._ends = np.arange(rule.n_start + 1) / rule.n_start
        self._nodes = {0.0: _Node(0.0, np.zeros(n_features), score_baseline)}
        self._ask(np.arange(1, 2 * rule.n_start + 1) / (2 * rule.n_start))
        self.n_nodes = len(self._u)
        self.fine = self.coarse = np.zeros(n_features)

    def _ask(self, u: NDArray[np.float64]) -> None:
        self._u, self._n_got, self.alphas = u, 0, u**self.rule.exponent

    def add(self, vectors: NDArray[np.float32], scores: NDArray[np.float32]) -> bool:
        here = self._u[self._n_got :][: len(vectors)]
        self._n_got += len(here)
        for u, vector, score in zip(here.tolist(), vectors.astype(np.float64), scores.tolist(), strict=True):
            slope = self.rule.exponent * u ** (self.rule.exponent - 1) if self.rule.variable == "u" else 1.0
            self._nodes[u] = _Node(u, vector * slope, score)
        if self._n_got < len(self._u):
            return False
        self._panels = [
            self._panel(a, b) for a, b in zip(self._ends[:-1].tolist(), self._ends[1:].tolist(), strict=True)
        ]
        self.fine = sum((panel.fine for panel in self._panels), np.zeros(len(vectors[0])))
        self.coarse = sum((panel.coarse for panel in self._panels), np.zeros(len(vectors[0])))
        return True

    def _panel(self, left: float, right: float) -> _Panel:
        nodes = [self._nodes[u] for u in (left, (left + right) / 2, right)]
        a, middle, b = (node.u if self.rule.variable == "u" else node.u**self.rule.exponent for node in nodes)
        vectors = np.stack([node.vector for node in nodes])
        if (
            self.rule.variable == "a" and left == 0
        ):  # the baseline's own gradient is not asked for: its neighbour's instead
            vectors[0] = vectors[1]
        weights = np.array([middle - a, b - a, b - middle]) / 2
        fine, coarse = weights @ vectors, (b - a) / 2 * (vectors[0] + vectors[2])
        miss = float(fine.sum()) - (nodes[2].score - nodes[0].score)
        if self.rule.result == "simpson":
            change = fine - coarse
            fine = fine + change / 3
            coarse = fine - change
        elif self.rule.result == "complete":
            change, fine = fine - coarse, _complete(weights, vectors, -miss)
            coarse = fine - change
        return _Panel(left, right, fine, coarse, miss)

    def refine(self, tolerances: Tolerances) -> bool:
        affordable = (self.rule.n_max - self.n_nodes) // 2
        if affordable <= 0:
            return False
        claims = self._claims(tolerances)
        order = np.argsort(-claims, kind="stable")
        satisfied = np.cumsum(claims[order])
        n = int(np.searchsorted(satisfied, self.rule.refine_fraction * satisfied[-1])) + 1
        n = min(max(n, -(-len(claims) // LEAST_GROWTH)), len(claims), affordable)
        halved = [(self._panels[k].left, self._panels[k].right) for k in order[:n]]
        middles = [(a + b) / 2 for a, b in halved]
        self._ask(np.array([(end + m) / 2 for m, ends in zip(middles, halved, strict=True) for end in ends]))
        self._ends = np.sort(np.concatenate([self._ends, middles]))
        self.n_nodes += len(self._u)
        return True

    def _claims(self, tolerances: Tolerances) -> NDArray[np.float64]:
        norm = max(float(np.linalg.norm(self.fine)), TINY)
        changes = np.array([panel.change for panel in self._panels]) / norm / tolerances.error
        misses = np.array([panel.miss for panel in self._panels]) / (tolerances.gap * max(1.0, abs(self.difference)))
        if self.rule.claims == "all":
            return changes + abs(misses)
        gap, error = misses.sum(), float(np.linalg.norm(self.fine - self.coarse)) / norm / tolerances.error
        claims = changes**2 * (error > 1) + np.maximum(0, misses * np.sign(gap)) * (abs(gap) > 1)
        return claims if claims.any() else changes + abs(misses)


def _complete(weights: NDArray, vectors: NDArray, lacking: float) -> NDArray[np.float64]:
    slopes = vectors.sum(axis=1)
    power = float((weights * slopes**2).sum())
    stretch = 1 + (lacking / power if power > TINY else 0.0) * slopes
    return (weights * np.clip(stretch, 1 / MOST_STRETCH, MOST_STRETCH)) @ vectors


@dataclass(frozen=True, kw_only=True)
class ClenshawCurtis:
    """Clenshaw and Curtis's rule in u = a^(1/exponent), whose nodes are among those of twice as many: from n_start, doubled.

    The polynomial through the values at u_k = (1 - cos(k pi / n)) / 2 is integrated exactly, and judged by that of n / 2.
    """

    exponent: int = 3
    n_start: int = 8
    n_max: int = 512

    def integral(
        self, n_features: int, score: float, score_baseline: float, end: NDArray[np.float32] | None = None
    ) -> "ClenshawCurtisIntegral":
        return ClenshawCurtisIntegral(self, n_features)


class ClenshawCurtisIntegral:
    """The integral of one row by nested Clenshaw-Curtis rules."""

    def __init__(self, rule: ClenshawCurtis, n_features: int):
        self.rule, self._n, self.n_nodes = rule, rule.n_start, 0
        self._values = {0.0: np.zeros(n_features)} if rule.exponent > 1 else {}
        self.fine = self.coarse = np.zeros(n_features)
        self._ask()

    def _ask(self) -> None:
        self._u = np.array([u for u in clenshaw_curtis(self._n)[0].tolist() if u not in self._values])
        self.alphas, self._n_got = self._u**self.rule.exponent, 0
        self.n_nodes += len(self._u)

    def add(self, vectors: NDArray[np.float32], scores: NDArray[np.float32]) -> bool:
        here = self._u[self._n_got :][: len(vectors)]
        self._n_got += len(here)
        for u, vector in zip(here.tolist(), vectors.astype(np.float64), strict=True):
            self._values[u] = vector * self.rule.exponent * u ** (self.rule.exponent - 1)
        if self._n_got < len(self._u):
            return False
        self.fine, self.coarse = (self._integrate(n) for n in (self._n, self._n // 2))
        return True

    def _integrate(self, n: int) -> NDArray[np.float64]:
        nodes, weights = clenshaw_curtis(n)
        return weights @ np.stack([self._values[u] for u in nodes.tolist()])

    def refine(self, tolerances: Tolerances) -> bool:
        if 2 * self._n > self.rule.n_max:
            return False
        self._n *= 2
        self._ask()
        return True


def clenshaw_curtis(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The n + 1 nodes in [0, 1] and their weights, n even. Nodes are rounded, so that those of n are among those of 2 n."""
    k, j = np.arange(n + 1), np.arange(1, n // 2 + 1)
    ends, last = np.where((k == 0) | (k == n), 1, 2), np.where(j == n // 2, 1, 2)
    weights = ends / n * (1 - (last / (4 * j**2 - 1) * np.cos(2 * np.outer(k, j) * np.pi / n)).sum(axis=1)) / 2
    return ((1 - np.cos(k * np.pi / n)) / 2).round(12), weights
