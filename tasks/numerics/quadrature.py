"""Quadrature of the path integral of Integrated Gradients: where the nodes go, and when there are enough.

    integral_0^1 f(a) da,    f(a) = (x - x') * dF/dx(x' + a (x - x')),    F(1) - F(0) = sum of the integral

f is a vector (a number a feature) and F, the score along the path, is known wherever f is. Two families of rules:

`Adaptive` is the trapezoid in u = a^(1/p) on panels that are halved where it pays. A panel knows its ends and its middle;
`fine` uses all three and `coarse` leaves the middle out, everywhere, so ||fine - coarse|| is the change at a doubling of the
nodes. A panel's claim to be halved is the larger the more it adds to that change, and the more its own part of the integral
misses the score's difference over it, which is known exactly. p = 3 crowds the first nodes to the baseline, where a network
goes from black to something; the halving finds the rest.

What was tried, in gradients an image and worst relative error on 16 Fashion-MNIST rows that nothing was tuned on, for three
networks: the notebook's, one without BatchNorm, and a residual one with swish. Printed, with more, by
`python tests/benchmarks/rules.py --rows 16 --epochs 1`; the losers are in trials.py beside it.

    this rule                      15.2 .128 |  8.0 .045 | 15.8 .046
    from 16 nodes, fraction 0.7    20.6 .117 | 16.0 .023 | 20.1 .046    as it was: dearer everywhere
    from 4 nodes                   14.0 .128 |  5.1 .090 | 15.0 .062    cheaper, but blind to more between the first nodes
    exponent 2                     14.4 .112 |  8.0 .044 | 16.6 .031    a draw
    exponent 4                     15.9 .117 |  8.0 .057 | 14.1 .064
    every claim halved             36.0 .117 |  8.0 .045 | 41.5 .046
    Simpson's rule                 16.2 .125 |  8.0 .056 | 16.1 .023    better only where no gradient jumps
    each panel made complete       15.2 .141 |  8.0 .053 | 13.2 .529    the gap vanishes, the error does not
    trapezoid in a                 14.5 .127 |  8.0 .048 | 17.6 .078
    claims of what fails only      14.8 .128 |  8.0 .045 | 15.4 .046    too little for what it adds
    Clenshaw-Curtis in u, nested   28.0 .113 |  8.5 .075 | 47.0 .087    doubles the whole path for one place
    Clenshaw-Curtis in a, nested   19.5 .107 |  9.0 .062 | 96.5 .098

The node a = 1 comes from the pass that gives prediction and Grad-CAM (endpoint.py). One way forward for both targets of a
misclassified row would make two gradients cost 1.47 instead of 2 (`python tests/benchmarks/sharing.py`, other work ran), but
only at its first nodes: 2.5 % of a night where a tenth of the rows is wrong, not worth a second kind of call.

`Fixed` is one of the rules of the notebook and of alibi, with weights that sum to one; its coarse result is the same rule with
half the nodes.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["FIXED_RULES", "Adaptive", "Fixed", "Integral", "Nodes", "Rule", "Tolerances", "fixed_rule"]

TINY = float(np.finfo(np.float32).tiny)
LEAST_GROWTH = 8  # at least one panel in so many is halved in a round, which bounds the number of rounds


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """When an integral is good enough: |gap| <= gap * max(1, |F(1) - F(0)|) and ||fine - coarse|| <= error * ||fine||."""

    gap: float = 0.05
    error: float = 0.2

    def __post_init__(self) -> None:
        if not (self.gap > 0 and self.error > 0):
            raise ValueError(f"tolerances must be positive, got gap {self.gap} and error {self.error}")


class Nodes(NamedTuple):
    """alphas: (node,) in [0, 1], 0 at the baseline. weights: (node,)."""

    alphas: NDArray[np.float64]
    weights: NDArray[np.float64]


class Integral(Protocol):
    """The integral of one row, while it is being computed.

    alphas: the nodes it waits for, (node,). fine, coarse: its two results so far, (feature,) float64.
    """

    alphas: NDArray[np.float64]
    fine: NDArray[np.float64]
    coarse: NDArray[np.float64]
    n_nodes: int

    def add(self, vectors: NDArray[np.float32], scores: NDArray[np.float32]) -> bool:
        """Takes f (node, feature) and F (node,) at the next of `alphas`, in their order; True when none is left to wait for."""
        ...

    def refine(self, tolerances: Tolerances) -> bool:
        """Asks for more nodes in `alphas`; False where the rule has no more to give."""
        ...


def _gausslegendre(n: int) -> Nodes:
    x, w = np.polynomial.legendre.leggauss(n)
    return Nodes((x + 1) / 2, w / 2)


def _riemann_trapezoid(n: int) -> Nodes:
    weights = np.full(n, 1 / (n - 1))
    weights[[0, -1]] /= 2
    return Nodes(np.linspace(0, 1, n), weights)


FIXED_RULES = {
    "gausslegendre": _gausslegendre,
    "riemann_left": lambda n: Nodes(np.arange(n) / n, np.full(n, 1 / n)),
    "riemann_right": lambda n: Nodes(np.arange(1, n + 1) / n, np.full(n, 1 / n)),
    "riemann_middle": lambda n: Nodes((np.arange(n) + 0.5) / n, np.full(n, 1 / n)),
    "riemann_trapezoid": _riemann_trapezoid,
}


def fixed_rule(rule: str, n: int) -> Nodes:
    """The n nodes of a fixed rule; the weights sum to one.

    Raises ValueError for an unknown rule, or for fewer nodes than the rule has.
    """
    if rule not in FIXED_RULES:
        raise ValueError(f"rule must be one of {', '.join(FIXED_RULES)}, got {rule!r}")
    least = 2 if rule == "riemann_trapezoid" else 1
    if n < least:
        raise ValueError(f"{rule} needs at least {least} node(s), got {n}")
    return FIXED_RULES[rule](n)


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """One of FIXED_RULES with n_steps nodes, and with half as many beside it for the error estimate."""

    rule: str = "gausslegendre"
    n_steps: int = 50

    def __post_init__(self) -> None:
        fixed_rule(self.rule, self.n_steps // 2)

    def integral(
        self, n_features: int, score: float, score_baseline: float, end: NDArray[np.float32] | None = None
    ) -> Integral:
        return _FixedIntegral(self, n_features)


class _FixedIntegral:
    def __init__(self, rule: Fixed, n_features: int):
        self.alphas, self._weights = _fine_and_coarse(rule)
        self.n_nodes = len(self.alphas)
        self.fine, self.coarse = np.zeros((2, n_features))

    def add(self, vectors: NDArray[np.float32], scores: NDArray[np.float32]) -> bool:
        now, self._weights = np.split(self._weights, [len(vectors)], axis=1)
        fine, coarse = now @ vectors
        self.fine += fine
        self.coarse += coarse
        return self._weights.shape[1] == 0

    def refine(self, tolerances: Tolerances) -> bool:
        return False


@lru_cache(maxsize=8)
def _fine_and_coarse(rule: Fixed) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The nodes of the rule and of its half, (node,), and the weights of both on them, (2, node)."""
    fine, coarse = fixed_rule(rule.rule, rule.n_steps), fixed_rule(rule.rule, rule.n_steps // 2)
    both = np.concatenate([fine.alphas, coarse.alphas]).round(14)
    alphas, which = np.unique(both, return_inverse=True)
    n = len(fine.alphas)
    weights = [np.bincount(which[:n], fine.weights, len(alphas)), np.bincount(which[n:], coarse.weights, len(alphas))]
    return alphas, np.stack(weights).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """The adaptive trapezoid in u = a^(1/exponent), from 2 n_start nodes to n_max.

    refine_fraction: how much of the panels' claims one round of halving satisfies; 1 halves all panels that have any.
    """

    exponent: int = 3
    n_start: int = 4
    n_max: int = 512
    refine_fraction: float = 0.5

    def __post_init__(self) -> None:
        least = 2 * self.n_start + (self.exponent == 1)
        if self.exponent < 1 or self.n_start < 1 or self.n_max < least or not 0 < self.refine_fraction <= 1:
            raise ValueError(
                "needs exponent >= 1, n_start >= 1, n_max >= 2 n_start (one more for exponent 1) and refine_fraction "
                "in (0, 1], got "
                f"exponent {self.exponent}, n_start {self.n_start}, n_max {self.n_max}, fraction {self.refine_fraction}"
            )

    def integral(
        self, n_features: int, score: float, score_baseline: float, end: NDArray[np.float32] | None = None
    ) -> Integral:
        """end: f(1), (feature,), where it is known: it counts as a node and is not asked for."""
        return _AdaptiveIntegral(self, n_features, score, score_baseline, end)


class _Node(NamedTuple):
    u: float
    vector: NDArray[np.float32]
    score: float


class _Panel:
    """[left, right] in u with its middle: the two results over it, their distance, and how far it misses the score."""

    __slots__ = ("change", "coarse", "fine", "left", "middle", "miss", "right")

    def __init__(self, left: _Node, middle: _Node, right: _Node):
        self.left, self.middle, self.right = left, middle, right
        width = np.float32(right.u - left.u)
        self.coarse = (left.vector + right.vector) * (width / 2)
        self.fine = self.coarse / 2 + middle.vector * (width / 2)
        difference = self.fine - self.coarse
        self.change = float(np.sqrt(difference @ difference))
        self.miss = abs(float(self.fine.sum(dtype=np.float64)) - (right.score - left.score))


class _AdaptiveIntegral:
    def __init__(
        self,
        rule: Adaptive,
        n_features: int,
        score: float,
        score_baseline: float,
        end: NDArray[np.float32] | None,
    ):
        self.rule, self.difference = rule, score - score_baseline
        self.fine, self.coarse = np.zeros((2, n_features))
        self._panels: list[_Panel] = []
        self._halved: list[_Panel] = []
        self._nodes: list[_Node] = []
        self._u = np.arange(2 * rule.n_start + 1) / (2 * rule.n_start)
        if rule.exponent > 1:  # f has no weight at u = 0, so it is not asked for and F is not needed there but as F(0)
            self._u = self._u[1:]
        self.n_nodes = len(self._u)
        self._end: list[_Node] = []
        if end is not None:
            self._end, self._u = [_Node(1.0, end * np.float32(rule.exponent), score)], self._u[:-1]
        self.alphas = self._u**rule.exponent

    def add(self, vectors: NDArray[np.float32], scores: NDArray[np.float32]) -> bool:
        here = self._u[len(self._nodes) :][: len(vectors)]
        slopes = (self.rule.exponent * here ** (self.rule.exponent - 1)).astype(np.float32)
        self._nodes += map(_Node, here.tolist(), vectors * slopes[:, None], scores.tolist())
        if len(self._nodes) < len(self._u):
            return False
        self._build()
        return True

    def _build(self) -> None:
        nodes, self._nodes = self._nodes + self._end, []
        self._end = []
        if self._halved:
            for panel, one, other in zip(self._halved, nodes[::2], nodes[1::2], strict=True):
                self._replace(panel, _Panel(panel.left, one, panel.middle), _Panel(panel.middle, other, panel.right))
            self._halved = []
            return
        if self.rule.exponent > 1:
            score_start = nodes[-1].score - self.difference
            nodes = [_Node(0.0, np.zeros_like(nodes[0].vector), score_start), *nodes]
        for triple in zip(nodes[:-2:2], nodes[1:-1:2], nodes[2::2], strict=True):
            self._replace(None, _Panel(*triple))

    def _replace(self, old: _Panel | None, *new: _Panel) -> None:
        if old is not None:
            self._panels.remove(old)
            self.fine -= old.fine
            self.coarse -= old.coarse
        for panel in new:
            self._panels.append(panel)
            self.fine += panel.fine
            self.coarse += panel.coarse

    def refine(self, tolerances: Tolerances) -> bool:
        affordable = (self.rule.n_max - self.n_nodes) // 2
        if affordable <= 0:
            return False
        norm = max(float(np.linalg.norm(self.fine)), TINY)
        allowed_miss = tolerances.gap * max(1.0, abs(self.difference))
        claims = np.array([p.change / norm / tolerances.error + p.miss / allowed_miss for p in self._panels])
        order = np.argsort(-claims, kind="stable")
        satisfied = np.cumsum(claims[order])
        n = int(np.searchsorted(satisfied, self.rule.refine_fraction * satisfied[-1])) + 1
        n = min(max(n, -(-len(claims) // LEAST_GROWTH)), len(claims), affordable)
        self._halved = [self._panels[k] for k in order[:n]]
        self._u = np.array(
            [(a.u + b.u) / 2 for p in self._halved for a, b in ((p.left, p.middle), (p.middle, p.right))]
        )
        self.alphas = self._u**self.rule.exponent
        self.n_nodes += len(self._u)
        return True


Rule = Adaptive | Fixed
