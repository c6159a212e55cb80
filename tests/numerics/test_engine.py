"""The engine gives what the slow twin gives, whatever shares its batches, its slots and its memory.

Three networks for the numbers, random settings for the corners, and rows in closed form (marked_rows.py) where it matters which
row was computed when.
"""

import gc
import sys
import weakref
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine_calls import assert_all_slots_are_free, assert_same, compiled_gradients, engine_of, watch_traces
from marked_rows import MARKED_SHAPE, Arguments, MarkedRows, memory_of
from places import TESTS
from reference import N_CLASSES, NEVER, SHAPE, random_images, small_cnn
from slow_integrals import integrate
from tasks.numerics.engine import Engine, RowTooLarge
from tasks.numerics.engine.adaptive import Panels
from tasks.numerics.engine.buffers import Buffers
from tasks.numerics.integrated_gradients import Attributions, target_gradients
from tasks.numerics.quadrature import Adaptive, Fixed, Rule, Tolerances

sys.path.append(str(TESTS / "benchmarks"))

from rules import plain, residual

RULES: dict[str, Rule] = {
    "adaptive": Adaptive(),
    "in a, from two panels": Adaptive(exponent=1, n_start=2),
    "from one panel, to an odd number": Adaptive(exponent=2, n_start=1, n_max=101),
    "doubling": Adaptive(refine_fraction=1),
    "Gauss-Legendre": Fixed(n_steps=20),
    "left": Fixed(rule="riemann_left", n_steps=7),
    "right": Fixed(rule="riemann_right", n_steps=7),
    "middle": Fixed(rule="riemann_middle", n_steps=7),
    "trapezoid": Fixed(rule="riemann_trapezoid", n_steps=9),
}
TIGHT = Tolerances(gap=0.002, error=0.02)
BATCH = 16
SHARPNESS = 8  # of the networks' last weights: the larger, the more nodes do rows need
STEEP = 4  # a marked row that needs more nodes than the others


@cache
def network(name: str) -> keras.Model:
    if name == "small":
        return small_cnn(8, sharpness=8)
    keras.utils.set_random_seed(8)
    model = {"plain": plain, "residual": residual}[name]((12, 12, 2), N_CLASSES)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([SHARPNESS * kernel, bias])
    return model


@cache
def rows_of(name: str, n: int = 24) -> Arguments:
    """Rows of several baselines and targets, of growing contrast; row 2 is its own baseline."""
    contrast = np.linspace(0.2, 1, n, dtype=np.float32)[:, None, None, None]
    shape, targets = network(name).input_shape[1:], np.arange(n) % N_CLASSES
    images, baselines = random_images(n, 1, shape) * contrast, random_images(n, 2, shape) * 0.1
    baselines[2] = images[2]
    ends, score = gradients_of(name)(images, targets)
    return images, baselines, targets, score, gradients_of(name)(baselines, targets)[1], ends


@cache
def gradients_of(name: str):
    return compiled_gradients(network(name), BATCH)


def twin(name: str, arguments: Arguments, rule: Rule, tolerances: Tolerances) -> Attributions:
    *known, ends = arguments
    return integrate(
        gradients_of(name), *known, end_gradients=ends, rule=rule, tolerances=tolerances, batch_size=BATCH
    )  # fmt: skip


def engine_for(name: str, rule: Rule, tolerances: Tolerances = TIGHT, *, batch_size=BATCH, memory_bytes=1e7) -> Engine:
    return Engine(
        target_gradients(network(name)), network(name).input_shape[1:],
        rule=rule, tolerances=tolerances, batch_size=batch_size, memory_bytes=memory_bytes,
    )  # fmt: skip


def some(arguments: Arguments, rows: slice | np.ndarray) -> Arguments:
    images, baselines, targets, score, score_baseline, ends = (array[rows] for array in arguments)
    return images, baselines, targets, score, score_baseline, ends


# The slow twin


@pytest.mark.parametrize(
    "rule",
    [pytest.param(RULES[name], id=name) for name in RULES],
)
@pytest.mark.parametrize("name", ["small", "plain", "residual"])
def test_every_row_is_that_of_the_slow_twin(name, rule):
    arguments = rows_of(name)
    engine = engine_for(name, rule)
    result = engine.integrate(*arguments)
    assert_same(result, twin(name, arguments, rule, TIGHT))
    assert not result.attribution[2].any() and result.converged[2]
    assert np.abs(result.attribution).max() > 1e-3
    if isinstance(rule, Adaptive):
        assert len(np.unique(result.n_gradients)) > 2, "rows are meant to differ in what they need"
        assert_all_slots_are_free(engine)


