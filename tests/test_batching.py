"""The batch size: memory from the layers' shapes, the choice from times in closed form, and no measurement of short nights."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import small_cnn

from tasks.config import ExplanationConfig
from tasks.numerics import batching
from tasks.numerics.batching import (
    IMAGE_COPIES,
    LARGEST,
    RULE,
    bytes_per_image,
    choose_batch_size,
    fastest,
    fitting,
    ruled,
    time_batches,
)
from tasks.numerics.precision import in_precision
from tasks.numerics.scores import score_model
from tasks.plan import Plan
from tasks.registry import ModelRecord

SIZES = [16, 64, 256, 1024, 4096]
LONG_S = 60.0


def by_hand(item: int = 4) -> int:
    """small_cnn's outputs, (10, 8, 2) images: two at full size with 5 channels, pooled 5x4 with 5 and 6, and the dense ones."""
    full, pooled, second = 10 * 8 * 5, 5 * 4 * 5, 5 * 4 * 6
    halved = item * (
        2 * full + pooled + 3 * second + 7
    )  # convolution, normalisation, pool, convolution, flatten, dropout
    return halved + 4 * 4 + IMAGE_COPIES * 4 * 10 * 8 * 2


def test_memory_is_that_of_every_layers_output_and_of_copies_of_the_image():
    assert bytes_per_image(score_model(small_cnn(0), "probability")) == by_hand()


def test_half_as_many_bytes_in_bfloat16_but_for_the_last_layer_and_the_image():
    model = score_model(in_precision(small_cnn(0), "bfloat16"), "probability")
    assert bytes_per_image(model) == by_hand(item=2)


def test_a_model_within_a_model_counts_as_its_layers():
    images = keras.Input((10, 8, 2))
    nested = bytes_per_image(keras.Model(images, small_cnn(0)(images)))
    assert by_hand() <= nested <= 2 * by_hand()


@pytest.mark.parametrize(("factor", "images"), [(0.3, 1), (1, 1), (2, 2), (3.9, 2), (4, 4), (1e9, LARGEST)])
def test_what_fits_is_a_power_of_two_within_the_memory(factor, images):
    model = score_model(small_cnn(0), "probability")
    assert fitting(model, factor * bytes_per_image(model)) == images


def test_a_large_network_on_large_images_gets_a_small_batch():
    network = score_model(keras.applications.MobileNetV2(weights=None, classes=4), "probability")
    assert 70e6 < bytes_per_image(network) < 120e6
    assert ruled(network, 1e9).images == 8
    assert "all that fits" in ruled(network, 1e9).reason


@pytest.mark.parametrize(("a_call", "expected"), [(0.0, 16), (0.01, 256), (0.1, 4096)])
def test_the_smallest_that_is_about_as_fast_as_the_best(a_call, expected):
    """A call of n takes a_call and n ms: a_call / n and 1 ms each, within 5 % of 1 ms from n = 20 a_call / ms on."""
    found = time_batches(lambda size: a_call + 1e-3 * size, SIZES, LONG_S)
    assert fastest(found) == expected


def test_timing_ends_when_larger_batches_are_no_faster():
    def time_call(size: int) -> float:
        return 1e-3 * size if size > 16 else 2e-3 * size

    assert list(time_batches(time_call, SIZES, LONG_S)) == [16, 64, 256]
    assert fastest({8: 2.0, 16: 1.01, 32: 1.0}) == 16


def test_timing_ends_with_its_time_and_with_what_does_not_fit():
    assert list(time_batches(lambda size: 1 / size, SIZES, limit_s=0)) == [16]

    def bears(most: int) -> Callable[[int], float]:
        def time_call(size: int) -> float:
            if size > most:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return 1.0  # so that twice as many are twice as fast

        return time_call

    assert list(time_batches(bears(256), SIZES, LONG_S)) == [16, 64, 256]
    assert time_batches(bears(8), SIZES, LONG_S) == {}


def test_a_strange_time_does_not_decide():
    ones = [9.0, *[1.0] * 4, *[1.0, 50.0, 1.0, 1.0], *[1.0] * 4]  # the first call, and three rounds of four images
    four = [9.0, 3.0, 3.0, 0.1]
    times = iter([*ones, *four])
    assert time_batches(lambda size: next(times), [1, 4], LONG_S) == {1: 1.0, 4: 0.75}
    assert next(times, None) is None


