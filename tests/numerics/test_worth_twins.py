"""What explanations are worth, held against slow twins written from the papers (tests/setup/slow_worth.py)."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
from scipy.stats import energy_distance, spearmanr

import slow_worth as slow
from reference import SHAPE as GRAFT_SHAPE
from reference import random_images, small_cnn
from tasks.numerics.network.scores import score_model
from tasks.numerics.worth import canary, drift, graft, strategies
from tasks.numerics.worth.controls import brightness
from tasks.numerics.worth.masks import falls, partial_correlation, random_masks, removed
from tasks.numerics.worth.randomised import rank_correlation
from tasks.numerics.worth.removal import area, curves, halves, pixel_order, relevance_gain
from tasks.numerics.worth.transplant import PASTED, transplant

N, N_CLASSES, N_INTERVALS = 5, 3, 8
FRACTIONS = tuple(k / N_INTERVALS for k in range(N_INTERVALS + 1))
SHAPES = [(9, 7, 1), (8, 12, 3), (11, 16, 3), (20, 13, 1)]
KINDS = ["random", "ties", "background"]


@dataclass(frozen=True)
class Trial:
    """Rows with an attribution, and a network that is neither linear nor additive. relevance: (row, y, x)."""

    images: np.ndarray
    baselines: np.ndarray
    targets: np.ndarray
    relevance: np.ndarray
    weights: tuple[np.ndarray, np.ndarray]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        first, last = self.weights
        logits = last @ np.tanh(first @ image.astype(np.float64).ravel())
        return np.exp(logits) / np.exp(logits).sum()

    def scores(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.array([self.probabilities(image)[target] for image, target in zip(images, targets, strict=True)])

    def score_of(self, row: int):
        return lambda image: float(self.probabilities(image)[self.targets[row]])

    @property
    def arguments(self):
        return self.scores, self.images, self.baselines, self.targets


def trial(shape: tuple[int, ...], kind: str, seed: int) -> Trial:
    """kind: "random"; "ties": a few values of either sign, and zero; "background": half the image is at the baseline, with 0."""
    rng = np.random.default_rng(seed)
    images = rng.random((N, *shape), dtype=np.float32)
    baselines = rng.random((N, *shape), dtype=np.float32)
    relevance = rng.normal(size=(N, *shape[:2]))
    if kind == "ties":
        relevance = np.round(relevance)
    if kind == "background":
        baselines[:] = 0
        there = rng.random(relevance.shape) < 0.5
        images[~there] = 0
        relevance[~there] = 0
    n = int(np.prod(shape))
    weights = rng.normal(size=(6, n)) / np.sqrt(n) * 4, rng.normal(size=(N_CLASSES, 6)) * 2
    return Trial(images, baselines, rng.integers(0, N_CLASSES, N), relevance, weights)


def trials(*, kinds: list[str] = KINDS, seeds: tuple[int, ...] = (0, 1)):
    """As parameters, for a test that takes `case`."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param((shape, kind, seed), id=f"{'x'.join(map(str, shape))}-{kind}-{seed}")
            for shape in SHAPES
            for kind in kinds
            for seed in seeds
        ],
    )


def tie_order(shape: tuple[int, ...]) -> np.ndarray:
    """Which of equal pixels goes first, (y, x): all that the twins are told."""
    return pixel_order(np.zeros((1, *shape[:2])))[0]


