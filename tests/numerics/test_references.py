"""alibi and tf-explain: that they compute anything at all, agree with us where they should, and are off where we say so."""

import gc
import importlib.util
import weakref

import numpy as np
import pytest
import tensorflow as tf

from nested_networks import with_backbone
from reference import SHAPE, Twin, random_images, small_cnn
from tasks.numerics import references
from tasks.numerics.cams import CAMS
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.network.scores import score_model
from tasks.numerics.quadrature import Adaptive, Fixed, Rule, Tolerances, fixed_rule
from tasks.numerics.references import alibi_integrated_gradients, missing_references, tf_explain_maps

IMAGES, BASELINES, TARGETS = random_images(5, 1), random_images(5, 2) * 0.1, np.array([0, 1, 2, 3, 3])
RULES = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle"]


@pytest.fixture
def alibi() -> None:
    pytest.importorskip("alibi", reason="the extra 'reference' is not installed")


@pytest.fixture
def tf_explain() -> None:
    pytest.importorskip("cv2", reason="the extra 'reference' is not installed")
    pytest.importorskip("tf_explain", reason="the extra 'reference' is not installed")


def explainer(rule: Rule, *, score: str = "probability", ig: str = "nightlens", cam: str = "nightlens") -> Explainer:
    tolerances = Tolerances(gap=0.01, error=0.1)
    method = Settings(
        score=score, rule=rule, tolerances=tolerances, layer="conv_2", batch_size=16, ig_engine=ig, cam_engine=cam
    )
    return Explainer(small_cnn(8, sharpness=8), method)