@pytest.mark.parametrize("seed", range(16))
def test_any_settings_give_what_the_slow_twin_gives(seed):
    """Drawn by seed: the rule, the tolerances, the rows, the batch, and a memory that one row's nodes just fit, or most."""
    rng = np.random.default_rng(seed)
    exponent, n_start = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    n_max = 2 * n_start + 1 + int(rng.integers(0, 60))
    rule = Adaptive(exponent=exponent, n_start=n_start, n_max=n_max, refine_fraction=rng.uniform(0.05, 1))
    tolerances = Tolerances(gap=10 ** rng.uniform(-4, -1), error=10 ** rng.uniform(-3, -0.5))
    arguments = some(rows_of("small"), rng.permutation(24)[: rng.integers(1, 25)])
    n_slots = 4 * n_max // 3 + int(rng.integers(1, 200))
    engine = engine_for(
        "small", rule, tolerances, batch_size=int(rng.integers(1, 40)), memory_bytes=4 * n_slots * np.prod(SHAPE)
    )
    assert_same(engine.integrate(*arguments), twin("small", arguments, rule, tolerances))
    assert_all_slots_are_free(engine)


def test_an_engine_traces_its_network_once_however_many_rows_come():
    engine = engine_for("small", Adaptive(), batch_size=8)
    shapes = watch_traces(engine)
    expected = twin("small", rows_of("small"), Adaptive(), TIGHT)
    for rows in (slice(0, 1), slice(3, 24), slice(5, 14)):
        assert_same(engine.integrate(*some(rows_of("small"), rows)), expected, rows)
    assert shapes == [(None, *SHAPE)]


@pytest.mark.parametrize("rule", [Adaptive(), Fixed(n_steps=8)], ids=["adaptive", "fixed"])
def test_no_rows_are_done_at_once(rule):
    marked = MarkedRows()
    result = engine_of(marked, MARKED_SHAPE, rule, TIGHT, BATCH).integrate(*marked.arguments(np.arange(0)))
    assert result.attribution.shape == (0, *MARKED_SHAPE) and result.gap.shape == (0,)
    assert marked.calls == []


@pytest.mark.parametrize("short", range(6))
def test_arrays_of_unequal_rows_are_refused(short):
    marked = MarkedRows()
    arguments = list(marked.arguments(np.arange(5)))
    arguments[short] = arguments[short][:4]
    with pytest.raises(ValueError, match=r"one row each, got \[4, 5\] rows"):
        engine_of(marked, MARKED_SHAPE, Adaptive(), TIGHT, BATCH).integrate(*arguments)


