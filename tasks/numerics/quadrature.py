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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FIXED_RULES",
    "Adaptive",
    "Fixed",
    "Nodes",
    "Rule",
    "Tolerances",
    "fine_and_coarse",
    "fixed_rule",
    "order_to_halve",
]

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


@lru_cache(maxsize=8)
def fine_and_coarse(rule: Fixed) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
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


def order_to_halve(
    claims: NDArray[np.float64], n_panels: NDArray[np.int64], affordable: NDArray[np.int64], fraction: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which panels of rows are halved in a round: each row's in the order of their claims, (row, panel), and how many, (row,).

    claims: (row, panel), 0 beyond a row's n_panels, (row,). affordable: (row,), at most so many. fraction: of a row's claims
    that is to be satisfied.
    """
    width = claims.shape[1]
    there = np.arange(width) < n_panels[:, None]
    order = np.argsort(np.where(there, -claims, np.inf), axis=1, kind="stable")
    satisfied = np.cumsum(np.take_along_axis(claims, order, axis=1), axis=1)
    wanted = ((satisfied < fraction * satisfied[:, -1:]) & there).sum(axis=1) + 1
    least = -(-n_panels // LEAST_GROWTH)
    return order, np.minimum(np.minimum(np.maximum(wanted, least), n_panels), affordable)


Rule = Adaptive | Fixed
