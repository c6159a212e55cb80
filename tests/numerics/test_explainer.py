"""The explainer: probabilities whatever is explained, attributions and maps of one model from shared compiled functions."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from engine_calls import compiled_gradients, watch_traces
from reference import N_CLASSES, SHAPE, Twin, random_images, small_cnn
from tasks.numerics.cams import CAMS
from tasks.numerics.endpoint import Endpoint
from tasks.numerics.explainer import Explainer, Settings, in_float32
from tasks.numerics.quadrature import Adaptive, Fixed, Tolerances

IMAGES, BASELINES = random_images(11, 1), random_images(11, 2) * 0.1
TARGETS = np.arange(11) % N_CLASSES


def explainer(score: str = "probability", batch_size: int = 8, **settings) -> Explainer:
    method = {"rule": Adaptive(), "tolerances": Tolerances(gap=0.02, error=0.1), "layer": "conv_2"} | settings
    return Explainer(small_cnn(8, sharpness=8), Settings(score=score, batch_size=batch_size, **method))


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_probabilities_are_probabilities_whatever_is_explained(score):
    twin = Twin(small_cnn(8, sharpness=8), "probability")
    result = explainer(score).endpoint(IMAGES, TARGETS).probabilities
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [twin.scores(image) for image in IMAGES], atol=1e-5)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_explained_score_is_that_of_each_row_s_target(score):
    twin = Twin(small_cnn(8, sharpness=8), score)
    result = explainer(score).integrated_gradients(IMAGES, BASELINES, TARGETS)
    expected = [[twin.scores(array[row])[TARGETS[row]] for row in range(len(IMAGES))] for array in (IMAGES, BASELINES)]
    np.testing.assert_allclose([result.score, result.score_baseline], expected, rtol=1e-4, atol=1e-4)
    total = result.attribution.sum((1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(result.gap, total - (result.score - result.score_baseline), atol=1e-6)
    assert result.converged.all()


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_maps_are_of_the_explained_score_and_each_row_s_target(score):
    twin = Twin(small_cnn(8, sharpness=8), score)
    expected = np.stack([twin.grad_cam(image, t, "conv_2") for image, t in zip(IMAGES, TARGETS, strict=True)])
    np.testing.assert_allclose(
        explainer(score).endpoint(IMAGES, TARGETS).maps["grad_cam"], expected, atol=1e-5 * expected.max()
    )


@pytest.mark.parametrize("batch_size", [1, 8, 256])
def test_all_results_are_the_same_at_any_batch_size(batch_size):
    one, other = explainer(batch_size=5), explainer(batch_size=batch_size)
    for ask in (Explainer.endpoint, lambda this, *rows: this.integrated_gradients(rows[0], BASELINES, rows[1])):
        expected, found = (arrays_of(ask(each, IMAGES, TARGETS)) for each in (one, other))
        for values, same in zip(expected, found, strict=True):
            np.testing.assert_allclose(same, values, atol=2e-6)


def arrays_of(result):
    """All arrays of an endpoint or of attributions."""
    return result.arrays if isinstance(result, Endpoint) else tuple(vars(result).values())


def test_images_that_appear_twice_may_have_two_targets():
    """As the rows that are explained for the true and for the predicted class."""
    twice, targets = np.concatenate([IMAGES, IMAGES[:3]]), np.concatenate([TARGETS, (TARGETS[:3] + 1) % N_CLASSES])
    this = explainer()
    attributions = this.integrated_gradients(twice, np.zeros_like(twice), targets).attribution
    alone = this.integrated_gradients(IMAGES[:3], np.zeros_like(IMAGES[:3]), targets[11:]).attribution
    np.testing.assert_allclose(attributions[11:], alone, atol=2e-6)
    assert np.abs(attributions[11:] - attributions[:3]).max() > 1e-3


def test_threads_share_an_explainer():
    this = explainer()
    traces = watch_traces(this.engine)
    expected = this.integrated_gradients(IMAGES, BASELINES, TARGETS)
    maps = this.endpoint(IMAGES, TARGETS).maps["grad_cam"]
    results: list = [None] * 4

    def work(k: int) -> None:
        results[k] = (
            this.integrated_gradients(IMAGES, BASELINES, TARGETS),
            this.endpoint(IMAGES, TARGETS).maps["grad_cam"],
        )

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for attributions, other_maps in results:
        np.testing.assert_allclose(attributions.attribution, expected.attribution, atol=2e-6)
        np.testing.assert_allclose(other_maps, maps, atol=1e-6)
    assert traces == [(None, *SHAPE)]


def test_no_rows():
    this, none = explainer(), np.zeros((0, *SHAPE), np.float32)
    shapes = [values.shape for values in this.endpoint(none, np.zeros(0, int)).arrays]
    assert shapes == [(0, N_CLASSES), (0,), (0, *SHAPE), *[(0, 5, 4)] * len(CAMS)]
    assert this.integrated_gradients(none, none, np.zeros(0, int)).attribution.shape == (0, *SHAPE)


def test_settings_are_values():
    """The process keeps one explainer for each (model, settings), so equal settings must be equal keys."""
    one, same = (
        Settings(score="logit", rule=Fixed(n_steps=8), tolerances=Tolerances(), layer="conv_2", batch_size=8)
        for _ in "ab"
    )
    assert one == same and hash(one) == hash(same)
    with pytest.raises(AttributeError):
        one.score = "probability"


def test_baseline_scores_are_remembered_only_while_they_are_right():
    images, targets = random_images(6, 3), np.arange(6) % N_CLASSES
    one = explainer()
    baselines = {"black": np.zeros_like(images), "white": np.ones_like(images), "each its own": random_images(6, 4)}
    for _ in range(2):  # the second time after other baselines
        for baseline in baselines.values():
            expected = one._scores(baseline)[np.arange(6), targets]
            found = one.integrated_gradients(images, baseline, targets)
            np.testing.assert_allclose(found.score_baseline, expected, rtol=1e-5)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_endpoint_is_what_separate_calls_give(score):
    one, twin = explainer(score), Twin(small_cnn(8, sharpness=8), score)
    end, (gradients, scores) = one.endpoint(IMAGES, TARGETS), compiled_gradients(one.model, 8)(IMAGES, TARGETS)
    np.testing.assert_allclose(end.score, scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(end.gradients, gradients, rtol=1e-4, atol=1e-6)
    expected = np.stack([twin.gradient(image, target) for image, target in zip(IMAGES, TARGETS, strict=True)])
    np.testing.assert_allclose(end.gradients, expected, atol=1e-5 * np.abs(expected).max())


def test_an_endpoint_that_is_known_is_not_computed_again():
    one = explainer()
    end = one.endpoint(IMAGES, TARGETS)
    computed = one.integrated_gradients(IMAGES, BASELINES, TARGETS)
    one._endpoint = None  # nobody asks
    known = one.integrated_gradients(IMAGES, BASELINES, TARGETS, endpoint=end)
    for name, values in vars(computed).items():
        np.testing.assert_array_equal(getattr(known, name), values, err_msg=name)


def test_rows_explained_after_others_follow_them():
    one = explainer()
    both = one.endpoint(IMAGES[:4], TARGETS[:4]).followed_by(one.endpoint(IMAGES[4:], TARGETS[4:]))
    for values, same in zip(one.endpoint(IMAGES, TARGETS).arrays, both.arrays, strict=True):
        np.testing.assert_allclose(same, values, atol=1e-6)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_scores_are_those_of_the_targets_among_all_of_them(score):
    one, twin = explainer(score), Twin(small_cnn(8, sharpness=8), score)
    expected = np.stack([twin.scores(image) for image in IMAGES])
    np.testing.assert_allclose(one.all_scores(IMAGES), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(one.scores(IMAGES, TARGETS), one.all_scores(IMAGES)[np.arange(len(IMAGES)), TARGETS])
    np.testing.assert_allclose(one.scores(IMAGES, TARGETS), one.endpoint(IMAGES, TARGETS).score, rtol=1e-5, atol=1e-5)


def test_scores_of_no_rows():
    one, none = explainer(), np.zeros((0, *SHAPE), np.float32)
    assert one.all_scores(none).shape == (0, N_CLASSES)
    assert one.scores(none, np.zeros(0, int)).shape == (0,)


def test_a_network_whose_weights_changed_is_explained_by_its_new_ones_once_the_old_are_forgotten():
    network = small_cnn(8, sharpness=8)
    settings = Settings(
        score="logit", rule=Fixed(n_steps=8), tolerances=Tolerances(), layer="conv_2", batch_size=8
    )  # fmt: skip
    one, images, black = Explainer(network, settings), random_images(4, 5), np.zeros((4, *SHAPE), np.float32)
    before = one.integrated_gradients(images, black, TARGETS[:4])
    network.set_weights([weight * 0.5 + 0.25 for weight in network.get_weights()])
    one.forget()
    found = one.integrated_gradients(images, black, TARGETS[:4])
    fresh = Explainer(network, settings).integrated_gradients(images, black, TARGETS[:4])
    assert np.abs(before.score_baseline - fresh.score_baseline).min() > 1e-3
    for name, values in vars(fresh).items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_network_whose_weights_change_is_explained_in_float32_where_bfloat16_would_keep_the_old_ones():
    """In bfloat16 the gradients are of a copy, made with the weights of then."""
    settings = Settings(
        score="logit", rule=Fixed(n_steps=8), tolerances=Tolerances(gap=0.02, error=0.1), layer="", batch_size=8
    )
    changed = {}
    for precision in ("float32", "bfloat16", "chosen"):
        asked = replace(settings, precision="bfloat16" if precision == "chosen" else precision)
        found = Explainer(small_cnn(8), in_float32(asked) if precision == "chosen" else asked)
        found.network.set_weights(small_cnn(9).get_weights())
        found.forget()
        changed[precision] = found.integrated_gradients(IMAGES, BASELINES, TARGETS).attribution
    np.testing.assert_allclose(changed["chosen"], changed["float32"], atol=1e-6)
    assert np.abs(changed["bfloat16"] - changed["float32"]).max() > 0.1 * np.abs(changed["float32"]).max()
