"""What removal and masks say of a linear model, where it is known; of equal pixels, of constant images; and what controls are."""

import numpy as np
import pytest

from tasks.numerics.worth.controls import another_images, brightness, permuted
from tasks.numerics.worth.masks import CELL, REMOVED, falls, partial_correlation, random_masks, removed
from tasks.numerics.worth.removal import curves, halves, pixel_order, relevance_gain

N, SHAPE = 6, (8, 12, 3)
FRACTIONS = np.linspace(0, 1, 9)


class Linear:
    """F_t(x) = w_t . x, whose Integrated Gradients are w_t (x - x') exactly."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.weights = rng.normal(size=(4, *SHAPE))
        self.images = rng.random((N, *SHAPE)).astype(np.float32)
        self.baselines = rng.random((N, *SHAPE)).astype(np.float32)
        self.targets = np.arange(N) % 4
        self.relevance = (self.weights[self.targets] * (self.images - self.baselines.astype(np.float64))).sum(-1)
        self.arguments = self.scores, self.images, self.baselines, self.targets

    def scores(self, images, targets):
        return (self.weights[targets] * images).sum((1, 2, 3))


@pytest.fixture
def linear():
    return Linear()


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_the_halves_of_a_linear_model_are_sums_of_its_attributions(linear):
    found = halves(*linear.arguments, linear.relevance)
    ranked = np.sort(linear.relevance.reshape(N, -1), axis=1)[:, ::-1]
    better, worse = (half.sum(axis=1) for half in np.split(ranked, 2, axis=1))
    nothing = linear.scores(linear.baselines, linear.targets)
    np.testing.assert_allclose(found.keep, nothing + better, atol=1e-4)
    np.testing.assert_allclose(found.drop, nothing + worse, atol=1e-4)
    np.testing.assert_allclose(found.relevance_gain, (better - worse) / 2, atol=1e-4)


def test_curves_of_a_linear_model_are_running_sums(linear):
    deletion, insertion = curves(*linear.arguments, linear.relevance, FRACTIONS)
    ranked = np.sort(linear.relevance.reshape(N, -1), axis=1)[:, ::-1]
    taken = np.stack([ranked[:, : round(f * ranked.shape[1])].sum(axis=1) for f in FRACTIONS], axis=1)
    nothing = linear.scores(linear.baselines, linear.targets)[:, None]
    np.testing.assert_allclose(insertion, nothing + taken, atol=1e-4)
    np.testing.assert_allclose(deletion, nothing + linear.relevance.sum((1, 2))[:, None] - taken, atol=1e-4)


def test_two_intervals_are_the_halves(linear):
    both = curves(*linear.arguments, linear.relevance, (0, 0.5, 1))
    found = halves(*linear.arguments, linear.relevance)
    np.testing.assert_allclose(relevance_gain(*both, (0, 0.5, 1)), found.relevance_gain, atol=1e-5)


def test_insertion_is_deletion_of_the_reversed_order(linear):
    deletion, insertion = curves(*linear.arguments, linear.relevance, FRACTIONS)
    back, _ = curves(*linear.arguments, -linear.relevance, FRACTIONS)
    np.testing.assert_allclose(insertion, back[:, ::-1], atol=1e-4)


def test_no_attribution_of_a_linear_model_gains_more_than_its_own(linear, rng):
    own = halves(*linear.arguments, linear.relevance).relevance_gain
    for other in (rng.normal(size=linear.relevance.shape), brightness(linear.images, linear.baselines)):
        assert (halves(*linear.arguments, other).relevance_gain < own).all()
    turned = halves(*linear.arguments, -linear.relevance).relevance_gain
    np.testing.assert_allclose(turned, -own, atol=1e-4)


@pytest.mark.parametrize("n_intervals", [2, 4, 8])
def test_the_relevance_gain_of_evenly_spaced_attributions_is_known(n_intervals: int, rng):
    """Attributions n - 1, n - 3, ..., 1 - n sum to m (n - m) over the first m, and so the gain is n^2 (1 - 1 / K^2) / 3."""
    n = 64
    weights = rng.permutation(np.arange(n - 1, -n, -2)).reshape(1, 8, 8, 1)
    image, baseline = np.full((1, 8, 8, 1), 3, np.float32), np.full((1, 8, 8, 1), 2, np.float32)

    def scores(images, targets):
        return (weights * images).sum((1, 2, 3))

    arguments = scores, image, baseline, np.zeros(1, int), weights[..., 0]
    fractions = np.arange(n_intervals + 1) / n_intervals
    found = relevance_gain(*curves(*arguments, fractions), fractions)
    np.testing.assert_allclose(found, n**2 * (1 - 1 / n_intervals**2) / 3, rtol=1e-6)
    np.testing.assert_allclose(halves(*arguments).relevance_gain, n**2 / 4, rtol=1e-6)


def test_of_a_linear_model_the_gain_weighs_each_interval_by_its_place(linear):
    """Interval j of K, counted from 0, has the weight 1 - (2 j + 1) / K."""
    found = relevance_gain(*curves(*linear.arguments, linear.relevance, FRACTIONS), FRACTIONS)
    ranked = np.sort(linear.relevance.reshape(N, -1), axis=1)[:, ::-1]
    sums = np.stack([part.sum(axis=1) for part in np.split(ranked, 8, axis=1)], axis=1)
    np.testing.assert_allclose(found, sums @ (1 - (2 * np.arange(8) + 1) / 8), atol=1e-4)


def test_orders_that_know_nothing_gain_nothing_in_the_mean(linear, rng):
    gains = np.stack(
        [halves(*linear.arguments, rng.normal(size=linear.relevance.shape)).relevance_gain for _ in range(400)]
    )
    standard_error = gains.std(axis=0) / np.sqrt(len(gains))
    assert (np.abs(gains.mean(axis=0)) < 4 * standard_error).all()
    assert (halves(*linear.arguments, linear.relevance).relevance_gain > 20 * standard_error).all()


def test_ties_prefer_no_place_and_depend_on_their_row_alone(rng):
    tied = np.zeros((2, 16, 16))
    tied[1, :8] = 1
    order = pixel_order(tied)
    for ranks in order:
        np.testing.assert_array_equal(np.sort(ranks, axis=None), np.arange(256))
    y, x = np.nonzero(order[0] < 128)
    assert abs(y.mean() - 7.5) < 1
    assert abs(x.mean() - 7.5) < 1
    assert (order[1, :8] < 128).all()
    np.testing.assert_array_equal(pixel_order(tied[1:]), order[1:])


def test_the_order_is_that_of_a_stable_sort_where_nothing_ties(rng):
    relevance = rng.normal(size=(3, 4, 5))
    for ranks, values in zip(pixel_order(relevance), relevance, strict=True):
        np.testing.assert_array_equal(np.argsort(ranks, axis=None), np.argsort(-values, axis=None))


def test_nothing_of_no_rows(linear):
    none = linear.scores, linear.images[:0], linear.baselines[:0], linear.targets[:0], linear.relevance[:0]
    assert len(halves(*none).relevance_gain) == 0
    deletion, _ = curves(*none, FRACTIONS)
    assert deletion.shape == (0, len(FRACTIONS))


def test_masks_remove_whole_cells_of_the_share_that_is_said(rng):
    masks = random_masks(2000, (10, 12), rng)  # the last row of cells is cut
    assert masks.shape == (2000, 10, 12)
    assert masks.mean() == pytest.approx(REMOVED, abs=0.01)
    for cell in (masks[:, :CELL, :CELL], masks[:, 8:, 8:]):
        assert (cell.all((1, 2)) | ~cell.any((1, 2))).all()


def test_of_a_linear_model_the_fall_is_the_attribution_that_was_removed(linear, rng):
    masks = random_masks(64, SHAPE[:2], rng)
    fall, gone = falls(*linear.arguments, masks), removed(linear.relevance, masks)
    np.testing.assert_allclose(fall, gone, atol=1e-4)
    light = removed(brightness(linear.images, linear.baselines), masks)
    np.testing.assert_allclose(partial_correlation(gone, fall, light), 1, atol=1e-6)
    np.testing.assert_allclose(partial_correlation(-gone, fall, light), -1, atol=1e-6)


@pytest.mark.parametrize(("own", "light", "expected"), [(1, 5, 1), (0.01, -3, 1), (-2, 5, -1)])
def test_brightness_in_an_attribution_neither_helps_nor_harms(linear, rng, own: float, light: float, expected: int):
    masks, bright = random_masks(64, SHAPE[:2], rng), brightness(linear.images, linear.baselines)
    amounts = own * linear.relevance + light * bright
    found = partial_correlation(removed(amounts, masks), falls(*linear.arguments, masks), removed(bright, masks))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_of_a_linear_model_any_attribution_has_the_fidelity_of_its_cells(linear, rng):
    """Cells are removed independently: in the limit it is the cosine of both sums by cell, the brightness projected out."""
    masks, bright = random_masks(40_000, SHAPE[:2], rng), brightness(linear.images, linear.baselines)
    amounts = linear.relevance + rng.normal(size=linear.relevance.shape)
    found = partial_correlation(*(removed(each, masks) for each in (amounts, linear.relevance, bright)))
    for row in range(N):
        mine, exact, light = (
            each[row].reshape(SHAPE[0] // CELL, CELL, -1, CELL).sum((1, 3)).ravel()
            for each in (amounts, linear.relevance, bright)
        )
        mine, exact = (each - each @ light / (light @ light) * light for each in (mine, exact))
        cosine = mine @ exact / np.sqrt((mine @ mine) * (exact @ exact))
        assert found[row] == pytest.approx(cosine, abs=0.03)
        assert abs(cosine) < 0.99


def test_partial_correlation_is_that_of_the_residuals_of_a_regression(rng):
    one, other, given = rng.normal(size=(3, 5, 40))
    one, other = one + 2 * given, other - given
    for k, found in enumerate(partial_correlation(one, other, given)):
        design = np.stack([np.ones(40), given[k]], axis=1)
        left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (one[k], other[k])]
        assert found == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-9)


def test_brightness_beside_itself_tells_nothing(linear, rng):
    """What is a straight line in the brightness, or does not vary, is not a number rather than a correlation of rounding."""
    masks = random_masks(64, SHAPE[:2], rng)
    light = removed(brightness(linear.images, linear.baselines), masks)
    fall = falls(*linear.arguments, masks)
    assert np.isnan(partial_correlation(3 * light + 1, fall, light)).all()
    assert np.isnan(partial_correlation(removed(linear.relevance, masks), np.zeros_like(fall), light)).all()
    black = np.zeros_like(light)
    np.testing.assert_allclose(partial_correlation(fall, fall, black), 1, atol=1e-9)


def test_a_permuted_control_has_the_same_values_on_the_object_and_none_beside_it(linear, rng):
    on = rng.random((N, *SHAPE[:2])) < 0.5
    found = permuted(np.where(on, linear.relevance, 0), on, rng)
    assert (found[~on] == 0).all()
    for row, mine, object_ in zip(linear.relevance, found, on, strict=True):
        np.testing.assert_array_equal(np.sort(row[object_]), np.sort(mine[object_]))
        assert (row[object_] != mine[object_]).any()


def test_another_image_is_of_the_same_class_and_never_its_own(rng):
    targets = np.array([2, 0, 2, 1, 2, 0, 2])
    found = another_images(targets, rng)
    assert found[3] == -1, "the only one of its class"
    others = np.delete(np.arange(7), 3)
    assert (found[others] != others).all()
    np.testing.assert_array_equal(targets[found[others]], targets[others])
    np.testing.assert_array_equal(np.sort(found[others]), others)
