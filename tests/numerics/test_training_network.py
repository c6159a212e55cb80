"""Training by faster operations: gradients, moving statistics and a whole training are Keras's own to rounding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.network.training_network import TrainingNetwork, steps_a_call

# The last maps are 2x2: of 32 values a filter, the variance and its estimate differ by 3 %.
SHAPE, BATCH = (8, 8, 1), 8


def images_and_labels(n: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((n, *SHAPE), np.float32), rng.integers(0, 4, n)


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    return build_cnn(SHAPE, 4)


def step(model: keras.Model, called: keras.Model) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Gradients of the loss, and what is not trained, such as moving statistics, after a call in training."""
    images, labels = images_and_labels()
    with tf.GradientTape() as tape:
        loss = keras.losses.sparse_categorical_crossentropy(labels, called(images, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    return [each.numpy() for each in gradients], [each.numpy() for each in model.non_trainable_variables]


def test_gradients_and_moving_statistics_are_keras_s() -> None:
    plain = network()
    expected = step(plain, plain)
    model = network()
    for found, wanted in zip(step(model, TrainingNetwork(model, BATCH)), expected, strict=True):
        assert all(np.abs(values).max() > 0 for values in wanted)
        for ours, keras_s in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, keras_s, rtol=1e-4, atol=1e-5 * np.abs(keras_s).max() + 1e-7)


def fitted(model: keras.Model, trained: keras.Model) -> tuple[dict[str, list[float]], list[np.ndarray]]:
    images, labels = images_and_labels(4 * BATCH)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
    history = trained.fit(batches, validation_data=batches, epochs=1, verbose=0, shuffle=False).history
    return history, model.get_weights()


def with_plain_descent() -> keras.Model:
    """Adam's first steps follow the sign of a gradient, which rounding decides where it is about zero. After a few steps more
    training makes a large difference of rounding.
    """
    model = network()
    model.compile(keras.optimizers.SGD(0.001), model.loss, metrics=["accuracy"])
    return model


def test_a_training_is_keras_s_and_ends_in_the_model_itself() -> None:
    plain, model = with_plain_descent(), with_plain_descent()
    history, weights = fitted(plain, plain)
    found, ours = fitted(model, TrainingNetwork(model, BATCH))
    assert found.keys() == history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)
    for found_weights, wanted in zip(ours, weights, strict=True):
        np.testing.assert_allclose(found_weights, wanted, rtol=1e-4, atol=1e-5)
    assert int(model.optimizer.iterations) == 4, "the optimizer that is saved with the model"


def test_at_inference_it_is_the_model() -> None:
    model = network()
    images, _ = images_and_labels()
    np.testing.assert_array_equal(TrainingNetwork(model, BATCH)(images), model(images))


@pytest.mark.parametrize(
    ("shape", "batch", "steps"),
    [((32, 32, 3), 32, 8), ((32, 32, 3), 256, 1), ((96, 96, 1), 8, 3), ((224, 224, 3), 32, 1)],
    ids=str,
)
def test_a_call_is_of_so_many_steps_that_progress_can_be_reported(
    shape: tuple[int, int, int], batch: int, steps: int
) -> None:
    assert steps_a_call(batch, shape) == steps
