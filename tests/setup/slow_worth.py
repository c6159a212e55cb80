"""Slow float64 twins of what explanations are worth, written from the papers: an image, a mask, a pixel at a time.

They share no code with tasks/, and where a formula can be had in another way, they have it in that: a partial correlation from
three plain ones, ranks by counting, the cell of a pixel instead of the pixels of a cell, a flood fill.

An image is (y, x, channel), an attribution (y, x), signed, a mask (y, x), true where it removes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "added_by_graft",
    "area",
    "cells",
    "cells_around",
    "changed_pixels",
    "deletion",
    "drop_half",
    "energy_distance",
    "grafted_score",
    "insertion",
    "keep_half",
    "largest_change",
    "mu_fidelity",
    "positive_share",
    "region",
    "relevance_gain",
    "shares",
    "spearman",
    "transplant_score",
    "unit",
]

Score = Callable[[NDArray], float]
Pixels = list[tuple[int, int]]


def _places(array: NDArray) -> Iterator[tuple[int, int]]:
    for y in range(array.shape[0]):
        for x in range(array.shape[1]):
            yield y, x


# Removal: Petsiuk et al. 2018, section 4; Bluecher et al. 2024, symmetric relevance gain.


def _by_relevance(attribution: NDArray, ties: NDArray) -> Pixels:
    """The pixels, the most relevant first. ties: (y, x), which of equal pixels goes first: the one with less."""
    return sorted(_places(attribution), key=lambda place: (-float(attribution[place]), int(ties[place])))


def _with(image: NDArray, other: NDArray, pixels: Iterable[tuple[int, int]]) -> NDArray:
    """An image with some pixels of the other, all their channels."""
    mixed = image.astype(np.float64)
    for place in pixels:
        for k in range(image.shape[2]):
            mixed[(*place, k)] = other[(*place, k)]
    return mixed


def deletion(
    score: Score, image: NDArray, baseline: NDArray, attribution: NDArray, ties: NDArray, counts: Sequence[int]
) -> list[float]:
    """The score with so many of the most relevant pixels at the baseline."""
    order = _by_relevance(attribution, ties)
    return [score(_with(image, baseline, order[:n])) for n in counts]


def insertion(
    score: Score, image: NDArray, baseline: NDArray, attribution: NDArray, ties: NDArray, counts: Sequence[int]
) -> list[float]:
    """The score with so many of the most relevant pixels alone, the rest at the baseline."""
    order = _by_relevance(attribution, ties)
    return [score(_with(baseline, image, order[:n])) for n in counts]


def area(curve: Sequence[float], fractions: Sequence[float]) -> float:
    """Of the trapezoids under a curve."""
    total = 0.0
    for k in range(len(curve) - 1):
        total += (fractions[k + 1] - fractions[k]) * (curve[k] + curve[k + 1]) / 2
    return total


def relevance_gain(inserted: Sequence[float], deleted: Sequence[float], fractions: Sequence[float]) -> float:
    """How much more is under insertion than under deletion."""
    return area(inserted, fractions) - area(deleted, fractions)


def keep_half(score: Score, image: NDArray, baseline: NDArray, attribution: NDArray, ties: NDArray) -> float:
    """The score of the better half of the pixels, which is the smaller one of an odd number."""
    order = _by_relevance(attribution, ties)
    return score(_with(image, baseline, order[len(order) // 2 :]))


def drop_half(score: Score, image: NDArray, baseline: NDArray, attribution: NDArray, ties: NDArray) -> float:
    """The score without them."""
    order = _by_relevance(attribution, ties)
    return score(_with(image, baseline, order[: len(order) // 2]))


# Partial mu-fidelity: Bhatt et al. 2020, definition 3, with the removed brightness held fast.


def _pearson(one: Sequence[float], other: Sequence[float]) -> float:
    """NaN where either does not vary."""
    n = len(one)
    mean, mean_other = math.fsum(one) / n, math.fsum(other) / n
    product = math.fsum((a - mean) * (b - mean_other) for a, b in zip(one, other, strict=True))
    squares = math.fsum((a - mean) ** 2 for a in one), math.fsum((b - mean_other) ** 2 for b in other)
    return product / math.sqrt(squares[0] * squares[1]) if squares[0] * squares[1] > 0 else math.nan


def mu_fidelity(score: Score, image: NDArray, baseline: NDArray, attribution: NDArray, masks: NDArray) -> float:
    """The partial correlation, over masks, of the attribution removed with the fall of the score, given the sum of |x - x'|.

    From plain ones: (r_af - r_al r_fl) / sqrt((1 - r_al^2) (1 - r_fl^2)); r_af where the brightness does not vary.
    """
    whole, lost, fall, light = score(image.astype(np.float64)), [], [], []
    for mask in masks:
        gone = [place for place in _places(mask) if mask[place]]
        fall.append(whole - score(_with(image, baseline, gone)))
        lost.append(math.fsum(float(attribution[place]) for place in gone))
        light.append(
            math.fsum(
                abs(float(image[(*place, k)]) - float(baseline[(*place, k)]))
                for place in gone
                for k in range(image.shape[2])
            )
        )
    r_af, r_al, r_fl = _pearson(lost, fall), _pearson(lost, light), _pearson(fall, light)
    if math.isnan(r_al) and math.isnan(r_fl):
        return r_af
    return (r_af - r_al * r_fl) / math.sqrt((1 - r_al**2) * (1 - r_fl**2))


# Sanity: Adebayo et al. 2018, Spearman's correlation.


def changed_pixels(image: NDArray, baseline: NDArray) -> NDArray[np.bool_]:
    """Where any channel differs from the baseline, (y, x)."""
    changed = np.zeros(image.shape[:2], bool)
    for place in _places(image):
        changed[place] = any(image[(*place, k)] != baseline[(*place, k)] for k in range(image.shape[2]))
    return changed


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal ones share the mean of their places."""
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def spearman(one: NDArray, other: NDArray, where: NDArray) -> float:
    """Of two attributions over some of the pixels; NaN where either does not vary, or there are fewer than eight."""
    chosen = [place for place in _places(where) if where[place]]
    if len(chosen) < 8:
        return math.nan
    return _pearson(*(_ranks([float(values[place]) for place in chosen]) for values in (one, other)))


