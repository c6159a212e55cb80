"""The batch size: memory from the layers' shapes, the choice from times in closed form, and no measurement of short nights."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from reference import small_cnn
from tasks.config import ExplanationConfig
from tasks.models.registry import ModelRecord
from tasks.numerics import batching
from tasks.numerics.batching import (
    IMAGE_COPIES,
    LARGEST,
    RULE,
    bytes_per_image,
    choose_batch_size,
    fastest,
    fitting,
    memory_bytes,
    ruled,
    time_batches,
)
from tasks.numerics.network.precision import in_precision
from tasks.numerics.network.scores import score_model
from tasks.parts import plan as planning
from tasks.parts.plan import Plan

SERIES = [256, 64, 16], [1024, 4096]
LONG_S = 1e6


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


@pytest.mark.parametrize(("a_call", "expected"), [(0.0, 256), (0.01, 256), (0.05, 1024), (0.1, 4096)])
def test_the_rule_unless_a_larger_batch_is_clearly_faster(a_call, expected):
    """A call of n takes a_call and n ms, so a_call / n and 1 ms each."""
    found = time_batches(lambda size: a_call + 1e-3 * size, SERIES, LONG_S)
    assert fastest(found, RULE) == expected


@pytest.mark.parametrize(("a_thousand", "expected"), [(0.0, 256), (0.1, 256), (0.5, 64), (5.0, 16)])
def test_the_rule_unless_a_smaller_batch_is_clearly_faster(a_thousand, expected):
    """A gradient takes 1 ms, and so much more for a thousand images in its call."""
    found = time_batches(lambda size: 1e-3 * size * (1 + a_thousand * size / 1000), SERIES, LONG_S)
    assert fastest(found, RULE) == expected


def test_of_those_that_are_about_as_fast_the_nearest_to_the_rule_is_chosen():
    assert fastest({16: 1.04, 64: 1.0, 256: 1.049, 1024: 1.0}, 256) == 256
    assert fastest({16: 1.04, 64: 1.0, 256: 1.06, 4096: 1.0}, 256) == 64
    assert fastest({16: 1.0, 32: 1.1, 128: 1.2}, 128) == 16


def test_timing_ends_in_either_direction_where_it_gets_no_faster():
    assert list(time_batches(lambda size: 1e-3 * size, SERIES, LONG_S)) == [256, 64, 1024]
    faster_down = time_batches(lambda size: 1e-3 * size * (1 + size / 1000), SERIES, LONG_S)
    assert list(faster_down) == [256, 64, 16, 1024]


def test_timing_ends_with_its_time():
    calls: list[int] = []
    assert list(time_batches(lambda size: calls.append(size) or 1.0, SERIES, limit_s=0)) == [256]
    assert calls == [256] * 2  # the first call and one round


def test_a_size_is_not_begun_that_the_time_is_too_short_for():
    """At a second a call of 256, two calls of 1,024 take eight seconds, and two rounds of 64 two."""
    assert list(time_batches(lambda size: size / 256, SERIES, limit_s=7)) == [256, 64]
    assert list(time_batches(lambda size: size / 256, SERIES, limit_s=9)) == [256, 64, 1024]


def test_what_does_not_fit_ends_a_series_and_the_first_is_done_without():
    def bears(most: int) -> Callable[[int], float]:
        def time_call(size: int) -> float:
            if size > most:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return 1e-3  # so that four times as many are four times as fast

        return time_call

    assert list(time_batches(bears(1024), SERIES, LONG_S)) == [256, 64, 1024]
    assert list(time_batches(bears(100), SERIES, LONG_S)) == [64, 16]
    assert time_batches(bears(8), SERIES, LONG_S) == {}


def test_a_strange_time_does_not_decide():
    rule, smaller = [9.0, 256.0, 900.0, 256.0], [9.0, *[64.0] * 4, *[64.0, 5000.0, 64.0, 64.0], *[64.0] * 4]
    times = iter([*rule, *smaller])
    assert time_batches(lambda size: next(times), [[256, 64]], 1e9) == {256: 1.0, 64: 1.0}
    assert next(times, None) is None


def test_the_stopwatch_times_a_call_of_gradients():
    time_call = batching._stopwatch(score_model(small_cnn(0), "probability"))
    began = time.perf_counter()
    told = time_call(16)
    assert 0 < told <= time.perf_counter() - began


def test_a_long_night_is_measured_and_a_short_one_is_not(monkeypatch):
    """A call of n takes 500 + 10 n microseconds, so a gradient (500 / n + 10)."""
    monkeypatch.setattr(batching, "_stopwatch", lambda model, in_calls: lambda size: 5e-4 + 1e-5 * size)
    model = score_model(small_cnn(0), "probability")
    calls = batching.LEAST_WORK_S * batching.BYTES_A_SECOND / bytes_per_image(model)
    chosen = choose_batch_size(model, 1e9, 1.01 * calls)
    times = "64: 0.0178, 256: 0.012, 1024: 0.0105, 4096: 0.0101"
    assert chosen.images == 1024
    assert chosen.reason == f"measured, ms a gradient by images in a call: {times}; {LARGEST} fit by estimate"
    monkeypatch.setattr(batching, "time_batches", None)  # not to be called
    short = choose_batch_size(model, 1e9, 0.99 * calls)
    assert (short.images, short.reason) == (RULE, "by rule, and fits by estimate; too little work to measure")


def test_where_few_fit_there_is_nothing_to_measure(monkeypatch):
    model = score_model(small_cnn(0), "probability")
    monkeypatch.setattr(batching, "time_batches", None)  # not to be called
    chosen = choose_batch_size(model, 9 * bytes_per_image(model), 1e12)
    assert (chosen.images, chosen.reason) == (8, "all that fits by estimate")


@pytest.mark.parametrize("found", [{}, {16: 1.0}], ids=["no room", "no time"])
def test_a_measurement_that_compares_nothing_does_not_decide(monkeypatch, found):
    monkeypatch.setattr(batching, "time_batches", lambda time_call, series, limit_s: found)
    chosen = choose_batch_size(score_model(small_cnn(0), "probability"), 1e9, 1e12)
    assert chosen.images == RULE and chosen.reason.endswith("the machine had no room or time to measure")


def test_a_plan_takes_the_configured_size_or_chooses_within_memory(
    make_small_plan: Callable[..., Plan], tmp_path: Path, small_model: ModelRecord
) -> None:
    def plan(**settings) -> Plan:
        return make_small_plan(tmp_path, explanation=ExplanationConfig(part_rows=8, **settings))

    assert (plan(batch_size=5).batch_size, plan(batch_size=5).batch_reason) == (5, "by configuration")
    assert (plan().batch_size, plan().settings().batch_size) == (RULE, RULE)
    few = plan(memory_gb=0.001)
    assert few.batch_size < 16 and few.batch_reason == "all that fits by estimate"
    assert few.digest == plan().digest == plan(batch_size=5).digest


def test_only_parts_that_are_missing_are_worth_a_measurement(make_small_plan, tmp_path, monkeypatch):
    asked: list[float] = []
    monkeypatch.setattr(
        planning,
        "choose_batch_size",
        lambda model, memory, n, xla, in_calls: asked.append(n) or batching.BatchSize(8, "so it was asked"),
    )
    explanation = ExplanationConfig(part_rows=8)
    plan = make_small_plan(tmp_path, explanation=explanation)
    plan.part(0, 8).parent.mkdir(parents=True)
    plan.part(0, 8).touch()
    make_small_plan(tmp_path, explanation=explanation)
    assert asked == [20 * 16, 12 * 16]
    assert np.isclose(plan.batch_size, 8)


@pytest.fixture
def gpu_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Has TensorFlow say what it does of a GPU: the bytes it may take, and those it has given out."""

    def pretend(limit: int, given_out: int) -> None:
        gpu = SimpleNamespace(device_type="GPU", memory_limit=limit)
        monkeypatch.setattr(batching.device_lib, "list_local_devices", lambda: [gpu])
        monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda _: {"current": given_out})

    batching._free_gpu_bytes.cache_clear()
    yield pretend
    batching._free_gpu_bytes.cache_clear()


def test_of_a_gpu_most_of_what_was_free_at_first_is_taken_by_every_part(gpu_with):
    gpu_with(80 * 10**9, 10**9)
    assert memory_bytes(None) == 0.8 * 79e9
    gpu_with(80 * 10**9, 60 * 10**9)  # a part is in work
    assert memory_bytes(None) == 0.8 * 79e9
    assert memory_bytes(2.5) == 2.5e9


def test_of_a_cpu_one_gigabyte_is_taken():
    assert memory_bytes(None) == 1e9
