"""Several callers of one engine at once: each is given its own rows, whoever drives and whoever fails.

The first call of gradients waits until all have handed over their rows, so that the rows of each are there from the beginning.
"""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from engine_calls import assert_all_slots_are_free, assert_same, engine_of
from marked_rows import MARKED_SHAPE, MarkedRows, memory_of
from tasks.numerics.engine import Engine
from tasks.numerics.integrated_gradients import Attributions
from tasks.numerics.quadrature import Adaptive, Fixed, Rule, Tolerances
from waiting import wait_until

TIGHT = Tolerances(gap=0.002, error=0.02)
BATCH = 16
MANY_S = 60
Progress = Callable[[int], object]


def called_at_once(
    engine: Engine, marked: MarkedRows, works: list[np.ndarray], on_progress: list[Progress | None] | None = None
) -> list[Attributions | Exception]:
    """What each caller got for its rows, an error too. The first one drives first."""
    outcomes: list = [None] * len(works)

    def all_are_there() -> None:
        wait_until(lambda: len(engine._works) == len(works), MANY_S, "all rows are handed over")
        marked.before_call = lambda: None

    def call(k: int) -> None:
        try:
            outcomes[k] = engine.integrate(*marked.arguments(works[k]), on_progress[k] if on_progress else None)
        except (LookupError, MemoryError) as error:
            outcomes[k] = error

    marked.before_call = all_are_there
    threads = [threading.Thread(target=call, args=(k,)) for k in range(len(works))]
    for n, thread in enumerate(threads):
        wait_until(lambda n=n: len(engine._works) == n, MANY_S, "the rows of those before are handed over")
        thread.start()
    for thread in threads:
        thread.join(MANY_S)
    assert not any(thread.is_alive() for thread in threads)
    return outcomes


def works_of(*sizes: int) -> list[np.ndarray]:
    """Rows 0, 1, ... of so many callers."""
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


@pytest.mark.parametrize("rule", [Adaptive(), Fixed(n_steps=4)], ids=["adaptive", "fixed"])
def test_each_caller_is_given_what_it_would_get_alone(rule: Rule):
    marked, works = MarkedRows(), works_of(9, 3, 1, 20)
    batch_size = 64  # so many rows begin in one that some of two callers end in one, too
    engine, progress = engine_of(marked, MARKED_SHAPE, rule, TIGHT, batch_size), [[] for _ in works]
    outcomes = called_at_once(engine, marked, works, [reported.append for reported in progress])
    for outcome, rows, reported in zip(outcomes, works, progress, strict=True):
        assert_same(outcome, MarkedRows.expected(rows, rule, TIGHT))
        assert reported == sorted(reported) and reported[-1] == len(rows)
    owner = np.repeat(np.arange(len(works)), list(map(len, works)))
    assert any(len(np.unique(owner[rows])) > 1 for rows in marked.calls), "no batch had rows of two callers"
    if isinstance(rule, Adaptive):
        assert_all_slots_are_free(engine)


def test_batches_stay_full_over_the_ends_of_works():
    """What each caller alone would leave unfilled, the next one's rows fill: nothing pads until the last row has begun."""
    marked, works = MarkedRows(), works_of(*[5] * 12)
    called_at_once(engine_of(marked, MARKED_SHAPE, Adaptive(), TIGHT, BATCH), marked, works)
    begun = max(next(k for k, rows in enumerate(marked.calls) if row in rows) for row in range(60))
    assert [len(rows) for rows in marked.calls[:begun]] == [BATCH] * begun
    assert marked.sizes[:begun] == [BATCH] * begun
    assert begun * BATCH > 0.8 * sum(map(len, marked.calls)), "hardly any row was left to begin"


@pytest.mark.parametrize("rule", [Adaptive(), Fixed(n_steps=20)], ids=["adaptive", "fixed"])
def test_where_batches_are_not_shared_each_call_computes_what_it_computes_alone(rule: Rule):
    works = works_of(20, 6, 6)
    together, alone = MarkedRows(), MarkedRows()
    engine = engine_of(together, MARKED_SHAPE, rule, TIGHT, BATCH, shared=False)
    outcomes = called_at_once(engine, together, works)
    for outcome, rows in zip(outcomes, works, strict=True):
        by_itself = engine_of(alone, MARKED_SHAPE, rule, TIGHT, BATCH).integrate(*alone.arguments(rows))
        np.testing.assert_array_equal(outcome.attribution, by_itself.attribution)
    for one, other in zip(together.calls, alone.calls, strict=True):
        np.testing.assert_array_equal(one, other)


class Failing:
    """Progress that raises once, when so many rows are done. n_calls: of the gradients by then."""

    def __init__(self, marked: MarkedRows, n_rows: int):
        self._marked, self._n_rows, self.n_calls = marked, n_rows, 0

    def __call__(self, n_done: int) -> None:
        if n_done >= self._n_rows and not self.n_calls:
            self.n_calls = len(self._marked.calls)
            raise LookupError("nobody listens")


@pytest.mark.parametrize("k", [0, 1], ids=["the driver's", "another's"])
def test_a_caller_whose_progress_fails_is_told_and_the_others_end_right(k: int):
    marked, works = MarkedRows(), works_of(20, 6, 6)
    failing = Failing(marked, 0 if k else 18)  # while rows of both are in flight
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), TIGHT, BATCH)
    outcomes = called_at_once(engine, marked, works, [failing if n == k else None for n in range(3)])
    before, after = (np.concatenate(calls) for calls in np.split(np.array(marked.calls, object), [failing.n_calls]))
    assert np.isin(works[1 - k], np.intersect1d(before, after)).any(), "no row of the other was in flight"
    for n, (outcome, rows) in enumerate(zip(outcomes, works, strict=True)):
        if n == k:
            assert isinstance(outcome, LookupError) and "nobody listens" in str(outcome)
        else:
            assert_same(outcome, MarkedRows.expected(rows, Adaptive(), TIGHT))
    assert_same(engine.integrate(*marked.arguments(works[k])), MarkedRows.expected(works[k], Adaptive(), TIGHT))
    assert_all_slots_are_free(engine)


@pytest.mark.parametrize("k", [0, 1], ids=["the driver's", "another's"])
def test_a_row_that_does_not_fit_is_an_error_of_its_caller_alone(k: int):
    """Row 4 needs more slots than there are; rows of the other caller need fewer."""
    easy = np.array([5, 6, 7, 10, 11, 12, 15, 16, 17])
    marked, loose = MarkedRows(), Tolerances(gap=0.02, error=0.05)
    engine = engine_of(marked, MARKED_SHAPE, Adaptive(), loose, BATCH, memory_of(33))
    works = [easy, np.array([4])] if k else [np.array([4]), easy]
    outcomes = called_at_once(engine, marked, works)
    assert isinstance(outcomes[k], MemoryError) and "raise explanation.memory_gb" in str(outcomes[k])
    assert_same(outcomes[1 - k], MarkedRows.expected(easy, Adaptive(), loose))