@trials()
def test_curves_and_the_relevance_gain(case) -> None:
    given, ties = trial(*case), tie_order(case[0])
    deletion, insertion = curves(*given.arguments, given.relevance, FRACTIONS)
    gains, areas = relevance_gain(deletion, insertion, FRACTIONS), area(deletion, FRACTIONS)
    n = ties.size
    counts = [-(-k * n // N_INTERVALS) for k in range(N_INTERVALS + 1)]
    for row in range(N):
        arguments = given.score_of(row), given.images[row], given.baselines[row], given.relevance[row], ties, counts
        deleted, inserted = slow.deletion(*arguments), slow.insertion(*arguments)
        np.testing.assert_allclose(deletion[row], deleted, rtol=1e-6)
        np.testing.assert_allclose(insertion[row], inserted, rtol=1e-6)
        assert areas[row] == pytest.approx(slow.area(deleted, FRACTIONS), rel=1e-6)
        assert gains[row] == pytest.approx(slow.relevance_gain(inserted, deleted, FRACTIONS), abs=1e-6)


@trials()
def test_both_halves(case) -> None:
    given, ties = trial(*case), tie_order(case[0])
    found = halves(*given.arguments, given.relevance)
    for row in range(N):
        arguments = given.score_of(row), given.images[row], given.baselines[row], given.relevance[row], ties
        keep, drop = slow.keep_half(*arguments), slow.drop_half(*arguments)
        assert found.keep[row] == pytest.approx(keep, rel=1e-6)
        assert found.drop[row] == pytest.approx(drop, rel=1e-6)
        assert found.relevance_gain[row] == pytest.approx((keep - drop) / 2, abs=1e-6)


@trials(seeds=(0,))
@pytest.mark.parametrize("cells", [True, False], ids=["cells", "pixels"])
def test_partial_mu_fidelity(case, cells: bool) -> None:
    given, rng = trial(*case), np.random.default_rng(7)
    masks = random_masks(24, case[0][:2], rng) if cells else rng.random((24, *case[0][:2])) < 0.3
    lost, away = falls(*given.arguments, masks), removed(brightness(given.images, given.baselines), masks)
    found = partial_correlation(removed(given.relevance, masks), lost, away)
    expected = [
        slow.mu_fidelity(given.score_of(row), given.images[row], given.baselines[row], given.relevance[row], masks)
        for row in range(N)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_mu_fidelity_of_an_image_that_is_its_baseline_but_for_a_score_that_moves() -> None:
    """No brightness is removed: then there is nothing to hold fast, and both have the plain correlation."""
    amounts, lost = np.random.default_rng(0).normal(size=(2, 4, 20))
    found = partial_correlation(amounts, lost, np.zeros((4, 20)))
    np.testing.assert_allclose(found, [np.corrcoef(a, b)[0, 1] for a, b in zip(amounts, lost, strict=True)])


@trials()
def test_spearman_where_the_image_is_not_its_baseline(case) -> None:
    given = trial(*case)
    other = np.round(trial(case[0], "random", case[2] + 10).relevance, 1 if case[1] == "ties" else 9)
    changed = (given.images != given.baselines).any(axis=-1)
    found = rank_correlation(given.relevance, other, changed)
    for row in range(N):
        where = slow.changed_pixels(given.images[row], given.baselines[row])
        np.testing.assert_array_equal(changed[row], where)
        assert found[row] == pytest.approx(slow.spearman(given.relevance[row], other[row], where), abs=1e-12)
        assert found[row] == pytest.approx(spearmanr(given.relevance[row][where], other[row][where])[0], abs=1e-12)


def test_spearman_is_not_defined_where_it_is_not_for_the_twin() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 5, 6))
    where = np.ones((4, 5, 6), bool)
    one[0], other[1] = 0, -3.5
    where[2] = np.arange(30).reshape(5, 6) < 7
    where[3] = np.arange(30).reshape(5, 6) < 8
    found = rank_correlation(one, other, where)
    expected = [slow.spearman(*row) for row in zip(one, other, where, strict=True)]
    np.testing.assert_array_equal(np.isnan(expected), [True, True, True, False])
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("most", [strategies.CELLS, drift.CELLS])
@pytest.mark.parametrize("shape", [(5, 3), (16, 8), (17, 30), (33, 20), (28, 28)])
def test_heat(shape: tuple[int, int], most: int) -> None:
    relevance = np.random.default_rng(most).normal(size=(4, *shape))
    relevance[1] = np.round(relevance[1])
    relevance[2] = 0
    heat = strategies.pooled(relevance, most)
    for row, cells, norm in zip(relevance, heat, strategies.unit(heat), strict=True):
        expected = slow.cells(row, most)
        np.testing.assert_allclose(cells, expected, atol=1e-12)
        np.testing.assert_allclose(norm, slow.unit(expected), atol=1e-12)
    found = drift.heat_of(relevance)
    for row, signed, share in zip(relevance, found.signed, found.share, strict=True):
        np.testing.assert_allclose(signed, slow.unit(slow.cells(row, drift.CELLS)), atol=1e-12)
        np.testing.assert_allclose(share, slow.shares(row, drift.CELLS), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "shape"), [(30, (6, 5)), (41, (17, 24)), (60, (28, 28))])
