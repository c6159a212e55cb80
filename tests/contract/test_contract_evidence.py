"""What a contract is inferred from, in closed form: feeds, moments, candidates, chance, and the best assignment of outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.contract.candidates import Candidate, candidates, moments, standardised
from tasks.contract.evidence import Trial, best_of, clearly_worse, close_to, gather
from tasks.contract.output_order import (
    doubt_chance,
    doubt_class_order,
    is_above_chance,
    matched_accuracy,
    matched_order,
)
from tasks.numerics.map_layers import symbolic_trace
from tasks.numerics.network.feed import FEEDS, RAW, SIGNED, UNIT, Feed, named_feed
from tasks.numerics.network.outputs import breaks, kind_of
from tasks.numerics.network.scores import Network

RNG = np.random.default_rng(0)
IMAGES = RNG.random((5, 4, 6, 3), np.float32)
PIXELS = RNG.integers(0, 256, (64, 8, 8, 3)).astype(np.uint8)


# Feeds


@pytest.mark.parametrize(
    ("name", "preprocess"),
    [
        ("unit", lambda x: x / 255),
        ("raw", lambda x: x),
        ("signed", keras.applications.mobilenet_v2.preprocess_input),
        ("torch", keras.applications.densenet.preprocess_input),
        ("caffe", keras.applications.resnet.preprocess_input),
    ],
)
def test_a_named_feed_is_what_keras_applications_do(name, preprocess):
    pixels = RNG.integers(0, 256, (5, 4, 6, 3)).astype(np.float32)
    fed = named_feed(name, 3)(tf.constant(pixels / 255))
    np.testing.assert_allclose(fed, preprocess(pixels.copy()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "feed", [*FEEDS.values(), Feed("given", (0.1, 0.2, 0.3), (0.5, 2.0, -1.0), True)], ids=lambda f: f.name
)
def test_a_feed_is_an_affine_map_a_channel(feed):
    factor, offset, order = feed.coefficients(3)
    np.testing.assert_allclose(feed(tf.constant(IMAGES)), IMAGES[..., order] * factor + offset, rtol=1e-5, atol=1e-4)
    slope = (feed(tf.constant(IMAGES + 0.25)) - feed(tf.constant(IMAGES))) / 0.25
    np.testing.assert_allclose(slope, np.broadcast_to(factor, IMAGES.shape), rtol=1e-3, atol=1e-3)


def test_the_plain_feed_changes_no_bit():
    images = tf.constant(IMAGES)
    assert UNIT(images) is images


@pytest.mark.parametrize(
    ("name", "n_channels", "said"),
    [
        ("torch", 1, "for images of 3 channels, got 1"),
        ("caffe", 1, "for images of 3 channels, got 1"),
        ("tensorflow", 3, "expected an input of unit, raw, signed, torch, caffe"),
    ],
    ids=["torch", "caffe", "unknown"],
)
def test_a_feed_that_cannot_be_had_is_refused(name, n_channels, said):
    with pytest.raises(ValueError, match=said):
        named_feed(name, n_channels)


@pytest.mark.parametrize(("mean", "scale"), [((0.0,), (0.0,)), ((np.nan,), (1.0,)), ((0.0,), (np.inf,))])
def test_a_feed_of_no_numbers_is_refused(mean, scale):
    with pytest.raises(ValueError, match="finite numbers, scale not 0"):
        Feed("wrong", mean, scale)


# Candidates


def proposed(*layers, shape=(8, 8, 3), name="theirs"):
    x = entry = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    model = keras.Model(entry, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name=name)
    return candidates(symbolic_trace(Network(model)), model, PIXELS[..., : shape[-1]])


def adapted(scale: float) -> keras.layers.Normalization:
    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(PIXELS.astype(np.float32) * scale)
    return layer


def settled(mean: float, variance: float) -> keras.layers.BatchNormalization:
    layer = keras.layers.BatchNormalization()
    layer.build((None, 8, 8, 3))
    layer.moving_mean.assign(np.full(3, mean))
    layer.moving_variance.assign(np.full(3, variance))
    return layer


@pytest.mark.parametrize(
    ("layers", "first"),
    [
        ((), "unit"),
        ((keras.layers.Rescaling(1 / 255),), "raw"),
        ((keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1), keras.layers.Rescaling(1 / 127.5, offset=-1)), "raw"),
        ((keras.layers.Resizing(4, 4), keras.layers.Rescaling(1 / 255)), "raw"),
        ((keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255)]),), "raw"),
        ((keras.layers.Rescaling(255.0),), "unit"),
        ((adapted(1.0),), "raw"),
        ((adapted(1 / 255),), "unit"),
        ((settled(127, 5400),), "raw"),
        ((settled(0.0, 0.33),), "signed"),
        ((keras.layers.Conv2D(2, 3), keras.layers.Rescaling(1 / 255)), "unit"),
    ],
    ids=[
        *("nothing", "rescaling", "behind augmentation", "behind resizing", "nested", "rescaling up", "normalization of raw"),
        *("normalization of unit", "batch normalization of raw", "batch normalization of signed", "behind a convolution"),
    ],
)  # fmt: skip
def test_what_sits_at_the_input_comes_first(layers, first):
    assert proposed(*layers)[0].feed.name == first


@pytest.mark.parametrize(
    ("name", "first"),
    [("resnet50", "caffe"), ("ResNet50V2", "signed"), ("mobilenetv2_1.00_224", "signed"), ("densenet121", "torch")],
)
def test_a_network_of_keras_applications_is_known_by_its_name(name, first):
    found = proposed(name=name)
    assert (found[0].feed.name, found[0].reason) == (first, f"{name} of keras.applications")
    assert len({candidate.feed.name for candidate in found}) == len(found)


def test_grey_images_have_no_other_order_of_channels():
    grey = np.repeat(PIXELS[..., :1], 3, axis=-1)
    entry = keras.Input((8, 8, 3))
    model = keras.Model(entry, keras.layers.Dense(3)(keras.layers.Flatten()(entry)))
    names = {candidate.feed.name for candidate in candidates(symbolic_trace(Network(model)), model, grey)}
    assert not any(name.endswith("-bgr") for name in names)
    assert {"unit-bgr", "raw-bgr", "signed-bgr"} <= {candidate.feed.name for candidate in proposed()}


def test_moments_are_exact_over_batches():
    mean, variance = moments([PIXELS[:10], PIXELS[10:]])
    unit = PIXELS.astype(np.float64) / 255
    np.testing.assert_allclose(mean, unit.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, unit.var(axis=(0, 1, 2)), rtol=1e-12)
    by_channel, overall, centred = standardised(mean, variance)
    fed = by_channel(tf.constant(unit.astype(np.float32))).numpy()
    np.testing.assert_allclose(fed.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(fed.std(axis=(0, 1, 2)), 1, atol=1e-4)
    assert overall.mean[0] == pytest.approx(unit.mean()) and overall.scale[0] == pytest.approx(unit.std())
    np.testing.assert_allclose(centred.mean, mean)
    assert standardised(mean, np.array([1.0, 0.0, 1.0])) == []


# Evidence


def trial(feed: Feed, log_likelihoods: np.ndarray, *, is_rare: bool = False) -> Trial:
    made = Trial(Candidate(feed, is_rare=is_rare), np.zeros((len(log_likelihoods), 2), np.float32))
    made.log_likelihoods = made.tempered = log_likelihoods
    return made


def test_a_feed_is_clearly_worse_only_beyond_three_standard_errors():
    base = RNG.normal(-1, 0.3, 400)
    noise = RNG.normal(0, 1, 400)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 20
    worse, close = (trial(RAW, base + noise - factor * error) for factor in (3.1, 2.9))
    best = trial(UNIT, base)
    assert clearly_worse(worse, best) and not clearly_worse(close, best)
    assert not clearly_worse(best, worse)
    assert close_to(best, [best, worse]) == [] and close_to(best, [best, trial(RAW, base + noise - 1.9 * error)]) != []


def test_a_rare_feed_must_be_clearly_better_and_right_more_often():
    base, noise = RNG.normal(-1, 0.3, 400), RNG.normal(0, 1, 400)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 20
    better, right = base + noise + 2 * error, np.arange(400) < 320
    assert best_of([trial(UNIT, base), trial(SIGNED, better)]).candidate.feed is SIGNED
    for log_likelihoods, more, chosen in (
        (better, 0.06, UNIT),
        (better + 2 * error, 0.04, UNIT),
        (better + 2 * error, 0.06, SIGNED),
    ):
        one, rare = trial(UNIT, base), trial(SIGNED, log_likelihoods, is_rare=True)
        one.correct, rare.correct = right, np.arange(400) < 320 + 400 * more
        assert best_of([one, rare]).candidate.feed is chosen


def logits_under(right: Feed, n: int, sureness: float = 4.0):
    """A network that names the label of image k, k modulo 2, under one feed, and always the first class under any other."""
    labels = np.arange(n) % 2

    def outputs(images: np.ndarray, feed: Feed) -> np.ndarray:
        rows = images[:, 0, 0, 0].astype(int)
        said = labels[rows] if feed is right else np.zeros(len(rows), int)
        return (2 * np.eye(2)[said] - 1).astype(np.float32) * sureness

    images = np.zeros((n, 1, 1, 3), np.float32)
    images[:, 0, 0, 0] = np.arange(n)
    return outputs, images, labels


@pytest.mark.parametrize("right", [RAW, SIGNED], ids=lambda f: f.name)
def test_the_feed_that_explains_the_labels_is_found_and_gets_all_images(right):
    outputs, images, labels = logits_under(right, 300)
    found = gather(outputs, [Candidate(feed) for feed in (UNIT, RAW, SIGNED)], images, labels, n_passes=10_000)
    assert (found.kind, found.best.candidate.feed) == ("logits", right)
    assert (found.best.n_images, found.best.accuracy) == (300, 1.0)
    others = [t for t in found.trials if t.candidate.feed is not right]
    assert [t.n_images for t in others] == [64, 64]
    assert others[1].same_as == others[0].candidate.feed.name


def test_few_passes_mean_few_images_and_no_rare_feeds():
    outputs, images, labels = logits_under(UNIT, 300)
    wanted = [Candidate(UNIT), Candidate(RAW), Candidate(SIGNED, is_rare=True)]
    found = gather(outputs, wanted, images, labels, n_passes=40)
    assert [t.candidate.feed.name for t in found.trials] == ["unit", "raw"]
    assert sum(t.n_images for t in found.trials) <= 40


def test_a_feed_with_outputs_that_are_not_finite_is_left_out():
    outputs, images, labels = logits_under(UNIT, 50)
    overflows = lambda some, feed: outputs(some, feed) * (np.inf if feed is RAW else 1)  # noqa: E731
    found = gather(overflows, [Candidate(RAW), Candidate(UNIT)], images, labels, n_passes=1000)
    assert [t.candidate.feed.name for t in found.trials] == ["unit"] and found.broken[0].feed is RAW
    with pytest.raises(ValueError, match="outputs are not finite under any of the feeds raw"):
        gather(overflows, [Candidate(RAW)], images, labels, n_passes=1000)


# Outputs


def test_outputs_that_contradict_their_kind_are_said():
    sums, inside, any_ = np.full((2, 4), 0.25), np.array([[0.1, 0.9, 0.4]]), np.array([[-3.0, 2.0]])
    assert [kind_of(values) for values in (sums, inside, any_)] == ["probability", "independent", "logits"]
    assert kind_of(np.array([[0.2], [0.9]])) == "sigmoid" and kind_of(np.array([[-2.0], [0.9]])) == "logit"
    assert breaks("probability", sums) == "" and breaks("logits", any_) == ""
    assert breaks("probability", inside) == "their sum is off 1 by up to 0.4"
    assert breaks("independent", any_) == breaks("sigmoid", any_) == "they run from -3 to 2"


# Chance, and the order of classes


def confusion(n_classes: int, accuracy: float, n: int, order: np.ndarray | None = None) -> np.ndarray:
    """Images by (true, said): a share of each class right, the others spread evenly over the other classes."""
    per_class = n / n_classes
    matrix = np.full((n_classes, n_classes), per_class * (1 - accuracy) / (n_classes - 1))
    np.fill_diagonal(matrix, per_class * accuracy)
    matrix = np.rint(matrix).astype(int)
    return matrix if order is None else matrix[:, order]


def test_an_order_of_outputs_is_found_again():
    order = RNG.permutation(12)
    matrix = confusion(12, 0.9, 1200, order)
    np.testing.assert_array_equal(matched_order(matrix), order)
    assert matched_accuracy(matrix) == pytest.approx(0.9, abs=0.01)
    doubt = doubt_class_order(matrix, [f"c{k}" for k in range(12)])
    assert doubt is not None and doubt.kind == "class-order"
    assert doubt.message.startswith(
        f"accuracy is {np.trace(matrix) / matrix.sum():.4f}, and would be {matched_accuracy(matrix):.4f} "
    )
    assert f"[{', '.join(f'c{k}' for k in order)}]" in doubt.message


@pytest.mark.parametrize(("n_classes", "n"), [(2, 40), (10, 64), (10, 10_000), (100, 512), (1000, 1000)])
def test_luck_is_no_order(n_classes, n):
    """Predictions that know nothing: the best assignment is better than chance, and no doubt."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix = np.zeros((n_classes, n_classes), int)
        np.add.at(matrix, (rng.integers(n_classes, size=n), rng.integers(n_classes, size=n)), 1)
        assert doubt_class_order(matrix, [str(k) for k in range(n_classes)]) is None
    assert doubt_class_order(confusion(n_classes, 0.9, 100 * n_classes), [str(k) for k in range(n_classes)]) is None


def test_two_classes_that_changed_places():
    doubt = doubt_class_order(confusion(2, 0.95, 200, np.array([1, 0])), ["cat", "dog"])
    assert doubt is not None and "[dog, cat] in this order" in doubt.message


@pytest.mark.parametrize(
    ("matrix", "at_chance"),
    [
        (confusion(10, 0.1, 1000), True),
        (confusion(10, 0.2, 1000), False),
        (np.diag(np.full(1000, 1))[:, np.roll(np.arange(1000), 1)], True),
        (np.array([[970, 0], [30, 0]]), True),
        (np.array([[950, 20], [5, 25]]), False),
        (np.array([[1, 0], [0, 2]]), False),
    ],
    ids=[
        "ten classes",
        "twice chance",
        "a thousand classes",
        "always the commonest",
        "rare class known",
        "too few to tell",
    ],
)
def test_chance_is_agreement_of_what_knows_nothing_of_each_other(matrix, at_chance):
    assert (doubt_chance(matrix) is not None) is at_chance


def test_chance_is_a_tail_of_the_binomial():
    assert is_above_chance(20, 100, 0.1) and not is_above_chance(15, 100, 0.1) and not is_above_chance(5, 100, 0.1)
