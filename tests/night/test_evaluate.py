"""The figures of an evaluation against numbers worked out by hand, and against the definitions."""

from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score

from contracts import unit_contract
from tasks.config import ExplanationConfig
from tasks.datasets import Dataset, read_rows
from tasks.evaluate import Evaluation, measure, predict_all
from tasks.models.registry import ModelError, ModelRecord, load_model, read_record

NAMES = ("cat", "dog", "eel")
# Four images: cat right, cat taken for dog, dog right, dog right. No eel, and nothing taken for one.
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0]], np.float32)
LABELS = np.array([0, 0, 1, 1])


@pytest.fixture
def evaluation() -> Evaluation:
    return measure(PROBABILITIES, LABELS, NAMES, seed=0)


def test_accuracy_loss_and_confusion_by_hand(evaluation: Evaluation) -> None:
    assert evaluation.n_rows == 4
    assert evaluation.accuracy == 0.75
    assert evaluation.loss == pytest.approx(-(np.log(0.8) + np.log(0.3) + np.log(0.7) + np.log(0.9)) / 4, rel=1e-6)
    assert evaluation.confusion == ((1, 1, 0), (0, 2, 0), (0, 0, 0))


def test_classes_by_hand(evaluation: Evaluation) -> None:
    cat, dog, eel = evaluation.classes
    assert (cat.name, cat.precision, cat.recall, cat.f1, cat.images) == ("cat", 1, 0.5, pytest.approx(2 / 3), 2)
    assert (dog.name, dog.precision, dog.recall, dog.f1, dog.images) == ("dog", pytest.approx(2 / 3), 1, 0.8, 2)
    assert (eel.name, eel.precision, eel.recall, eel.f1, eel.images) == ("eel", 0, 0, 0, 0)


def test_expected_calibration_error_by_hand(evaluation: Evaluation) -> None:
    """All four confidences fall into different fifteenths: the mean of |correct - confidence|."""
    assert evaluation.expected_calibration_error == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4, rel=1e-6)


def test_independent_probabilities_need_not_sum_to_one() -> None:
    """Three sigmoids: the loss is of the shares of their sum, confidences are as they are, and all zeros say nothing."""
    probabilities = np.array([[0.9, 0.6, 0.3], [0.1, 0.1, 0.05], [0.0, 0.0, 0.0]], np.float32)
    evaluation = measure(probabilities, np.array([0, 1, 2]), NAMES, seed=0)
    assert evaluation.loss == pytest.approx(-(np.log(0.9 / 1.8) + np.log(0.1 / 0.25) + np.log(1 / 3)) / 3, rel=1e-6)
    # Right at 0.9, wrong at 0.1 and at 0.
    assert evaluation.expected_calibration_error == pytest.approx((0.1 + 0.1 + 0.0) / 3, rel=1e-6)


def test_everything_against_scikit_learn() -> None:
    random = np.random.default_rng(7)
    labels = random.integers(0, 3, 200)
    probabilities = random.dirichlet(np.ones(3), 200).astype(np.float32)
    predictions = probabilities.argmax(axis=1)
    evaluation = measure(probabilities, labels, NAMES, seed=0)
    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    assert evaluation.loss == pytest.approx(log_loss(labels, exact), rel=1e-6)
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        np.testing.assert_allclose(
            [getattr(c, name) for c in evaluation.classes], score(labels, predictions, average=None)
        )
    assert np.sum(evaluation.confusion) == 200
    assert np.trace(evaluation.confusion) / 200 == evaluation.accuracy


def test_the_random_image_follows_from_the_seed() -> None:
    labels, probabilities = np.tile(LABELS, 50), np.tile(PROBABILITIES, (50, 1))
    chosen = {seed: measure(probabilities, labels, NAMES, seed).random_image for seed in range(8)}
    assert chosen == {seed: measure(probabilities, labels, NAMES, seed).random_image for seed in range(8)}
    assert len({image.row for image in chosen.values()}) > 4
    for image in chosen.values():
        assert image.label == labels[image.row]
        assert image.prediction == probabilities[image.row].argmax()


def test_predictions_are_the_models_on_the_test_split_in_order(small_model: ModelRecord, digits: Dataset) -> None:
    probabilities, labels = predict_all(
        small_model, unit_contract(small_model, digits), digits, ExplanationConfig(batch_size=100)
    )
    images, truth = read_rows(digits, "test", 0, digits.n_test)
    np.testing.assert_array_equal(labels, truth)
    expected = load_model(small_model.path).predict(images.astype(np.float32) / 255, verbose=0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_outputs_that_are_not_finite_are_refused_with_their_rows(digits: Dataset, tmp_path: Path) -> None:
    overflowing_network().save(tmp_path / "overflow.keras")
    record = read_record(tmp_path / "overflow.keras")
    contract = unit_contract(record, digits)
    with pytest.raises(ModelError, match=r"overflow gives outputs that are not finite for 360 rows, first \[0, 1, 2"):
        predict_all(record, contract, digits, ExplanationConfig())


def overflowing_network() -> keras.Model:
    """Finite weights, outputs that are not: two factors of 1e30 leave float32, and softmax of infinities is no number."""
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.Constant(1e30), name="conv")(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    ends = keras.layers.Dense(10, kernel_initializer=keras.initializers.Constant(1e30), activation="softmax")
    return keras.Model(images, ends(x))
