"""Integrated Gradients as it is written down, a row and a node at a time: the engine's slow twin.

Every node's vector is on the host, panels are objects, and nothing is on a device. The engine must give the same numbers to
rounding; trials of other rules (tests/benchmarks/trials.py) run here.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.numerics.integrated_gradients import Attributions, certify
from tasks.numerics.quadrature import LEAST_GROWTH, TINY, Adaptive, Fixed, Tolerances, fine_and_coarse

__all__ = ["Integral", "integral_of", "integrate"]


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


def integral_of(
    rule: Any, n_features: int, score: float, score_baseline: float, end: NDArray[np.float32] | None = None
) -> Integral:
    """The integral of one row by a rule of the product, or by a trial. end: f(1), (feature,), where it is known."""
    if isinstance(rule, Adaptive):
        return _AdaptiveIntegral(rule, n_features, score, score_baseline, end)
    if isinstance(rule, Fixed):
        return _FixedIntegral(rule, n_features)
    return rule.integral(n_features, score, score_baseline, end)


class _FixedIntegral:
    def __init__(self, rule: Fixed, n_features: int):
        self.alphas, self._weights = fine_and_coarse(rule)
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


class _Queue:
    """The (row, alpha) pairs that are still to be computed: refinements before rows that have not started."""

    def __init__(self) -> None:
        self._asked: deque[tuple[int, NDArray[np.float64]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._asked)

    def start(self, row: int, alphas: NDArray[np.float64]) -> None:
        self._asked.append((row, alphas))

    def refine(self, row: int, alphas: NDArray[np.float64]) -> None:
        self._asked.appendleft((row, alphas))

    def take(self, n: int) -> list[tuple[int, NDArray[np.float64]]]:
        """At most n pairs, grouped by row."""
        taken = []
        while n and self._asked:
            row, alphas = self._asked.popleft()
            if len(alphas) > n:
                self._asked.appendleft((row, alphas[n:]))
            taken.append((row, alphas[:n]))
            n -= len(taken[-1][1])
        return taken


def integrate(
    gradients: Callable[[NDArray, NDArray], tuple[NDArray, NDArray]],
    images: NDArray,
    baselines: NDArray,
    targets: NDArray,
    score: NDArray,
    score_baseline: NDArray,
    *,
    rule: Any,
    tolerances: Tolerances,
    batch_size: int,
    end_gradients: NDArray | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Attributions:
    """Integrated Gradients of every row, by the rule, with certificates.

    gradients: from points (n, y, x, channel) and targets (n,) to dF_t/dx and F_t, n at most batch_size.
    images, baselines: float32 (row, y, x, channel). targets: (row,). score, score_baseline: (row,), F_t(x) and F_t(x').
    end_gradients: dF_t/dx at the images, (row, y, x, channel), where they are known: a rule that has that node is spared it.
    on_progress: called after every batch with how many rows are done.
    Raises ValueError if the row counts differ.
    """
    counts = {len(array) for array in (images, baselines, targets, score, score_baseline)}
    if len(counts) > 1:
        raise ValueError(f"images, baselines, targets and scores must have one row each, got {sorted(counts)} rows")
    n_rows, n_features = len(images), int(np.prod(images.shape[1:]))
    deltas = images - baselines
    result = Attributions(
        attribution=np.zeros_like(deltas),
        gap=np.zeros(n_rows, np.float32),
        quadrature_error=np.zeros(n_rows, np.float32),
        score=score.astype(np.float32),
        score_baseline=score_baseline.astype(np.float32),
        n_gradients=np.zeros(n_rows, np.int32),
        converged=np.zeros(n_rows, np.uint8),
    )
    queue = _Queue()
    integrals: dict[int, Integral] = {}
    n_done = 0
    ends = [None] * n_rows if end_gradients is None else (end_gradients * deltas).reshape(n_rows, n_features)
    first_alphas = integral_of(rule, 1, 0.0, 0.0, None if end_gradients is None else np.zeros(1, np.float32)).alphas
    for row in range(n_rows):
        queue.start(row, first_alphas)
    while queue:
        asked = queue.take(batch_size)
        rows = np.repeat([row for row, _ in asked], [len(alphas) for _, alphas in asked])
        alphas = np.concatenate([alphas for _, alphas in asked]).astype(np.float32)[:, None, None, None]
        slopes, scores = gradients(baselines[rows] + alphas * deltas[rows], targets[rows])
        vectors = (slopes * deltas[rows]).reshape(len(rows), -1)
        stops = np.cumsum([len(alphas) for _, alphas in asked])
        for (row, nodes), stop in zip(asked, stops, strict=True):
            if row not in integrals:
                integrals[row] = integral_of(rule, n_features, float(score[row]), float(score_baseline[row]), ends[row])
            integral, here = integrals[row], slice(stop - len(nodes), stop)
            if not integral.add(vectors[here], scores[here]):
                continue
            if _record(result, row, integral, deltas.shape[1:], tolerances) or not integral.refine(tolerances):
                del integrals[row]
                n_done += 1
            else:
                queue.refine(row, integral.alphas)
        if on_progress:
            on_progress(n_done)
    return result


def _record(result: Attributions, row: int, integral: Integral, shape: tuple[int, ...], tolerances: Tolerances) -> bool:
    attribution = integral.fine.astype(np.float32)
    difference = result.score[row : row + 1].astype(np.float64) - result.score_baseline[row]
    gap, error, converged = certify(attribution[None], integral.coarse[None], difference, tolerances)
    result.attribution[row] = attribution.reshape(shape)
    result.gap[row], result.quadrature_error[row] = gap[0], error[0]
    result.n_gradients[row], result.converged[row] = integral.n_nodes, converged[0]
    return bool(converged[0])