# Heat: Lapuschkin et al. 2019, attributions of a few cells.


def _cell(pixel: int, side: int, most: int) -> int:
    """The cell of a pixel: cell k begins at floor(k * side / n)."""
    n = min(side, most)
    return max(k for k in range(n) if (k * side) // n <= pixel)


def cells(attribution: NDArray, most: int) -> NDArray[np.float64]:
    """The sum over each cell; at most so many a side."""
    y, x = attribution.shape
    found = np.zeros((min(y, most), min(x, most)))
    for place in _places(attribution):
        found[_cell(place[0], y, most), _cell(place[1], x, most)] += float(attribution[place])
    return found


def unit(heat: NDArray) -> NDArray[np.float64]:
    """With L2 norm 1; zeros stay."""
    norm = math.sqrt(math.fsum(float(heat[place]) ** 2 for place in _places(heat)))
    return heat / norm if norm > 0 else heat


def shares(attribution: NDArray, most: int) -> NDArray[np.float64]:
    """Of |attribution| in each cell, 1 in all; zeros where there is none."""
    total = math.fsum(abs(float(attribution[place])) for place in _places(attribution))
    magnitude = cells(np.array([[abs(value) for value in row] for row in attribution]), most)
    return magnitude / total if total > 0 else magnitude


# Drift: Szekely & Rizzo 2013.


def energy_distance(one: NDArray, other: NDArray) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs of rows, a row with itself among them. Both: (row, ...)."""

    def mean_distance(some: NDArray, others: NDArray) -> float:
        points = [[row.ravel().tolist() for row in rows] for rows in (some, others)]
        return math.fsum(math.dist(a, b) for a in points[0] for b in points[1]) / (len(some) * len(others))

    return 2 * mean_distance(one, other) - mean_distance(one, one) - mean_distance(other, other)


def largest_change(before: NDArray, after: NDArray) -> tuple[float, tuple[int, int]]:
    """Of a cell's mean share, and that cell, the first of equals. Both: (row, cell_y, cell_x)."""
    best, at = -1.0, (0, 0)
    for place in _places(before[0]):
        means = [math.fsum(float(row[place]) for row in rows) / len(rows) for rows in (before, after)]
        if abs(means[1] - means[0]) > best:
            best, at = abs(means[1] - means[0]), place
    return best, at


# Strategies: a cluster's region, and its transplant.


def _touching(place: tuple[int, int], shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """A cell and its up to eight neighbours."""
    for y in range(place[0] - 1, place[0] + 2):
        for x in range(place[1] - 1, place[1] + 2):
            if 0 <= y < shape[0] and 0 <= x < shape[1]:
                yield y, x


def region(heat: NDArray, inside: NDArray) -> NDArray[np.bool_]:
    """Cells of at least a quarter of the largest excess over the rest's mean, where the cluster's own is positive, that hang
    together with the cell of the largest. heat: (row, cell_y, cell_x). inside: the cluster's rows."""
    found = np.zeros(heat.shape[1:], bool)
    members, rest = ([row for row, mine in zip(heat, inside, strict=True) if mine == of] for of in (True, False))
    if not members or not rest:
        return found
    excess = {}
    for place in _places(found):
        mean, of_rest = (math.fsum(float(row[place]) for row in rows) / len(rows) for rows in (members, rest))
        if mean > 0:
            excess[place] = mean - of_rest
    peak = max(excess, key=lambda place: excess[place], default=None)
    if peak is None or excess[peak] <= 0:
        return found
    to_visit = [peak]
    while to_visit:
        place = to_visit.pop()
        if not found[place]:
            found[place] = True
            to_visit += [
                other for other in _touching(place, found.shape) if excess.get(other, -1.0) >= 0.25 * excess[peak]
            ]
    return found


def transplant_score(
    class_of: Callable[[NDArray], int],
    members: Sequence[NDArray],
    hosts: Sequence[NDArray],
    mask: NDArray,
    target: int,
) -> float:
    """The share of hosts that become the target with the region of a member. mask: (y, x), the region."""
    pixels = [place for place in _places(mask) if mask[place]]
    became = [class_of(_with(host, member, pixels)) == target for member, host in zip(members, hosts, strict=True)]
    return sum(became) / len(became)


# Known answers: a graft, and a canary's mark (Yang & Kim 2019).


def grafted_score(score: Score, image: NDArray, mask: NDArray, beta: float) -> float:
    """The score plus beta times the mean of the mask's values, all channels."""
    values = [float(image[(*place, k)]) for place in _places(mask) if mask[place] for k in range(image.shape[2])]
    return score(image.astype(np.float64)) + beta * math.fsum(values) / len(values)


def added_by_graft(image: NDArray, baseline: NDArray, mask: NDArray, beta: float) -> NDArray[np.float64]:
    """What the graft adds to Integrated Gradients: beta / n (x - x') at each of the mask's n values, 0 elsewhere."""
    added = np.zeros(image.shape)
    pixels = [place for place in _places(mask) if mask[place]]
    for place in pixels:
        for k in range(image.shape[2]):
            n = len(pixels) * image.shape[2]
            added[(*place, k)] = beta / n * (float(image[(*place, k)]) - float(baseline[(*place, k)]))
    return added


def positive_share(attribution: NDArray, mask: NDArray) -> float:
    """How much of the positive attribution is in the mask; NaN where none is positive."""
    inside = total = 0.0
    for place in _places(mask):
        value = float(attribution[place])
        if value > 0:
            total += value
            inside += value if mask[place] else 0.0
    return inside / total if total > 0 else math.nan


def cells_around(mask: NDArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The cells of a map that hold a pixel of the mark, and their neighbours. shape: (cell_y, cell_x)."""
    found = np.zeros(shape, bool)
    for y, x in _places(mask):
        if mask[y, x]:
            cell = _cell(y, mask.shape[0], shape[0]), _cell(x, mask.shape[1], shape[1])
            for near in _touching(cell, shape):
                found[near] = True
    return found
