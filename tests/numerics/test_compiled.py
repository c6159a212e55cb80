"""A compiled function gives every row its own result, traces each shape once, and halves a batch that does not fit.

The network that does not fit runs out of memory inside its graph when a batch has more rows than it bears, which TensorFlow
reports as it does a tensor that cannot be allocated (for which its allocator would first try for ten seconds).
"""

import logging
import threading
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine_calls import compiled_gradients, watch_traces
from reference import N_CLASSES, SHAPE, random_images, randomise, small_cnn
from tasks.numerics.endpoint import CompiledEndpoint
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.network.compiled import Compiled
from tasks.numerics.network.scores import CompiledScores, network_of, score_model
from tasks.numerics.quadrature import Adaptive, Tolerances

N = 21
IMAGES, TARGETS = random_images(N, 1), np.arange(N) % N_CLASSES


@keras.saving.register_keras_serializable("tests")
class Hungry(keras.layers.Layer):
    """Passes its input on; a batch of more than `bears` rows runs out of memory on the way."""

    def __init__(self, bears: int, **kwargs):
        super().__init__(**kwargs)
        self.bears = bears

    def call(self, inputs):
        @tf.custom_gradient
        def pass_on(tensor):
            def eat(n_rows):
                if n_rows > self.bears:
                    raise MemoryError(f"{n_rows} rows are too many")
                return np.float32(0)

            eaten = tf.ensure_shape(tf.numpy_function(eat, [tf.shape(tensor)[0]], tf.float32), ())
            return tensor + eaten, lambda upstream: upstream

        return pass_on(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


def hungry(bears: int) -> keras.Model:
    images = x = keras.Input(SHAPE)
    x = Hungry(bears)(x)
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(images, keras.layers.Dense(N_CLASSES, activation="softmax")(x))
    randomise(model, 0)
    return model


FUNCTIONS: dict[str, Callable] = {
    "scores": lambda model, size, tell: lambda: CompiledScores(model, size, tell)(IMAGES),
    "gradients": lambda model, size, tell: lambda: compiled_gradients(model, size, tell)(IMAGES, TARGETS)[0],
    "gradients and maps": lambda model, size, tell: (
        lambda: CompiledEndpoint(network_of(model).model, "probability", "conv", size, tell)(IMAGES, TARGETS).maps[
            "grad_cam"
        ]
    ),
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_batch_that_does_not_fit_is_halved_and_told(what):
    told: list[str] = []
    result = FUNCTIONS[what](score_model(hungry(5), "probability"), 16, told.append)()
    expected = FUNCTIONS[what](score_model(hungry(10**6), "probability"), 16, told.append)()
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert told == [
        f"a batch of 16 images does not fit into memory for {what}; going on with 8",
        f"a batch of 8 images does not fit into memory for {what}; going on with 4",
    ]


def test_tensorflow_says_so_by_its_own_error():
    with pytest.raises(tf.errors.ResourceExhaustedError, match="6 rows are too many"):
        tf.function(score_model(hungry(5), "probability"))(IMAGES[:6])


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_single_image_that_does_not_fit_is_one_clear_line(what):
    expected = f"^the {what} of a single image do not fit into memory; run fewer parts at a time .*[^\n]*$"
    with pytest.raises(MemoryError, match=expected):
        FUNCTIONS[what](score_model(hungry(0), "probability"), 4, lambda line: None)()


def test_without_anybody_to_tell_it_is_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        CompiledScores(score_model(hungry(5), "probability"), 8)(IMAGES)
    assert "a batch of 8 images does not fit into memory for scores; going on with 4" in caplog.text


def test_python_running_out_of_memory_halves_as_well():
    calls: list[int] = []

    def function(rows: tf.Tensor) -> tuple[tf.Tensor]:
        def double(values):
            calls.append(len(values))
            if len(values) > 2:
                raise MemoryError("array is too big")
            return 2 * values

        return (tf.ensure_shape(tf.numpy_function(double, [rows], tf.float32), rows.shape),)

    compiled = Compiled("doubles", function, 8, on_halving=lambda line: None)
    rows = np.arange(7, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(compiled(rows)[0], 2 * rows)
    assert calls == [8, 4, 2, 2, 2, 2] and compiled.batch_size == 2


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def function(rows: tf.Tensor) -> tuple[tf.Tensor]:
        tf.debugging.assert_less(rows, 3.0, "three is too much")
        return (rows,)

    with pytest.raises(tf.errors.InvalidArgumentError, match="three is too much"):
        Compiled("rows", function, 4)(np.arange(4, dtype=np.float32))


@pytest.mark.parametrize("bears", [10**6, 5], ids=["all fit", "halved twice"])
def test_each_shape_is_traced_once_over_a_whole_part(bears):
    """Ragged ends, rows explained twice, and halving: 16 and 2, of which 8 and 4 are left."""
    told: list[str] = []
    method = Settings(score="probability", rule=Adaptive(), tolerances=Tolerances(), layer="conv", batch_size=16)
    explainer = Explainer(hungry(bears), method, told.append)
    traces = watch_traces(explainer.engine)
    for n in (N, 3, 16, 17, N):
        twice = np.concatenate([IMAGES[:n], IMAGES[: n // 3]])
        targets = np.concatenate([TARGETS[:n], (TARGETS[: n // 3] + 1) % N_CLASSES])
        explainer.integrated_gradients(twice, random_images(len(twice), n), targets)
    assert traces == [(None, *SHAPE)]
    assert explainer._endpoint.n_traces <= 2 + (bears < N) * 2
    assert explainer._scores.n_traces == (1 if bears > N else 3)
    assert len(told) == (0 if bears > N else 6)


def test_threads_that_meet_the_same_limit_halve_once():
    told: list[str] = []
    compiled = compiled_gradients(score_model(hungry(8), "probability"), 16, told.append)
    barrier, results = threading.Barrier(4), []

    def work() -> None:
        barrier.wait()
        results.append(compiled(IMAGES, TARGETS)[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiled.batch_size == 8 and len(told) == 1 and len(results) == 4
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-6)


def test_all_rows_of_an_ordinary_network_come_back_in_order():
    model = score_model(small_cnn(3), "logit")
    np.testing.assert_allclose(CompiledScores(model, 8)(IMAGES), model(IMAGES), atol=1e-5)
