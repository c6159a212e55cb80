"""Methods beside controls on a linear model, where what an attribution is worth is known; and what cannot be said."""

import dataclasses
import json

import numpy as np
import pytest

from tasks.config import AlertConfig
from tasks.worth.assessment import Assessment
from tasks.worth.controls_table import (
    ANOTHER,
    CONTROLS,
    FRACTIONS,
    ITSELF,
    METRICS,
    PERMUTED,
    Sample,
    measure_controls,
)
from tasks.worth.worth_warnings import find_worth_warnings
from tasks.worth.worth_words import say_worth

TITLE = "Integrated Gradients"
SHAPE = (12, 12, 1)


class Linear:
    """F_t(x) = w_t . x, of which Integrated Gradients are w_t * (x - x'), exactly."""

    def __init__(self, n_classes: int = 3):
        self.weights = np.random.default_rng(5).normal(size=(n_classes, *SHAPE))

    def __call__(self, images, targets):
        return np.einsum("nyxc,nyxc->n", images, self.weights[targets])

    def sample(self, n: int, *, n_classes: int = 3) -> Sample:
        rng = np.random.default_rng(n)
        images = rng.random((n, *SHAPE)).astype(np.float32)
        targets = np.arange(n) % n_classes
        relevance = (self.weights[targets] * images).sum(axis=-1)
        return Sample(images, np.zeros_like(images), targets, {TITLE: relevance}, np.random.default_rng(0))


@pytest.fixture
def linear() -> Linear:
    return Linear()


def test_relevance_gain_is_the_area_between_running_sums(linear):
    sample = linear.sample(24)
    table = measure_controls(linear, sample)
    own = table.judged[0]
    ranked = np.sort(sample.relevance[TITLE].reshape(24, -1))[:, ::-1]
    n = ranked.shape[1]
    running = np.stack([ranked[:, : round(f * n)].sum(axis=1) for f in FRACTIONS], axis=1)
    between = running - (ranked.sum(axis=1, keepdims=True) - running)
    expected = ((between[:, 1:] + between[:, :-1]) / 2).mean(axis=1)
    assert own.metrics["relevance_gain"].mean == pytest.approx(expected.mean(), abs=1e-5)
    np.testing.assert_allclose(own.insertion_curve, running.mean(axis=0), atol=1e-4)
    assert own.metrics["mu_fidelity"].mean == pytest.approx(1, abs=1e-4)


def test_the_exact_attribution_of_a_linear_model_beats_every_control(linear):
    table = measure_controls(linear, linear.sample(24))
    assert [each.name for each in table.judged] == [TITLE, *CONTROLS]
    for control in CONTROLS:
        for metric in ("relevance_gain", "insertion", "deletion"):
            assert table.difference(TITLE, control, metric).is_positive, (control, metric)
    assert table.difference(TITLE, PERMUTED, "mu_fidelity").is_positive
    assert list(find_worth_warnings(Assessment(controls=table), AlertConfig())) == []
    (sentence,) = say_worth(Assessment(controls=table))
    assert sentence.endswith("It does better than all of these controls.")


def test_an_attribution_of_noise_is_uninformative_and_the_words_say_what_does_better(linear):
    sample = linear.sample(48)
    noise = {TITLE: np.random.default_rng(3).normal(size=sample.relevance[TITLE].shape)}
    found = Assessment(controls=measure_controls(linear, dataclasses.replace(sample, relevance=noise)))
    (warning,) = find_worth_warnings(found, AlertConfig())
    assert warning.kind == "uninformative"
    assert list(find_worth_warnings(found, AlertConfig(uninformative=0))) == []
    (sentence,) = say_worth(found)
    assert "cannot be told from it on 48 rows" in sentence


def test_a_control_that_does_better_is_named(linear):
    sample = linear.sample(48)
    against = {TITLE: -sample.relevance[TITLE]}
    (sentence,) = say_worth(
        Assessment(controls=measure_controls(linear, dataclasses.replace(sample, relevance=against)))
    )
    assert f"do better than {TITLE} here" in sentence
    assert PERMUTED[1:] in sentence


def test_the_only_row_of_its_class_has_no_other_image(linear):
    sample = linear.sample(30)
    targets = sample.predictions.copy()
    targets[targets == 2] = 0
    targets[0] = 2
    table = measure_controls(linear, dataclasses.replace(sample, predictions=targets))
    by_name = {each.name: each for each in table.judged}
    assert by_name[ANOTHER].metrics["relevance_gain"].n_rows == 29
    assert by_name[ITSELF].metrics["relevance_gain"].n_rows == 30


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sample: dataclasses.replace(sample, images=sample.baselines),
        lambda sample: dataclasses.replace(sample, relevance={TITLE: np.zeros(sample.images.shape[:3])}),
        lambda sample: dataclasses.replace(sample, predictions=np.zeros(len(sample), np.int64)),
    ],
    ids=["images that are the baseline", "attributions of zero", "one class"],
)
def test_what_is_not_defined_is_said_and_is_never_nan(linear, spoil):
    found = Assessment(controls=measure_controls(linear, spoil(linear.sample(24))))
    text = json.dumps(found.as_json(), allow_nan=False)
    assert Assessment.model_validate(json.loads(text)) == found
    list(say_worth(found))
    list(find_worth_warnings(found, AlertConfig()))


@pytest.mark.parametrize("n", [0, 1, 7])
def test_of_too_few_rows_nothing_is_said(linear, n: int):
    table = measure_controls(linear, linear.sample(n))
    for each in table.judged:
        assert all(each.metrics[metric].mean is None for metric in METRICS)
    (sentence,) = say_worth(Assessment(controls=table))
    assert "too few rows" in sentence
    assert list(find_worth_warnings(Assessment(controls=table), AlertConfig())) == []
    json.dumps(Assessment(controls=table).as_json(), allow_nan=False)


def test_progress_ends_with_all_of_it(linear):
    shares = list[float]()
    measure_controls(linear, linear.sample(9), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
