"""Integrated Gradients: closed forms, the float64 twin, the certificate, and rows that owe nothing to their batch."""

from functools import lru_cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine_calls import compiled_gradients, integrate_by_engine
from reference import (
    N_CLASSES,
    NEVER,
    SHAPE,
    Twin,
    additive_path,
    random_images,
    randomise,
    sigmoid_feature,
    small_cnn,
    textbook_trapezoids,
    u_key,
)
from slow_integrals import integrate
from tasks.numerics.integrated_gradients import Attributions, certify
from tasks.numerics.network.compiled import SMALL_BATCHES, Compiled
from tasks.numerics.network.scores import CompiledScores, Reading, score_model
from tasks.numerics.quadrature import Adaptive, Fixed, Rule, Tolerances, fixed_rule

RULES: dict[str, Rule] = {
    "adaptive p=1": Adaptive(exponent=1),
    "adaptive p=2": Adaptive(exponent=2),
    "adaptive p=3": Adaptive(exponent=3),
    "doubling p=3": Adaptive(exponent=3, refine_fraction=1),
    "gausslegendre": Fixed(rule="gausslegendre", n_steps=20),
    "riemann_left": Fixed(rule="riemann_left", n_steps=20),
    "riemann_right": Fixed(rule="riemann_right", n_steps=20),
    "riemann_middle": Fixed(rule="riemann_middle", n_steps=20),
    "riemann_trapezoid": Fixed(rule="riemann_trapezoid", n_steps=20),
}
by_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
TOLERANCES = Tolerances()
TIGHT = Tolerances(gap=0.02, error=0.1)  # on the small network below, rows need 16 to 58 nodes


def network() -> keras.Model:
    """A classifier that is abrupt enough for rows to differ in what they need."""
    return small_cnn(8, sharpness=8)


@lru_cache(maxsize=8)
def compiled_functions(model: keras.Model, batch_size: int) -> tuple[CompiledScores, Compiled]:
    return CompiledScores(model, 8), compiled_gradients(model, batch_size)


