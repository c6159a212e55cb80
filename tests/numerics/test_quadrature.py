"""Quadrature: fixed rules against the textbook, the adaptive trapezoid by its order, its economy and its honesty."""

import math

import numpy as np
import pytest

from reference import NEVER, Path, additive_path, doubling, drive, sigmoid_feature, textbook_trapezoids, u_key
from slow_integrals import integral_of
from tasks.numerics.quadrature import FIXED_RULES, LEAST_GROWTH, Adaptive, Fixed, Tolerances, fixed_rule

SMOOTH = additive_path(
    (np.exp, np.exp),
    (lambda a: np.sin(3 * a), lambda a: 3 * np.cos(3 * a)),
    (lambda a: a**4 - a, lambda a: 4 * a**3 - 1),
)
STEEP = {
    "at .03, width .005": additive_path(sigmoid_feature(0.03, 0.005)),
    "at .5, width .004": additive_path(sigmoid_feature(0.5, 0.004)),
    "at .9, width .02": additive_path(sigmoid_feature(0.9, 0.02)),
    "at .005, width .002": additive_path(sigmoid_feature(0.005, 0.002)),
    "up at .02, down at .3": additive_path(sigmoid_feature(0.02, 0.003), sigmoid_feature(0.3, 0.01, -0.6)),
    "three features": additive_path(
        sigmoid_feature(0.03, 0.005), sigmoid_feature(0.04, 0.01, -2.0), sigmoid_feature(0.6, 0.1, 1.5)
    ),
}
STRICT = Tolerances(gap=0.01, error=0.05)
by_path = pytest.mark.parametrize("path", STEEP.values(), ids=STEEP)


def polynomial(degree: int) -> Path:
    """F = a^(degree + 1) and f = (degree + 1) a^degree: an integral of exactly 1."""
    return additive_path((lambda a: a ** (degree + 1), lambda a: (degree + 1) * a**degree))


def slope(n: list[int], errors: list[float]) -> float:
    """The order of convergence: minus the slope of log error over log n."""
    return -float(np.polyfit(np.log(n), np.log(errors), 1)[0])


def error(path: Path, result: np.ndarray) -> float:
    return float(np.linalg.norm(result - path.integral))


# Fixed rules


@pytest.mark.parametrize("n", [2, 3, 7, 50, 129])
@pytest.mark.parametrize("rule", FIXED_RULES)
def test_fixed_weights_sum_to_one_and_nodes_rise_within_the_path(rule, n):
    alphas, weights = fixed_rule(rule, n)
    assert alphas.shape == weights.shape == (n,)
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert (weights > 0).all()
    assert (np.diff(alphas) > 0).all()
    assert alphas[0] >= 0 and alphas[-1] <= 1