def test_a_long_night_is_measured_and_a_short_one_is_not(monkeypatch):
    model = score_model(small_cnn(0), "probability")
    calls = batching.LEAST_WORK_S * batching.BYTES_A_SECOND / bytes_per_image(model)
    chosen = choose_batch_size(model, 1e9, 1.01 * calls)
    assert chosen.reason.startswith("measured, ms a gradient by images in a call: 16: ")
    assert chosen.images in SIZES
    monkeypatch.setattr(batching, "time_batches", None)  # not to be called
    short = choose_batch_size(model, 1e9, 0.99 * calls)
    assert (short.images, short.reason) == (RULE, "by rule, and fits by estimate; too little work to measure")


def test_where_few_fit_there_is_nothing_to_measure(monkeypatch):
    model = score_model(small_cnn(0), "probability")
    monkeypatch.setattr(batching, "time_batches", None)  # not to be called
    chosen = choose_batch_size(model, 9 * bytes_per_image(model), 1e12)
    assert (chosen.images, chosen.reason) == (8, "all that fits by estimate")


def test_a_slow_network_is_timed_for_no_longer_than_its_time():
    calls: list[int] = []
    assert list(time_batches(lambda size: calls.append(size) or 1.0, SIZES, limit_s=0)) == [16]
    assert calls == [16] * (1 + 256 // 16)  # the first call and one round


@pytest.mark.parametrize(
    ("work", "fits", "sizes", "limit_s"),
    [(100, 4096, SIZES, 4.0), (1e6, 300, [16, 64, 256], 10.0), (200, 130, [16, 64, 128], 8.0)],
)
def test_what_is_timed_follows_from_the_work_and_the_memory(monkeypatch, work, fits, sizes, limit_s):
    model, told = score_model(small_cnn(0), "probability"), []
    monkeypatch.setattr(batching, "time_batches", lambda _call, *settings: told.append(settings) or {16: 2.0, 64: 1.0})
    n_gradients = work * batching.BYTES_A_SECOND / bytes_per_image(model)
    assert choose_batch_size(model, (fits + 0.5) * bytes_per_image(model), 1.001 * n_gradients).images == 64
    ((timed, limit),) = told
    assert timed == sizes and limit == pytest.approx(limit_s, rel=0.01)


@pytest.mark.parametrize("found", [{}, {16: 1.0}], ids=["no room", "no time"])
def test_a_measurement_that_compares_nothing_does_not_decide(monkeypatch, found):
    monkeypatch.setattr(batching, "time_batches", lambda time_call, sizes, limit_s: found)
    chosen = choose_batch_size(score_model(small_cnn(0), "probability"), 1e9, 1e12)
    assert chosen.images == RULE and chosen.reason.endswith("the machine had no room or time to measure")


def test_a_plan_takes_the_configured_size_or_chooses_within_memory(
    make_small_plan: Callable[..., Plan], tmp_path: Path, small_model: ModelRecord
) -> None:
    def plan(**settings) -> Plan:
        return make_small_plan(tmp_path, explanation=ExplanationConfig(part_rows=8, **settings))

    assert (plan(batch_size=5).batch_size, plan(batch_size=5).batch_reason) == (5, "by configuration")
    assert (plan().batch_size, plan().method().batch_size) == (RULE, RULE)
    few = plan(memory_gb=0.001)
    assert few.batch_size < 16 and few.batch_reason == "all that fits by estimate"
    assert few.digest == plan().digest == plan(batch_size=5).digest


def test_only_parts_that_are_missing_are_worth_a_measurement(make_small_plan, tmp_path, monkeypatch):
    asked: list[float] = []
    monkeypatch.setattr(
        "tasks.plan.choose_batch_size",
        lambda model, memory, n: asked.append(n) or batching.BatchSize(8, "so it was asked"),
    )
    explanation = ExplanationConfig(part_rows=8)
    plan = make_small_plan(tmp_path, explanation=explanation)
    plan.part(0, 8).parent.mkdir(parents=True)
    plan.part(0, 8).touch()
    make_small_plan(tmp_path, explanation=explanation)
    assert asked == [20 * 16, 12 * 16]
    assert np.isclose(plan.batch_size, 8)