def test_what_changed_between_two_models(n: int, shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=(2, n, *shape))
    before[:3], after[2:5] = 0, 0
    after[:, 1:3, :2] += 0.7
    heats = drift.heat_of(before), drift.heat_of(after)
    found = drift.change_of(*heats)
    share, cell = slow.largest_change(
        *(np.array([slow.shares(row, drift.CELLS) for row in rows]) for rows in (before, after))
    )
    assert (found.share, found.cell) == (pytest.approx(share, abs=1e-12), cell)
    signed = (np.array([slow.unit(slow.cells(row, drift.CELLS)) for row in rows]) for rows in (before, after))
    assert found.energy == pytest.approx(slow.energy_distance(*signed), abs=1e-9)


def test_of_many_rows_the_distance_is_of_three_hundred_that_both_models_share() -> None:
    rng = np.random.default_rng(0)
    before, after = (drift.heat_of(rng.normal(size=(330, 2, 3))) for _ in range(2))
    some = np.random.default_rng(0).permutation(330)[:300]
    expected = slow.energy_distance(before.signed[some], after.signed[some])
    assert drift.change_of(before, after).energy == pytest.approx(expected, abs=1e-9)


def test_of_one_cell_the_distance_is_the_square_of_scipys() -> None:
    """Heat of one cell is -1, 0 or 1, and SciPy has the distance of one dimension, with a root."""
    before, after = np.random.default_rng(0).integers(-1, 2, (2, 40, 5, 1, 1)).sum(axis=2)
    after = np.abs(after)
    found = drift.change_of(drift.heat_of(before), drift.heat_of(after))
    expected = energy_distance(np.sign(before).ravel(), np.sign(after).ravel()) ** 2
    assert expected > 0.1
    assert found.energy == pytest.approx(expected, abs=1e-12)


