"""Reports reach whoever listens, and nobody where nobody does."""

import threading
from contextvars import copy_context

import pytest

from tasks.night.progress import Progress, listening, report

STEP = Progress(stage="explain", done=1, total=4)


def test_a_listener_hears_every_report_in_order() -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        report(STEP)
        report(Progress(stage="seal", done=1, total=1, unit="steps"))
    assert [(step.stage, step.unit) for step in heard] == [("explain", "parts"), ("seal", "steps")]


def test_a_report_that_nobody_hears_is_no_error() -> None:
    report(STEP)


def test_listening_ends_with_its_block_even_by_an_error() -> None:
    heard: list[Progress] = []
    with pytest.raises(RuntimeError, match="the night failed"), listening(heard.append):
        raise RuntimeError("the night failed")
    report(STEP)
    assert heard == []


def test_the_inner_listener_hears_until_it_is_gone() -> None:
    outer: list[Progress] = []
    inner: list[Progress] = []
    with listening(outer.append):
        with listening(inner.append):
            report(STEP)
        report(STEP)
    assert (len(outer), len(inner)) == (1, 1)


def test_a_thread_that_is_given_the_context_reports_to_the_same_listener() -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        thread = threading.Thread(target=copy_context().run, args=(report, STEP))
        thread.start()
        thread.join()
    assert heard == [STEP]


def test_a_report_cannot_be_changed_after_it_was_made() -> None:
    with pytest.raises(AttributeError, match="done"):
        STEP.done = 2  # type: ignore[misc]