@pytest.mark.parametrize(
    ("rule", "alphas", "weights"),
    [
        ("riemann_left", [0, 0.25, 0.5, 0.75], [0.25] * 4),
        ("riemann_right", [0.25, 0.5, 0.75, 1], [0.25] * 4),
        ("riemann_middle", [0.125, 0.375, 0.625, 0.875], [0.25] * 4),
        ("riemann_trapezoid", [0, 1 / 3, 2 / 3, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        (
            "gausslegendre",  # Abramowitz and Stegun, table 25.4, moved from [-1, 1] to [0, 1]
            [0.5 - 0.861136311594053 / 2, 0.5 - 0.339981043584856 / 2, 0.5 + 0.339981043584856 / 2, 0.5 + 0.861136311594053 / 2],
            [0.347854845137454 / 2, 0.652145154862546 / 2, 0.652145154862546 / 2, 0.347854845137454 / 2],
        ),
    ],
)  # fmt: skip
def test_fixed_nodes_are_the_textbook_s(rule, alphas, weights):
    nodes = fixed_rule(rule, 4)
    np.testing.assert_allclose(nodes.alphas, alphas, atol=1e-14)
    np.testing.assert_allclose(nodes.weights, weights, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_gauss_legendre_is_exact_to_degree_2n_minus_1_and_no_further(n):
    alphas, weights = fixed_rule("gausslegendre", n)
    for degree in range(2 * n):
        assert (weights * alphas**degree).sum() == pytest.approx(1 / (degree + 1), abs=1e-14)
    # the classical remainder for the monomial of degree 2n: (n!)^4 / ((2n + 1) ((2n)!)^2)
    left_over = 1 / (2 * n + 1) - (weights * alphas ** (2 * n)).sum()
    assert left_over == pytest.approx(
        math.factorial(n) ** 4 / ((2 * n + 1) * math.factorial(2 * n) ** 2), rel=1e-3, abs=1e-15
    )


@pytest.mark.parametrize(
    ("rule", "order"),
    [("riemann_left", 1), ("riemann_right", 1), ("riemann_middle", 2), ("riemann_trapezoid", 2)],
)
def test_fixed_rules_converge_with_their_order(rule, order):
    n = [16, 32, 64, 128]
    errors = [error(SMOOTH, drive(Fixed(rule=rule, n_steps=k), SMOOTH).fine) for k in n]
    assert slope(n, errors) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("rule", FIXED_RULES)
@pytest.mark.parametrize("n", [6, 7, 50])
def test_fixed_computes_the_rule_and_its_half_from_shared_nodes(rule, n):
    driven = drive(Fixed(rule=rule, n_steps=n), SMOOTH)
    for result, nodes in ((driven.fine, fixed_rule(rule, n)), (driven.coarse, fixed_rule(rule, n // 2))):
        np.testing.assert_allclose(result, nodes.weights @ SMOOTH.slopes(nodes.alphas), rtol=1e-5, atol=1e-6)
    union = np.unique(np.concatenate([fixed_rule(rule, n).alphas, fixed_rule(rule, n // 2).alphas]).round(12))
    np.testing.assert_allclose(np.sort(driven.alphas), union, atol=1e-12)
    assert driven.n_nodes == len(driven.alphas) == len(union)
    assert driven.n_rounds == 1


@pytest.mark.parametrize(
    ("rule", "n", "match"),
    [
        ("simpson", 8, "rule must be one of gausslegendre, riemann_left.*got 'simpson'"),
        ("gausslegendre", 1, "gausslegendre needs at least 1 node"),
        ("riemann_trapezoid", 3, r"riemann_trapezoid needs at least 2 node\(s\), got 1"),
    ],
)
def test_fixed_refuses_what_has_no_half(rule, n, match):
    with pytest.raises(ValueError, match=match):
        Fixed(rule=rule, n_steps=n)


# The adaptive trapezoid


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_uniform_doubling_converges_with_order_two(exponent):
    n = [16, 32, 64, 128]
    driven = [drive(Adaptive(exponent=exponent, n_max=k + (exponent == 1), refine_fraction=1), SMOOTH) for k in n]
    assert [d.n_nodes - (exponent == 1) for d in driven] == n
    assert slope(n, [error(SMOOTH, d.fine) for d in driven]) == pytest.approx(2, abs=0.1)
    for d in driven:
        assert error(SMOOTH, d.coarse) / error(SMOOTH, d.fine) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_uniform_doubling_is_the_trapezoid_in_u(exponent):
    n = 64
    driven = drive(Adaptive(exponent=exponent, n_max=n + (exponent == 1), refine_fraction=1), SMOOTH)
    for count, result in ((n, driven.fine), (n // 2, driven.coarse)):
        u = np.arange(count + 1) / count
        weights = exponent * u ** (exponent - 1) / count
        weights[[0, -1]] /= 2
        np.testing.assert_allclose(result, weights @ SMOOTH.slopes(u**exponent), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("exponent", "degree"), [(1, 0), (1, 1), (2, 0)])
def test_a_linear_integrand_in_u_is_exact_at_once(exponent, degree):
    driven = drive(Adaptive(exponent=exponent), polynomial(degree), Tolerances(gap=1e-5, error=1e-5))
    assert driven.n_rounds == 1 and driven.converged
    assert driven.fine == pytest.approx(1, abs=1e-6)
    assert driven.coarse == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("exponent", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.3, 0.7, 1.0])
@by_path
def test_fine_and_coarse_are_the_textbook_s_on_the_same_nodes(path, fraction, exponent):
    driven = drive(Adaptive(exponent=exponent, n_max=300, refine_fraction=fraction), path)
    known = {u_key(a, exponent): f for a, f in zip(driven.alphas, path.slopes(driven.alphas), strict=True)}
    known.setdefault(0.0, np.zeros(len(path.integral)))  # for p > 1 the node at 0 weighs nothing and is not asked for
    assert len(known) - (exponent > 1) == len(driven.alphas) == driven.n_nodes
    textbook = textbook_trapezoids(driven.alphas, exponent, Adaptive().n_start)
    for result, weights in zip((driven.fine, driven.coarse), textbook, strict=True):
        assert sum(weights.values()) == pytest.approx(1, abs=0.03)
        expected = sum(weight * known[a] for a, weight in weights.items())
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("piece", [1, 5, 16])
def test_nodes_may_be_handed_over_in_pieces(piece):
    path, rule = STEEP["three features"], Adaptive()
    whole, pieces = drive(rule, path, STRICT), drive(rule, path, STRICT, piece=piece)
    np.testing.assert_array_equal(pieces.fine, whole.fine)
    np.testing.assert_array_equal(pieces.coarse, whole.coarse)
    np.testing.assert_array_equal(pieces.alphas, whole.alphas)


@by_path
def test_adaptive_meets_its_tolerances_and_its_certificate_is_honest(path):
    driven = drive(Adaptive(), path, STRICT)
    assert driven.converged
    assert abs(driven.fine.sum() - path.difference) <= STRICT.gap * max(1, abs(path.difference))
    assert driven.quadrature_error <= STRICT.error
    gap = abs(driven.fine.sum() - path.difference)  # of one feature the quadrature error may vanish by chance
    assert error(path, driven.fine) / np.linalg.norm(path.integral) <= 1.5 * driven.quadrature_error + gap + 1e-6


@pytest.mark.parametrize("exponent", [1, 2, 3])
@pytest.mark.parametrize(
    "path",
    [additive_path(sigmoid_feature(centre, width)) for centre, width in ((0.03, 0.0005), (0.5, 0.0005), (0.9, 0.002))],
    ids=["at .03", "at .5", "at .9"],
)
def test_adaptive_needs_several_times_fewer_nodes_than_doubling(path, exponent):
    adaptive = drive(Adaptive(exponent=exponent), path, STRICT)
    assert adaptive.converged
    assert error(path, adaptive.fine) <= STRICT.gap
    assert 3 * adaptive.n_nodes <= doubling(path, exponent, STRICT)


@pytest.mark.parametrize("centre", [0.001, 0.11, 0.37, 0.52, 0.86])  # the first node is at (1/8)^3 = 0.00195
def test_a_spike_that_every_first_gradient_misses_is_found_by_the_score(centre):
    path = additive_path(sigmoid_feature(centre, 2e-5, 0.7))
    first = drive(Adaptive(n_max=8), path)
    assert np.abs(first.fine).max() < 1e-6, "the spike is meant to lie between the first nodes"
    assert not first.converged
    driven = drive(Adaptive(), path)  # NEVER: all nodes are spent where the score is missed
    assert error(path, driven.fine) < 0.01
    assert np.median(np.abs(driven.alphas - centre)) < 1e-3
    economical = drive(Adaptive(), path, STRICT)
    assert economical.converged and economical.n_nodes <= 120
    assert error(path, economical.fine) <= STRICT.gap


def test_the_score_at_the_baseline_counts_although_no_node_is_there():
    """A spike in the first panel, beside a feature that asks for nodes elsewhere."""
    path = additive_path(sigmoid_feature(0.001, 1e-5), (lambda a: 0.5 * a**8, lambda a: 4 * a**7))
    driven = drive(Adaptive(exponent=3), path, STRICT)
    assert driven.converged and driven.n_nodes <= 64
    assert error(path, driven.fine) <= 0.02


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_features_that_cancel_in_the_score_are_resolved_by_their_change(exponent):
    path = additive_path(sigmoid_feature(0.4, 0.01), sigmoid_feature(0.4, 0.01, -1.0))
    driven = drive(Adaptive(exponent=exponent), path, STRICT)
    assert path.difference == 0 and driven.converged
    assert error(path, driven.fine) / np.linalg.norm(path.integral) <= 1.5 * driven.quadrature_error
    assert driven.n_nodes <= 32, "the halving goes where the features change, not where the score does"


def test_an_unresolved_spike_is_never_called_converged():
    path = additive_path(sigmoid_feature(0.37, 1e-6))
    for n_max in range(16, 80, 2):
        driven = drive(Adaptive(n_max=n_max), path, Tolerances())
        assert driven.converged == (error(path, driven.fine) <= 0.05 and driven.quadrature_error <= 0.2)
        if n_max <= 32:
            assert not driven.converged


@pytest.mark.parametrize("fraction", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("exponent", [1, 3])
@pytest.mark.parametrize("n_max", [17, 18, 23, 64, 100, 513])
def test_n_max_is_respected_and_nearly_used(n_max, exponent, fraction):
    rng = np.random.default_rng(n_max)
    noise = Path(np.zeros_like, lambda a: rng.normal(size=(len(a), 3)), np.full(3, 1.0))
    driven = drive(Adaptive(exponent=exponent, n_max=n_max, refine_fraction=fraction), noise)
    assert not driven.converged
    assert n_max - 2 < driven.n_nodes <= n_max
    assert len(driven.alphas) == len(np.unique(driven.alphas)) == driven.n_nodes


@pytest.mark.parametrize("name", ["noise", "spike", "pole"])
def test_the_number_of_rounds_is_bounded(name):
    rng = np.random.default_rng(5)
    path = {
        "noise": Path(np.zeros_like, lambda a: rng.normal(size=(len(a), 3)), np.full(3, 1.0)),
        "spike": additive_path(sigmoid_feature(0.37, 1e-9)),
        "pole": additive_path((lambda a: -np.log(1.0000001 - a), lambda a: 1 / (1.0000001 - a))),
    }[name]
    for n_max in (64, 512, 2048):
        driven = drive(Adaptive(n_max=n_max, refine_fraction=1e-9), path)
        growth = 1 + 1 / LEAST_GROWTH
        assert driven.n_rounds <= math.log(n_max / 8) / math.log(growth) + 2


def test_gradients_that_are_not_finite_end_and_do_not_converge():
    path = Path(np.zeros_like, lambda a: np.full((len(a), 2), np.nan), np.ones(2))
    driven = drive(Adaptive(n_max=64), path, Tolerances())
    assert not driven.converged and driven.n_nodes <= 64


def test_a_path_without_a_gradient_is_done_at_once():
    path = Path(np.ones_like, lambda a: np.zeros((len(a), 2)), np.zeros(2))
    driven = drive(Adaptive(), path, Tolerances())
    assert driven.converged and driven.n_rounds == 1
    assert not driven.fine.any() and not driven.coarse.any()


def test_the_first_round_of_p_above_one_leaves_out_the_node_at_the_baseline():
    integral = integral_of(Adaptive(exponent=3), 1, 1.0, 0.0)
    np.testing.assert_allclose(integral.alphas, (np.arange(1, 9) / 8) ** 3)
    integral = integral_of(Adaptive(exponent=1), 1, 1.0, 0.0)
    np.testing.assert_allclose(integral.alphas, np.arange(9) / 8)


@pytest.mark.parametrize(
    "setting",
    [
        {"exponent": 0},
        {"n_start": 0},
        {"n_start": 8, "n_max": 15},
        {"exponent": 1, "n_start": 8, "n_max": 16},  # p = 1 starts with 17 nodes
        {"refine_fraction": 0.0},
        {"refine_fraction": 1.1},
    ],
    ids=str,
)
def test_adaptive_refuses_impossible_settings(setting):
    name, value = list(setting.items())[-1]
    with pytest.raises(ValueError, match=rf"needs exponent >= 1.*{name.split('_')[-1]} {value}"):
        Adaptive(**setting)


@pytest.mark.parametrize("setting", [{"gap": 0.0}, {"error": -0.1}, {"gap": float("nan")}], ids=str)
def test_tolerances_must_be_positive(setting):
    with pytest.raises(ValueError, match="tolerances must be positive"):
        Tolerances(**setting)


def test_never_is_never_met():
    assert not drive(Adaptive(), SMOOTH, NEVER).converged