def smooth_heat(n: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Heat whose large values hang together here and there, so that regions have more than a cell."""
    padded = rng.normal(size=(n, shape[0] + 2, shape[1] + 2))
    y, x = shape
    return sum(padded[:, dy : dy + y, dx : dx + x] for dy in range(3) for dx in range(3)) / 9


@pytest.mark.parametrize("shape", [(4, 4), (16, 16), (16, 9), (1, 12)])
def test_the_region_of_a_cluster(shape: tuple[int, int]) -> None:
    sizes = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        heat, inside = smooth_heat(9, shape, rng), np.arange(9) < 1 + seed % 8
        heat = np.round(heat, 1) if seed % 5 == 0 else strategies.unit(heat)
        found = strategies.region_of(heat, inside)
        np.testing.assert_array_equal(found, slow.region(heat, inside))
        sizes.append(int(found.sum()))
    assert max(sizes) > 3


def test_cells_of_a_region_hang_together_by_their_corners_and_reach_down_to_a_quarter() -> None:
    heat = np.zeros((4, 5, 5))
    heat[:2, 0, 0], heat[:2, 1, 1], heat[:2, 2, 2], heat[:2, 4, 4] = 8, 2, 1.75, 8
    inside = np.arange(4) < 2
    expected = np.zeros((5, 5), bool)
    expected[0, 0] = expected[1, 1] = True
    np.testing.assert_array_equal(slow.region(heat, inside), expected)
    np.testing.assert_array_equal(strategies.region_of(heat, inside), expected)
    for nothing in (-heat, np.zeros_like(heat)):
        assert not slow.region(nothing, inside).any() and not strategies.region_of(nothing, inside).any()
    for nobody in (np.zeros(4, bool), np.ones(4, bool)):
        assert not slow.region(heat, nobody).any() and not strategies.region_of(heat, nobody).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_members", [9, 80])
def test_the_score_of_a_transplant(shape: tuple[int, ...], n_members: int) -> None:
    given, rng = trial(shape, "random", 3), np.random.default_rng(4)
    images = rng.random((200, *shape), dtype=np.float32)
    region = np.zeros(shape[:2], bool)
    region[1:5, 2:6] = True

    def class_of(image: np.ndarray) -> int:
        return int(given.probabilities(image).argmax())

    classes = np.array([class_of(image) for image in images])
    members, hosts = np.flatnonzero(classes == 1)[:n_members], np.flatnonzero(classes != 1)
    found = transplant(lambda some: np.array([class_of(i) for i in some]), images, members, hosts, region, 1, rng)
    assert len(found.members) == len(found.hosts) == PASTED
    assert np.isin(found.members, members).all() and np.isin(found.hosts, hosts).all()
    expected = slow.transplant_score(class_of, images[found.members], images[found.hosts], region, 1)
    assert 0 < expected < 1
    assert found.score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("beta", [20.0, -1.5])
def test_what_a_graft_adds(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that are grafted add the twin's score, and their exact attribution is the twin's."""
    model = score_model(small_cnn(2), "logit")
    images, baselines = random_images(4, 0), random_images(4, 1)
    mask = np.zeros(GRAFT_SHAPE[:2], bool)
    mask[2:5, 3:5] = mask[7, 0] = True
    planted = []
    original = graft.grafted

    def recorded(network: keras.Model, weights: np.ndarray, target: int) -> keras.Model:
        planted.append((weights, original(network, weights, target)))
        return planted[-1][1]

    monkeypatch.setattr(graft, "grafted", recorded)
    error = graft.graft_error(model, images, baselines, 2, mask, beta, batch_size=64, memory_bytes=1e8)
    assert error < 1e-5
    ((weights, with_graft),) = planted
    plain, more = model(images).numpy(), with_graft(images).numpy()
    np.testing.assert_array_equal(more[:, [0, 1, 3]], plain[:, [0, 1, 3]])
    for row, image in enumerate(images):
        expected = slow.grafted_score(lambda _, row=row: float(plain[row, 2]), image, mask, beta)
        assert more[row, 2] == pytest.approx(expected, rel=1e-5, abs=1e-5)
        added = slow.added_by_graft(image, baselines[row], mask, beta)
        np.testing.assert_allclose(weights.astype(np.float64) * (image - baselines[row]), added, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(9, 7), (32, 32), (20, 28)])
def test_the_share_of_a_mark(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevance = rng.normal(size=(6, *shape)).astype(np.float32)
    relevance[1] = np.round(relevance[1])
    relevance[2] = -np.abs(relevance[2])
    relevance[3] = 0
    masks = canary.mark_images(np.zeros((6, *shape, 1), np.float32), rng).masks
    found = canary.share_in_mark(relevance, masks)
    expected = [slow.positive_share(*row) for row in zip(relevance, masks, strict=True)]
    np.testing.assert_array_equal(np.isnan(expected), [False, False, True, True, False, False])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "map_shape"),
    [
        ((32, 32), (8, 8)),
        ((28, 28), (7, 7)),
        ((20, 32), (5, 8)),
        ((9, 7), (2, 1)),
        ((30, 30), (7, 7)),
        ((27, 31), (6, 7)),
        ((12, 8), (12, 8)),
    ],
)
def test_the_cells_around_a_mark(shape: tuple[int, int], map_shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    masks = canary.mark_images(np.zeros((40, *shape, 1), np.float32), rng).masks
    near = canary.cells_near(masks, map_shape)
    maps = np.maximum(rng.normal(size=near.shape), 0)
    share = canary.share_in_mark(maps, near)
    for row, mask in enumerate(masks):
        expected = slow.cells_around(mask, map_shape)
        np.testing.assert_array_equal(near[row], expected)
        assert share[row] == pytest.approx(slow.positive_share(maps[row], expected), rel=1e-12, nan_ok=True)