@pytest.mark.parametrize("rule", [Adaptive(), Fixed(n_steps=8)], ids=["adaptive", "fixed"])
def test_progress_rises_to_all_rows(rule):
    marked, reported = MarkedRows(), []
    engine = engine_of(marked, MARKED_SHAPE, rule, TIGHT, BATCH)
    engine.integrate(*marked.arguments(np.arange(50)), reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == 50
    assert len(set(reported)) > 5


# Rows that are not numbers


@pytest.mark.parametrize("sick", [(STEEP,), (0, 7, 8, 20)], ids=["one", "several"])
def test_a_sick_row_spoils_no_other_now_or_later(sick):
    """Its gradients are not numbers, so all its panels claim as much; other rows of its time have more panels than it has."""
    rows, rule, tolerances = np.arange(30), Adaptive(n_max=200), Tolerances(gap=1e-5, error=1e-5)
    expected = MarkedRows.expected(rows, rule, tolerances)
    marked = MarkedRows(sick=sick)
    engine = engine_of(marked, MARKED_SHAPE, rule, tolerances, BATCH)
    others = ~np.isin(rows, sick)
    for _ in range(3):
        result = engine.integrate(*marked.arguments(rows))
        assert np.isnan(result.attribution[~others]).any(axis=(1, 2, 3)).all()
        assert not result.converged[~others].any()
        assert_same(rows_at(result, others), expected, others)
    marked.sick = ()
    assert_same(engine.integrate(*marked.arguments(rows)), expected)
    assert_all_slots_are_free(engine)


def rows_at(result: Attributions, rows: np.ndarray) -> Attributions:
    return Attributions(**{name: values[rows] for name, values in vars(result).items()})


# Memory


def give_up_after(n_calls: int, marked: MarkedRows):
    """For work that might never end: an error once the gradients were asked so often."""

    def on_progress(n_done: int) -> None:
        if len(marked.calls) > n_calls:
            raise TimeoutError(f"{n_done} rows are done after {len(marked.calls)} calls")

    return on_progress


def test_with_few_slots_rows_give_way_and_begin_again_and_are_the_same():
    rows, rule = np.arange(30), Adaptive(n_max=96)
    expected = MarkedRows.expected(rows, rule, NEVER)
    n_computed = {}
    for n_slots in (100, 10_000):
        marked = MarkedRows()
        engine = engine_of(marked, MARKED_SHAPE, rule, NEVER, BATCH, memory_of(n_slots))
        assert_same(engine.integrate(*marked.arguments(rows), give_up_after(5000, marked)), expected)
        assert_all_slots_are_free(engine)
        n_computed[n_slots] = np.bincount(np.concatenate(marked.calls))
    np.testing.assert_array_equal(n_computed[10_000], expected.n_gradients - 1)  # that at the image is known
    assert (n_computed[100] > expected.n_gradients - 1).any(), "no row had to begin again"


ONE_LINE = (
    r"^a row has \d+ nodes, more do not fit into memory, and its tolerances ask for more; "
    r"raise explanation.memory_gb, or set integrated_gradients.n_max to that$"
)


@pytest.mark.parametrize("n_rows", [1, 2, 30])
def test_one_row_s_nodes_that_do_not_fit_are_one_clear_line(n_rows):
    """As many rows wait as there are: none of them can ever have 64 nodes at once."""
    marked = MarkedRows()
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(refine_fraction=1), NEVER, BATCH, memory_of(100))
    with pytest.raises(MemoryError, match=ONE_LINE):
        engine.integrate(*marked.arguments(np.arange(n_rows)), give_up_after(2000, marked))


def test_an_engine_goes_on_after_a_row_that_did_not_fit():
    marked, loose = MarkedRows(), Tolerances(gap=0.02, error=0.05)
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), loose, BATCH, memory_of(33))
    with pytest.raises(MemoryError, match=ONE_LINE):
        engine.integrate(*marked.arguments(np.array([STEEP])))
    rows = np.arange(30)
    rows = rows[rows % 5 < 3]
    assert_same(engine.integrate(*marked.arguments(rows)), MarkedRows.expected(rows, Adaptive(), loose))


@pytest.mark.parametrize("rule", [Adaptive(), Fixed(n_steps=20)], ids=["adaptive", "fixed"])
def test_a_batch_that_does_not_fit_is_halved_which_is_reported(rule):
    rows, marked, reported = np.arange(50), MarkedRows(bears=5), []
    engine = engine_of(marked, MARKED_SHAPE, rule, TIGHT, 32, on_halving=reported.append)
    assert_same(engine.integrate(*marked.arguments(rows)), MarkedRows.expected(rows, rule, TIGHT))
    assert reported == [
        f"a batch of {n} images does not fit into memory for gradients; going on with {n // 2}" for n in (32, 16, 8)
    ]
    assert engine.batch_size == 4 == max(marked.sizes)
    engine.integrate(*marked.arguments(rows))
    assert len(reported) == 3, "halved for good"


@pytest.mark.parametrize("rule", [Adaptive(), Fixed(n_steps=20)], ids=["adaptive", "fixed"])
def test_a_single_image_that_does_not_fit_is_one_clear_line(rule):
    marked, reported = MarkedRows(bears=0), []
    engine = engine_of(marked, MARKED_SHAPE, rule, TIGHT, 4, on_halving=reported.append)
    expected = "^the gradients of a single image do not fit into memory; run on a larger device, or with smaller images .*[^\n]*$"
    with pytest.raises(MemoryError, match=expected):
        engine.integrate(*marked.arguments(np.arange(3)))
    assert len(reported) == 2, "from four to two, and to one"


@pytest.mark.parametrize("step", ["admit", "hold", "certificate", "fetch"])
def test_what_does_not_fit_beside_the_gradients_begins_again_in_smaller_batches(step, monkeypatch):
    """The third call of a step on the device runs out of memory, rows in flight or none."""
    n_calls = 0

    class Tight(Buffers):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            inner = getattr(self, step)

            def call(*arrays):
                nonlocal n_calls
                n_calls += 1
                if n_calls == 3:
                    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
                return inner(*arrays)

            setattr(self, step, call)

    monkeypatch.setattr("tasks.numerics.engine.engine.Buffers", Tight)
    rows, marked, reported = np.arange(50), MarkedRows(), []
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), TIGHT, BATCH, on_halving=reported.append)
    assert_same(engine.integrate(*marked.arguments(rows)), MarkedRows.expected(rows, Adaptive(), TIGHT))
    assert n_calls > 3
    assert engine.batch_size == BATCH // 2
    assert len(reported) == 1
    assert_all_slots_are_free(engine)


