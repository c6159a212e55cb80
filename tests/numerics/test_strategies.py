"""Strategies on explanations whose clusters are known, and transplants into images of which the classifier is known."""

import numpy as np
import pytest

from tasks.numerics.worth.strategies import (
    LEAST_MEMBERS,
    LEAST_ROWS,
    candidate_regions,
    cells_of,
    cluster,
    grown,
    medoids,
    pooled,
    region_of,
    unit,
)
from tasks.numerics.worth.transplant import PASTED, transplant

SIDE, MARK = 32, (slice(2, 6), slice(24, 28))


def explanations(n: int, n_marked: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Relevance (row, y, x) of a blob that wanders about; of the marked rows most is in the mark. Which are marked."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    centres = rng.normal(16, 3, (n, 2))
    blob = np.exp(-((y - centres[:, :1, None]) ** 2 + (x - centres[:, 1:, None]) ** 2) / 40)
    relevance = blob * rng.normal(1, 0.3, (n, 1, 1)) + 0.05 * rng.normal(size=(n, SIDE, SIDE))
    marked = np.zeros(n, bool)
    marked[rng.permutation(n)[:n_marked]] = True
    relevance[marked] *= 0.3
    relevance[(marked, *MARK)] += 8
    return relevance, marked


def in_mark() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[MARK] = True
    return mask


@pytest.mark.parametrize("side", [8, 15, 16, 28, 32, 33, 224])
def test_cells_cut_a_side_without_rest_and_pooling_keeps_the_sum(side: int):
    cells = cells_of(side)
    assert (cells[0], cells[-1]) == (0, side)
    widths = np.diff(cells)
    assert len(widths) == min(16, side)
    assert widths.max() - widths.min() <= 1
    relevance = np.random.default_rng(side).normal(size=(3, side, 2 * side))
    heat = pooled(relevance)
    assert heat.shape == (3, min(16, side), min(16, 2 * side))
    np.testing.assert_allclose(heat.sum((1, 2)), relevance.sum((1, 2)))
    first = relevance[:, : cells[1], : cells_of(2 * side)[1]].sum((1, 2))
    np.testing.assert_allclose(heat[:, 0, 0], first)


def test_cells_grow_back_to_the_pixels_that_they_pool():
    cells = np.zeros((16, 16), bool)
    cells[3, 5] = True
    region = grown(cells, (30, 47))
    assert region.shape == (30, 47)
    assert pooled(region[None].astype(float))[0][~cells].sum() == 0
    y, x = cells_of(30), cells_of(47)
    assert region.sum() == (y[4] - y[3]) * (x[6] - x[5])


@pytest.mark.parametrize(("n", "n_marked"), [(600, 360), (600, 60)])
def test_marked_rows_are_a_cluster_and_its_region_is_the_mark(n: int, n_marked: int):
    relevance, marked = explanations(n, n_marked)
    heat = unit(pooled(relevance))
    labels = cluster(heat)
    shares = {k: marked[labels == k].mean() for k in np.unique(labels[labels >= 0])}
    (found,) = [k for k, share in shares.items() if share > 0.5]
    inside = labels == found
    assert (inside & marked).sum() / marked.sum() > 0.95
    assert marked[inside].mean() > 0.95
    region = grown(region_of(heat, inside), (SIDE, SIDE))
    np.testing.assert_array_equal(region, in_mark())
    counts = np.bincount(labels[labels >= 0])
    assert (np.diff(counts) <= 0).all()
    assert counts.min() >= LEAST_MEMBERS
    likest = medoids(heat, inside, 3)
    assert inside[likest].all()
    likeness = (heat * heat[inside].mean(axis=0)).sum((1, 2))
    assert likeness[likest].min() >= np.sort(likeness[inside])[-3]


@pytest.mark.parametrize(
    "relevance",
    [
        np.zeros((200, SIDE, SIDE)),
        np.ones((200, SIDE, SIDE)),
        explanations(LEAST_ROWS - 1, 20)[0],
        np.zeros((0, SIDE, SIDE)),
    ],
    ids=["zeros", "all alike", "too few", "none"],
)
def test_nothing_is_found_where_there_is_nothing(relevance: np.ndarray):
    heat = unit(pooled(relevance))
    assert np.isfinite(heat).all()
    np.testing.assert_array_equal(cluster(heat), np.full(len(relevance), -1))


def test_rows_without_attribution_are_in_no_cluster():
    relevance, _ = explanations(400, 200)
    relevance[:50] = 0
    labels = cluster(unit(pooled(relevance)))
    assert (labels[:50] == -1).all()
    assert labels.max() >= 1


def test_a_cluster_of_all_rows_has_no_region():
    heat = unit(pooled(explanations(60, 0)[0]))
    assert not region_of(heat, np.ones(60, bool)).any()
    assert not region_of(heat, np.zeros(60, bool)).any()


def test_candidates_are_by_excess_and_by_mean_narrow_wide_and_with_the_cells_beside():
    heat = np.zeros((40, 6, 6))
    heat[:, 1, 1], heat[:20, 4, 4], heat[:20, 4, 5], heat[:20, 3, 4] = 2.0, 1.0, 0.3, 0.15
    found = candidate_regions(heat, np.arange(40) < 20)
    at = [{(int(y), int(x)) for y, x in zip(*np.nonzero(region), strict=True)} for region in found]
    beside_the_mark = {(3, 4), (3, 5), (4, 3), (4, 4), (4, 5), (5, 4), (5, 5)}
    assert at == [
        {(4, 4), (4, 5)},  # where the cluster differs from the others
        {(3, 4), (4, 4), (4, 5)},
        {(1, 1)},  # where its mean is, which others share
        {(1, 1)},
        beside_the_mark,
        {(0, 1), (1, 0), (1, 1), (1, 2), (2, 1)},
    ]


def test_of_all_rows_candidates_are_by_their_mean_alone_and_of_nothing_there_are_none():
    heat = np.zeros((40, 6, 6))
    assert candidate_regions(heat, np.ones(40, bool)) == []
    assert candidate_regions(heat, np.zeros(40, bool)) == []
    heat[:, 1, 1] = 2.0
    assert [int(region.sum()) for region in candidate_regions(heat, np.ones(40, bool))] == [1, 1, 5]


def test_a_region_that_speaks_against_the_class_is_none():
    heat = np.zeros((20, 4, 4))
    heat[:10, 0, 0], heat[10:, 0, 0] = -1, -2
    assert not region_of(heat, np.arange(20) < 10).any()


class OfTheMark:
    """Calls an image 1 where its mark is bright, else 0."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return (images[(slice(None), *MARK)].mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)


def test_a_transplanted_mark_makes_the_class_and_another_region_does_not():
    rng = np.random.default_rng(0)
    images = rng.random((200, SIDE, SIDE, 1)).astype(np.float32) * 0.4
    images[(slice(0, 80), *MARK)] = 1
    members, hosts = np.arange(80), np.arange(80, 200)
    found = transplant(OfTheMark(), images, members, hosts, in_mark(), 1, rng)
    assert found.score == 1
    assert len(found.members) == len(found.hosts) == PASTED
    assert len(np.unique(found.members)) == PASTED
    assert np.isin(found.members, members).all()
    assert np.isin(found.hosts, hosts).all()
    assert transplant(OfTheMark(), images, members, hosts, np.roll(in_mark(), 12, axis=0), 1, rng).score == 0


def test_of_few_members_some_are_pasted_again_and_of_none_nothing():
    rng = np.random.default_rng(0)
    images = np.zeros((8, SIDE, SIDE, 1), np.float32)
    found = transplant(OfTheMark(), images, np.arange(3), np.arange(3, 8), in_mark(), 1, rng)
    assert set(found.members) == {0, 1, 2}
    none = np.zeros(0, np.int64)
    assert transplant(OfTheMark(), images, none, np.arange(8), in_mark(), 1, rng) is None
    assert transplant(OfTheMark(), images, np.arange(8), none, in_mark(), 1, rng) is None
    assert transplant(OfTheMark(), images, np.arange(4), np.arange(4, 8), ~np.ones_like(in_mark()), 1, rng) is None