def relative(result: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """||result - expected|| / ||expected|| of each row."""
    norms = [
        np.linalg.norm(array.reshape(len(array), -1).astype(np.float64), axis=1)
        for array in (result - expected, expected)
    ]
    return norms[0] / norms[1]


def theirs(rule: str, n_steps: int) -> np.ndarray:
    model = score_model(small_cnn(8, sharpness=8), "probability")
    return alibi_integrated_gradients(model, IMAGES, BASELINES, TARGETS, rule=rule, n_steps=n_steps, batch_size=16)


@pytest.mark.usefixtures("alibi")
def test_alibi_is_not_all_zero_and_agrees_with_the_twin():
    """Unpinned, the resolver may choose alibi 0.5.5, whose attributions are zero here without a word."""
    result, twin = theirs("gausslegendre", 10), Twin(small_cnn(8, sharpness=8), "probability")
    assert result.shape == (5, *SHAPE) and result.dtype == np.float32
    nodes = fixed_rule("gausslegendre", 10)
    rows = zip(IMAGES, BASELINES, TARGETS, strict=True)
    expected = np.stack([twin.integrated_gradients(image, baseline, t, *nodes) for image, baseline, t in rows])
    assert np.abs(result).max() > 1e-3
    assert (relative(result, expected) < 1e-5).all()


@pytest.mark.usefixtures("alibi")
@pytest.mark.parametrize("rule", RULES)
def test_our_fixed_rules_agree_with_alibi_s(rule):
    ours = explainer(Fixed(rule=rule, n_steps=50)).integrated_gradients(IMAGES, BASELINES, TARGETS)
    assert (relative(ours.attribution, theirs(rule, 50)) < 1e-5).all()


@pytest.mark.usefixtures("alibi")
@pytest.mark.parametrize("n_steps", [10, 50])
def test_alibi_s_trapezoid_is_too_small_by_one_nth_and_ours_is_not(n_steps):
    ours = explainer(Fixed(rule="riemann_trapezoid", n_steps=n_steps)).integrated_gradients(IMAGES, BASELINES, TARGETS)
    biased = theirs("riemann_trapezoid", n_steps)
    assert (relative(biased, ours.attribution * (n_steps - 1) / n_steps) < 1e-5).all()
    np.testing.assert_allclose(relative(biased, ours.attribution), 1 / n_steps, rtol=1e-3)


@pytest.mark.usefixtures("alibi")
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_engine_alibi_fills_the_same_certificate(score):
    rule = Fixed(rule="gausslegendre", n_steps=50)
    ours = explainer(rule, score=score).integrated_gradients(IMAGES, BASELINES, TARGETS)
    other = explainer(rule, score=score, ig="alibi").integrated_gradients(IMAGES, BASELINES, TARGETS)
    assert vars(ours).keys() == vars(other).keys()
    for name, values in vars(ours).items():
        result = getattr(other, name)
        assert (result.dtype, result.shape) == (values.dtype, values.shape), name
        np.testing.assert_allclose(result, values, rtol=1e-4, atol=1e-5, err_msg=name)
    assert 0 < other.converged.sum() < 5, "rows on both sides of the tolerances show that the verdicts agree"


def test_alibi_has_no_adaptive_rule():
    with pytest.raises(ValueError, match=r"alibi has fixed rules only, got Adaptive\("):
        explainer(Adaptive(), ig="alibi").integrated_gradients(IMAGES, BASELINES, TARGETS)


@pytest.mark.usefixtures("tf_explain")
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_tf_explain_agrees_after_the_relu(score):
    ours, other = (explainer(Adaptive(), score=score, cam=engine) for engine in ("nightlens", "tf-explain"))
    maps = ours.endpoint(IMAGES, TARGETS).maps
    theirs = tf_explain_maps(ours.activations_model(), IMAGES, TARGETS)
    engine = other.endpoint(IMAGES, TARGETS).maps
    assert maps.keys() == theirs.keys() == engine.keys() == CAMS.keys()
    for name, expected in maps.items():
        assert theirs[name].min() < 0 < theirs[name].max(), "before its ReLU"
        for found in (np.maximum(theirs[name], 0), engine[name]):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max(), err_msg=name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


@pytest.mark.usefixtures("tf_explain")
def test_tf_explain_takes_nested_models():
    flat, nested = small_cnn(3), with_backbone("functional", "functional", SHAPE)
    expected = tf_explain_maps(score_model(flat, "logit", layer="conv_2"), IMAGES, TARGETS)
    result = tf_explain_maps(score_model(nested, "logit", layer="backbone/conv_2"), IMAGES, TARGETS)
    for name in CAMS:
        np.testing.assert_allclose(result[name], expected[name], atol=1e-6)


def test_missing_references_are_named(monkeypatch):
    installed = {"tf_explain"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    assert missing_references() == ["alibi", "opencv-python-headless"]


@pytest.mark.usefixtures("alibi")
def test_alibi_gives_for_the_compiled_model_what_it_gives_for_the_model() -> None:
    from alibi.explainers import IntegratedGradients

    model = score_model(small_cnn(8, sharpness=8), "probability")
    alone = IntegratedGradients(model, method="gausslegendre", n_steps=10, internal_batch_size=16)
    expected = alone.explain(IMAGES, baselines=BASELINES, target=TARGETS).attributions[0]
    assert (relative(theirs("gausslegendre", 10), expected) < 1e-6).all()


def test_the_model_that_alibi_calls_has_gradients_at_images_and_none_at_weights() -> None:
    network = small_cnn(8, sharpness=8)
    called = references._Called(score_model(network, "probability"))
    images, weights = tf.constant(IMAGES), [variable.value for variable in network.trainable_variables]
    with tf.GradientTape() as tape:  # it watches the weights by itself
        tape.watch(images)
        scores = called(images)[:, 0]
    at_images, *at_weights = tape.gradient(scores, [images, *weights])
    assert np.abs(at_images).max() > 0
    assert at_weights == [None] * len(weights) != []


@pytest.mark.usefixtures("alibi")
def test_alibi_s_model_is_compiled_once_and_does_not_outlive_the_model() -> None:
    model = score_model(small_cnn(8), "probability")
    compiled = []
    for n_steps in (2, 3):
        alibi_integrated_gradients(model, IMAGES, BASELINES, TARGETS, rule=RULES[0], n_steps=n_steps, batch_size=16)
        compiled.append(references._called[model])
    assert compiled[0] is compiled[1]
    gone = weakref.ref(model)
    del model, compiled
    gc.collect()
    assert gone() is None


@pytest.mark.usefixtures("alibi")
def test_alibi_gets_no_more_images_at_once_than_its_paths_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from alibi.explainers import IntegratedGradients

    together, original, given = theirs("gausslegendre", 5), IntegratedGradients.explain, []

    def explain(self, images, **settings):
        given.append(len(images))
        return original(self, images, **settings)

    monkeypatch.setattr(IntegratedGradients, "explain", explain)
    monkeypatch.setattr(references, "PATHS_BYTES", 3 * 5 * IMAGES[0].nbytes)
    np.testing.assert_allclose(theirs("gausslegendre", 5), together, atol=1e-6)
    assert given == [3, 2]