def test_the_state_of_before_is_gone_when_it_is_made_anew(monkeypatch):
    """Also while the error is alive that it did not fit, whose frames refer to it."""
    made, gone = list[weakref.ref](), list[bool]()

    class Watched(Buffers):
        def __init__(self, *arguments):
            gone.extend(each() is None for each in made)
            super().__init__(*arguments)
            made.append(weakref.ref(self._f))
            if len(made) == 1:
                self.fetch = self.full

        def full(self, *_):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("tasks.numerics.engine.engine.Buffers", Watched)
    rows, marked = np.arange(20), MarkedRows()
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), TIGHT, BATCH)
    gc.disable()
    try:
        assert_same(engine.integrate(*marked.arguments(rows)), MarkedRows.expected(rows, Adaptive(), TIGHT))
    finally:
        gc.enable()
    assert gone == [True]


def test_what_fails_as_rows_are_let_go_has_no_row_counted_twice(monkeypatch):
    """The first rows that are done have been written, and begin again."""
    n_calls, release = 0, Panels.release

    def once(self, lanes):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            raise MemoryError("the host has no memory left")
        release(self, lanes)

    monkeypatch.setattr(Panels, "release", once)
    rows, marked, done = np.arange(50), MarkedRows(), list[int]()
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), TIGHT, BATCH)
    found = engine.integrate(*marked.arguments(rows), done.append)
    assert_same(found, MarkedRows.expected(rows, Adaptive(), TIGHT))
    assert done[-1] == 50 and done == sorted(set(done))
    assert_all_slots_are_free(engine)


def test_there_are_no_more_slots_than_kernels_can_address(monkeypatch):
    monkeypatch.setattr("tasks.numerics.engine.engine.LARGEST_TENSOR", 100 * int(np.prod(MARKED_SHAPE)))
    rows, marked = np.arange(50), MarkedRows()
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), TIGHT, BATCH, memory_of(10_000))
    assert_same(engine.integrate(*marked.arguments(rows)), MarkedRows.expected(rows, Adaptive(), TIGHT))
    assert engine._buffers._f.shape[0] <= 100


@pytest.mark.parametrize("full_until", [1, 2])
def test_a_device_that_is_full_gets_fewer_slots_which_is_reported(full_until, monkeypatch):
    made = list[int]()

    class Full(Buffers):
        def __init__(self, *arguments):
            made.append(arguments[-1])
            if len(made) <= full_until:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            super().__init__(*arguments)

    monkeypatch.setattr("tasks.numerics.engine.engine.Buffers", Full)
    marked, reported = MarkedRows(), []
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), NEVER, BATCH, memory_of(100), on_halving=reported.append)
    with pytest.raises(RowTooLarge, match="run on a device with more free memory, or set"):
        engine.integrate(*marked.arguments(np.array([STEEP])), give_up_after(2000, marked))
    assert len(reported) == full_until
    assert all(line.startswith("vectors of ") for line in reported)
    assert made[1] == made[0] // 2


@pytest.mark.parametrize("rule", [Adaptive(), Fixed(n_steps=20)], ids=["adaptive", "fixed"])
def test_a_device_without_room_for_the_least_state_is_one_clear_line(rule, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("tasks.numerics.engine.engine.Buffers", full)
    marked = MarkedRows()
    engine = engine_of(marked, MARKED_SHAPE, rule, TIGHT, 4)
    with pytest.raises(
        MemoryError, match="^the gradients of a single image do not fit into memory; run on a larger device"
    ):
        engine.integrate(*marked.arguments(np.arange(3)))


def test_other_errors_of_gradients_are_raised_as_they_are():
    def broken(points, targets):
        raise ZeroDivisionError("three is not two")

    marked = MarkedRows()
    engine = engine_of(broken, MARKED_SHAPE, Adaptive(), TIGHT, 4)
    with pytest.raises(tf.errors.UnknownError, match="three is not two"):
        engine.integrate(*marked.arguments(np.arange(3)))