def explain(
    model: keras.Model,
    images: np.ndarray,
    baselines: np.ndarray,
    targets: np.ndarray,
    *,
    rule: Rule,
    tolerances: Tolerances = TIGHT,
    batch_size: int = 32,
    gradients=None,
    end_gradients: np.ndarray | None = None,
) -> Attributions:
    """Integrated Gradients of a score model, by its compiled functions unless others are given."""
    scores, compiled = compiled_functions(model, batch_size)
    rows = np.arange(len(images))
    return integrate_by_engine(
        gradients or compiled, images, baselines, targets,
        scores(images)[rows, targets], scores(baselines)[rows, targets],
        rule=rule, tolerances=tolerances, batch_size=batch_size, end_gradients=end_gradients,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cnn() -> keras.Model:
    return score_model(network(), "probability")


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seven images, baselines and targets; the contrast grows from row to row."""
    contrast = np.linspace(0.2, 1, 7, dtype=np.float32)[:, None, None, None]
    return random_images(7, 1) * contrast, random_images(7, 2) * 0.1, np.array([0, 1, 0, 2, 3, 0, 0])


class Logged:
    """Compiled gradients that keep every point and target they were asked for, but those that pad a batch: points of zeros."""

    def __init__(self, model: keras.Model, batch_size: int):
        self.compiled = compiled_gradients(model, batch_size)
        self.points: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []

    def __call__(self, points, targets):
        assert len(points) == len(targets) <= self.compiled.batch_size
        asked = points.any(axis=(1, 2, 3))
        self.points.append(points[asked])
        self.targets.append(targets[asked])
        return self.compiled(points, targets)


class PathGradients:
    """A score in closed form instead of a network, one pixel of as many channels as there are features: F = sum_i F_i(x_i)."""

    def __init__(self, path):
        self.path, self.shape = path, (1, 1, len(path.integral))

    def __call__(self, points, targets):
        alphas = points.reshape(len(points), -1).astype(np.float64)
        slopes = np.stack([self.path.slopes(alpha)[np.arange(len(alpha)), np.arange(len(alpha))] for alpha in alphas])
        score = self.path.score(alphas[:, 0])  # on the path from black to white all channels are equal
        return slopes.reshape(points.shape).astype(np.float32), score.astype(np.float32)

    def explain(self, rule: Rule, tolerances: Tolerances = TOLERANCES, batch_size: int = 32) -> Attributions:
        white, score = np.ones((1, *self.shape), np.float32), self.path.score(np.array([1.0, 0.0]))
        return integrate_by_engine(
            self, white, np.zeros_like(white), np.zeros(1, int), score[:1], score[1:],
            rule=rule, tolerances=tolerances, batch_size=batch_size,
        )  # fmt: skip


# Closed forms


@by_rule
def test_a_linear_model_gives_weights_times_difference(rule):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(N_CLASSES, name="linear")])
    randomise(model, 0)
    images, baselines, targets = random_images(4, 1), random_images(4, 2), np.array([3, 0, 2, 1])
    linear = score_model(model, "logit", Reading(kind="logits"))
    result = explain(linear, images, baselines, targets, rule=rule)
    kernel = model.get_layer("linear").get_weights()[0].T.reshape(N_CLASSES, *SHAPE)
    if isinstance(rule, Adaptive) and rule.exponent == 3:  # u^2 is integrated to (1 + 1/(2n^2)) of itself, n the nodes
        expected = kernel[targets] * (images - baselines)
        factor = 1 + 1 / (2 * 8**2)
        np.testing.assert_allclose(result.attribution, expected * factor, atol=1e-6)
        np.testing.assert_allclose(result.gap, expected.sum((1, 2, 3)) * (factor - 1), atol=1e-5)
        np.testing.assert_allclose(result.quadrature_error, 3 / (2 * 8**2) / factor, rtol=1e-3)
    else:
        np.testing.assert_allclose(result.attribution, kernel[targets] * (images - baselines), atol=1e-6)
        np.testing.assert_allclose(result.gap, 0, atol=1e-5)
        np.testing.assert_allclose(result.quadrature_error, 0, atol=1e-5)
    assert result.converged.all()
    assert (result.n_gradients <= 40).all()


POLYNOMIAL = additive_path(
    (lambda a: 3 * a**2, lambda a: 6 * a),
    (lambda a: a**3 - 2 * a, lambda a: 3 * a**2 - 2),
    (lambda a: -(a**4), lambda a: -4 * a**3),
)


@pytest.mark.parametrize(
    ("rule", "atol"),
    [
        (Fixed(rule="gausslegendre", n_steps=4), 1e-6),
        (Fixed(rule="riemann_middle", n_steps=1000), 1e-5),
        (Adaptive(exponent=1, n_max=513), 1e-4),
        (Adaptive(exponent=3), 1e-4),
    ],
    ids=["gausslegendre", "riemann_middle", "adaptive p=1", "adaptive p=3"],
)
def test_a_polynomial_score_has_its_known_integral(rule, atol):
    result = PathGradients(POLYNOMIAL).explain(rule, NEVER)
    np.testing.assert_allclose(result.attribution.ravel(), [3, -1, -1], atol=atol)
    assert result.gap[0] == pytest.approx(0, abs=3 * atol)
    assert (result.score[0], result.score_baseline[0]) == (1, 0)


def test_the_default_rule_finds_a_steep_score_near_the_baseline():
    result = PathGradients(additive_path(sigmoid_feature(0.03, 0.005))).explain(Adaptive())
    assert result.converged[0] == 1
    assert result.n_gradients[0] <= 32
    assert abs(result.gap[0]) <= 0.05


def test_a_spike_between_the_nodes_is_unconverged_or_resolved():
    path = additive_path(sigmoid_feature(0.37, 2e-5))
    fixed = PathGradients(path).explain(Fixed(n_steps=50))
    assert fixed.converged[0] == 0
    assert fixed.gap[0] == pytest.approx(-1, abs=1e-3)
    adaptive = PathGradients(path).explain(Adaptive())
    assert adaptive.converged[0] == 1
    assert adaptive.attribution.sum() == pytest.approx(1, abs=0.05)


# The float64 twin


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_twin_is_right_by_finite_differences(score):
    model = small_cnn(3)
    twin, image, step = Twin(model, score), random_images(1, 4)[0].astype(np.float64), 1e-6
    np.testing.assert_allclose(twin.scores(image), score_model(model, score)(image[None])[0], rtol=1e-5, atol=1e-6)
    gradient = twin.gradient(image, 2)
    for index in np.ndindex(SHAPE):
        nudge = np.zeros(SHAPE)
        nudge[index] = step
        slope = (twin.scores(image + nudge)[2] - twin.scores(image - nudge)[2]) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_left", "riemann_trapezoid"])
def test_fixed_rules_agree_with_the_twin(batch, rule, score):
    images, baselines, targets = batch
    cnn = network()
    result = explain(score_model(cnn, score), images, baselines, targets, rule=Fixed(rule=rule, n_steps=12))
    nodes = fixed_rule(rule, 12)
    for row in range(len(images)):
        expected = Twin(cnn, score).integrated_gradients(images[row], baselines[row], targets[row], *nodes)
        assert np.linalg.norm(result.attribution[row] - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("exponent", [1, 3])
def test_adaptive_agrees_with_the_twin_on_its_nodes_which_lie_on_the_path(batch, exponent):
    images, baselines, targets = batch
    cnn = network()
    model, twin, tolerances = score_model(cnn, "probability"), Twin(cnn, "probability"), Tolerances(gap=0.01, error=0.1)
    for row in (0, 3, 6):
        only = slice(row, row + 1)
        logged = Logged(model, 32)
        result = explain(
            model, images[only], baselines[only], targets[only],
            rule=Adaptive(exponent=exponent), tolerances=tolerances, gradients=logged,
        )  # fmt: skip
        points, delta = np.concatenate(logged.points), (images - baselines)[row].astype(np.float64)
        asked = ((points - baselines[row]) * delta).sum((1, 2, 3)) / np.square(delta).sum()
        np.testing.assert_allclose(points, baselines[row] + asked[:, None, None, None] * delta, atol=1e-6)
        assert (np.concatenate(logged.targets) == targets[row]).all()
        # u = a^(1/p) of every node is a multiple of a power of two: found again from the float32 points
        u = np.round(asked ** (1 / exponent) * 2**12) / 2**12
        np.testing.assert_allclose(u**exponent, asked, atol=1e-6)
        assert len(np.unique(u)) == len(u) == result.n_gradients[0]

        integrands = {
            u_key(a, exponent): delta * twin.gradient(baselines[row] + a * delta, targets[row]) for a in u**exponent
        }
        integrands.setdefault(0.0, np.zeros(SHAPE))
        fine, coarse = (
            sum(weight * integrands[key] for key, weight in weights.items())
            for weights in textbook_trapezoids(u**exponent, exponent, Adaptive().n_start)
        )
        assert np.linalg.norm(result.attribution[0] - fine) <= 1e-5 * np.linalg.norm(fine)
        change = np.linalg.norm(fine - coarse) / np.linalg.norm(fine)
        assert result.quadrature_error[0] == pytest.approx(change, rel=1e-4, abs=1e-5)
        scores = twin.scores(images[row])[targets[row]], twin.scores(baselines[row])[targets[row]]
        assert (result.score[0], result.score_baseline[0]) == pytest.approx(scores, abs=1e-5)
        assert result.gap[0] == pytest.approx(fine.sum() - (scores[0] - scores[1]), abs=1e-5)


@by_rule
@pytest.mark.parametrize("batch_size", [3, 32])
def test_gradients_known_at_the_images_are_not_asked_for_and_change_nothing(cnn, batch, rule, batch_size):
    images, baselines, targets = batch
    known = compiled_gradients(cnn, 32)(images, targets)[0]
    asked, spared = Logged(cnn, batch_size), Logged(cnn, batch_size)
    result = explain(
        cnn, images, baselines, targets, rule=rule, batch_size=batch_size, gradients=spared, end_gradients=known
    )
    expected = integrate(
        asked, images, baselines, targets, result.score, result.score_baseline,
        rule=rule, tolerances=TIGHT, batch_size=batch_size,
    )  # fmt: skip
    for name, values in vars(expected).items():
        np.testing.assert_allclose(getattr(result, name), values, atol=2e-6, err_msg=name)
    n_asked, n_spared = (sum(map(len, each.points)) for each in (asked, spared))
    assert n_asked == expected.n_gradients.sum()
    assert n_asked - n_spared == (7 if isinstance(rule, Adaptive) else 0)


def test_wrong_gradients_at_the_images_would_be_seen(cnn, batch):
    """They are part of the integral, not only of its bookkeeping."""
    images, baselines, targets = batch
    known = compiled_gradients(cnn, 32)(images, targets)[0]
    rule = Adaptive(n_max=8)
    right, wrong = (explain(cnn, *batch, rule=rule, end_gradients=factor * known) for factor in (1, -1))
    change = (right.attribution - wrong.attribution).reshape(7, -1)
    expected = (2 * known * (images - baselines) * 3 / 16).reshape(7, -1)  # the node u = 1 weighs p / (2 n)
    np.testing.assert_allclose(change, expected, atol=2e-6)


def test_the_certificate_is_honest_on_the_network(cnn, batch):
    """The true relative error against 2,000 midpoint nodes stays within 1.5 of the certified one."""
    result = explain(cnn, *batch, rule=Adaptive())
    exact = explain(cnn, *batch, rule=Fixed(rule="riemann_middle", n_steps=2000), batch_size=256)
    assert result.converged.all()
    difference = np.linalg.norm((result.attribution - exact.attribution).reshape(7, -1), axis=1)
    error = difference / np.linalg.norm(exact.attribution.reshape(7, -1), axis=1)
    assert (error <= 1.5 * result.quadrature_error + 1e-4).all()
    assert len(np.unique(result.n_gradients)) > 1, "rows are meant to differ in what they need"


# The certificate


@by_rule
def test_the_certificate_recomputed(cnn, batch, rule):
    images, baselines, targets = batch
    result = explain(cnn, *batch, rule=rule)
    rows = np.arange(7)
    np.testing.assert_allclose(result.score, cnn(images).numpy()[rows, targets], atol=1e-6)
    np.testing.assert_allclose(result.score_baseline, cnn(baselines).numpy()[rows, targets], atol=1e-6)
    difference = result.score.astype(np.float64) - result.score_baseline
    gap = result.attribution.sum((1, 2, 3), dtype=np.float64) - difference
    np.testing.assert_allclose(result.gap, gap, atol=1e-7)
    within = (np.abs(gap) <= 0.02 * np.maximum(1, np.abs(difference))) & (result.quadrature_error <= 0.1)
    np.testing.assert_array_equal(result.converged, within)


@pytest.mark.parametrize(
    ("gap", "error", "difference", "converged"),
    [
        (0.049, 0.19, 0.5, True),
        (-0.049, 0.19, -0.5, True),
        (0.051, 0.19, 0.5, False),
        (-0.051, 0.19, 0.5, False),
        (0.0, 0.21, 0.5, False),
        (0.19, 0.1, 4.0, True),  # a logit's difference above one allows a larger gap
        (0.19, 0.1, -4.0, True),
        (0.21, 0.1, 4.0, False),
    ],
)
def test_a_row_converges_if_and_only_if_both_tolerances_hold(gap, error, difference, converged):
    total = difference + gap
    fine = np.full((1, 2, 2, 1), total / 4)
    coarse = fine * (1 - error)
    certified = certify(fine, coarse, np.array([difference]), TOLERANCES)
    assert [float(value[0]) for value in certified] == pytest.approx([gap, error, float(converged)])


def test_certify_without_an_attribution():
    zero, one = np.zeros((1, 2, 2, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    gap, error, converged = certify(zero, zero, np.zeros(1), TOLERANCES)
    assert (gap[0], error[0], converged[0]) == (0, 0, True)
    gap, error, converged = certify(zero, one, np.zeros(1), TOLERANCES)
    assert np.isfinite(np.float32(error[0])) and error[0] > 1e30 and not converged[0]
    gap, error, converged = certify(zero * np.nan, zero, np.zeros(1), TOLERANCES)
    assert not converged[0]


@by_rule
def test_an_image_equal_to_its_baseline(cnn, batch, rule):
    images, baselines, targets = (array.copy() for array in batch)
    baselines[2] = images[2]
    with np.errstate(all="raise"):
        result = explain(cnn, images, baselines, targets, rule=rule)
    assert not result.attribution[2].any()
    assert (result.quadrature_error[2], result.converged[2]) == (0, 1)
    assert result.gap[2] == pytest.approx(0, abs=1e-6)
    assert all(np.isfinite(values).all() for values in vars(result).values())
    assert result.attribution[3].any()


def test_n_max_ends_the_work_on_a_row(cnn, batch):
    result = explain(cnn, *batch, rule=Adaptive(n_max=40), tolerances=NEVER)
    assert (result.n_gradients == 40).all()
    assert not result.converged.any()


def test_a_row_that_is_not_a_number_spoils_no_other(cnn, batch):
    images, baselines, targets = (array.copy() for array in batch)
    clean = explain(cnn, images, baselines, targets, rule=Adaptive(n_max=64))
    images[4] = np.nan
    result = explain(cnn, images, baselines, targets, rule=Adaptive(n_max=64))
    others = np.arange(7) != 4
    assert result.converged[4] == 0
    np.testing.assert_allclose(result.attribution[others], clean.attribution[others], atol=1e-6)


# Batching


@pytest.mark.parametrize("rule", [RULES["adaptive p=3"], RULES["gausslegendre"]], ids=["adaptive", "gausslegendre"])
def test_seven_rows_at_once_equal_seven_alone(cnn, batch, rule):
    together = explain(cnn, *batch, rule=rule)
    for row in range(7):
        alone = explain(cnn, *(array[row : row + 1] for array in batch), rule=rule)
        assert_rows_equal(alone, together, slice(row, row + 1))


def test_a_row_does_not_depend_on_its_company(cnn, batch):
    images, baselines, targets = batch
    together = explain(cnn, *batch, rule=Adaptive())
    order = np.array([6, 0, 3])
    others = explain(cnn, images[order], baselines[order], targets[order], rule=Adaptive())
    assert_rows_equal(others, together, order)


@pytest.mark.parametrize("rule", [RULES["adaptive p=3"], RULES["riemann_left"]], ids=["adaptive", "riemann_left"])
@pytest.mark.parametrize("batch_size", [1, 8, 13, 256])
def test_the_batch_size_does_not_matter(cnn, batch, rule, batch_size):
    expected = explain(cnn, *batch, rule=rule, batch_size=32)
    result = explain(cnn, *batch, rule=rule, batch_size=batch_size)
    assert_rows_equal(result, expected, slice(None))


def test_every_point_is_asked_for_once_and_counted(cnn, batch):
    logged = Logged(cnn, 32)
    result = explain(cnn, *batch, rule=Adaptive(), gradients=logged)
    points, targets = np.concatenate(logged.points), np.concatenate(logged.targets)
    assert len(points) == result.n_gradients.sum()
    assert len(np.unique(points.reshape(len(points), -1), axis=0)) == len(points)
    for target in range(N_CLASSES):
        assert (targets == target).sum() == result.n_gradients[batch[2] == target].sum()


def test_batches_are_full_until_rows_run_out(cnn):
    """Nine points in ten are in full batches; what is left when no row waits goes in eighths."""
    images, targets = random_images(40, 8), np.arange(40) % N_CLASSES
    logged, known = Logged(cnn, 32), compiled_gradients(cnn, 32)(images, targets)[0]
    explain(cnn, images, np.zeros_like(images), targets, rule=Adaptive(), gradients=logged, end_gradients=known)
    sizes = np.array([len(points) for points in logged.points])
    assert sizes[sizes == 32].sum() >= 0.9 * sizes.sum()


def test_rows_are_finished_before_new_ones_start():
    """Row r is the image (1, 1 + r), so that every point on its path tells the row."""
    asked: list[np.ndarray] = []
    value, slope = sigmoid_feature(0.03, 0.002)

    def gradients(points, targets):
        alphas, others = points[:, 0, 0, 0], points[:, 0, 0, 1]
        asked.append(np.unique(np.rint(others[alphas > 0] / alphas[alphas > 0]) - 1))  # without what pads the batch
        return np.stack([slope(alphas), 0 * alphas], axis=1).reshape(points.shape).astype(np.float32), value(alphas)

    n, batch_size = 200, 32
    images = np.stack([np.ones(n), 1 + np.arange(n)], axis=1).reshape(n, 1, 1, 2).astype(np.float32)
    ends, known = value(np.array([1.0, 0.0])), np.zeros_like(images)
    known[..., 0] = slope(1.0)
    result = integrate_by_engine(
        gradients, images, np.zeros_like(images), np.zeros(n, int), np.full(n, ends[0]), np.full(n, ends[1]),
        rule=Adaptive(), tolerances=TIGHT, batch_size=batch_size, end_gradients=known,
    )  # fmt: skip
    assert result.converged.all() and (result.n_gradients > 16).all()
    spans = np.array([[f(k for k, rows in enumerate(asked) if row in rows) for f in (min, max)] for row in range(n)])
    in_flight = [int(((spans[:, 0] <= k) & (k <= spans[:, 1])).sum()) for k in range(len(asked))]
    assert max(in_flight) <= 16, "four start in a batch, and each is done after a few rounds"


def test_no_rows_are_no_work(cnn):
    none = np.zeros((0, *SHAPE), np.float32)
    result = explain(cnn, none, none, np.zeros(0, int), rule=Adaptive())
    assert result.attribution.shape == (0, *SHAPE)
    assert result.gap.shape == result.n_gradients.shape == (0,)


def test_unequal_row_counts_are_refused(cnn, batch):
    images, baselines, targets = batch
    with pytest.raises(ValueError, match=r"one row each, got \[6, 7\] rows"):
        integrate_by_engine(
            compiled_gradients(cnn, 8), images, baselines[:6], targets, np.zeros(7), np.zeros(7),
            rule=Adaptive(), tolerances=TOLERANCES, batch_size=8,
        )  # fmt: skip


def test_the_arrays_have_the_types_of_the_store(cnn, batch):
    result = explain(cnn, *batch, rule=Adaptive())
    assert {name: values.dtype for name, values in vars(result).items()} == {
        "attribution": np.float32, "gap": np.float32, "quadrature_error": np.float32, "score": np.float32,
        "score_baseline": np.float32, "n_gradients": np.int32, "converged": np.uint8,
    }  # fmt: skip
    assert result.attribution.shape == (7, *SHAPE)


# The compiled function


@pytest.mark.parametrize("n", [1, 3, 4, 5, 28, 29, 31, 32])
def test_compiled_equals_eager_and_padding_does_not_leak(cnn, n):
    points, targets = random_images(n, n), np.arange(n) % N_CLASSES
    gradients, scores = compiled_gradients(cnn, 32)(points, targets)
    with tf.GradientTape() as tape:
        inputs = tf.constant(points)
        tape.watch(inputs)
        outputs = cnn(inputs, training=False)
        chosen = tf.reduce_sum(outputs * tf.one_hot(targets, N_CLASSES))
    np.testing.assert_allclose(gradients, tape.gradient(chosen, inputs), atol=1e-6)
    np.testing.assert_allclose(scores, outputs.numpy()[np.arange(n), targets], atol=1e-6)


def test_a_padded_row_that_is_not_a_number_spoils_no_other(cnn):
    points, compiled = random_images(5, 1), compiled_gradients(cnn, 32)
    clean, _ = compiled(points, np.zeros(5, int))
    points[-1] = np.nan  # the last row is the one that pads
    gradients, scores = compiled(points, np.zeros(5, int))
    np.testing.assert_allclose(gradients[:4], clean[:4], atol=1e-6)
    assert len(gradients) == len(scores) == 5


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_nothing_is_traced_again(cnn, batch_size):
    compiled = compiled_gradients(cnn, batch_size)
    for n in [*range(1, batch_size + 1), 1]:
        for dtype in (np.int32, np.int64):
            compiled(random_images(n, n), np.zeros(n, dtype))
    assert compiled.n_traces == (1 if batch_size < 2 * SMALL_BATCHES and batch_size == 1 else 2)


def test_a_whole_explanation_traces_at_most_twice(cnn, batch):
    compiled = compiled_gradients(cnn, 16)
    for rule in (Adaptive(), Adaptive(exponent=1), Fixed(n_steps=7)):
        explain(cnn, *batch, rule=rule, gradients=compiled, batch_size=16)
    assert compiled.n_traces <= 2


def assert_rows_equal(result: Attributions, expected: Attributions, rows) -> None:
    """Every array of `result` equals those rows of `expected`: integers exactly, the others to 1e-6."""
    for name, values in vars(result).items():
        wanted = getattr(expected, name)[rows]
        if np.issubdtype(values.dtype, np.integer):
            np.testing.assert_array_equal(values, wanted, err_msg=name)
        else:
            np.testing.assert_allclose(values, wanted, atol=2e-6, err_msg=name)
