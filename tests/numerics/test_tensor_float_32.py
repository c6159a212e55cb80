"""TF32 is forbidden in every process that computes, and allowed as long as a part of a night in tf32 is computed.

There is no GPU in these tests: they hold the permission, which TensorFlow has on a CPU too, and not what a GPU does with it.
"""

import threading

import pytest
import tensorflow as tf

from command import printed_by_python
from tasks.numerics.network.device import device_name, has_tensor_float_32
from tasks.numerics.network.tensor_float_32 import computing_in, float32_batch, tf32_batch
from tensor_cores import H200, pretend_gpus

SHOW = "import tensorflow as tf; print('tf32:', tf.config.experimental.tensor_float_32_execution_enabled())"
WAIT_S = 10.0
A100 = {"device_name": "NVIDIA A100-SXM4-80GB", "compute_capability": (8, 0)}
T4 = {"device_name": "Tesla T4", "compute_capability": (7, 5)}


def is_allowed() -> bool:
    return tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize(
    ("enter", "allowed"),
    [
        ("", True),
        ("import flows.nightly", False),
        ("import flows.explain", False),
        ("from tasks.process.quiet import start_tensorflow; start_tensorflow()", False),
        ("from tasks.parts.cluster import _start_tensorflow; _start_tensorflow(1)", False),
        ("import tasks.recompute", False),
        ("import tasks.train", False),
        ("import tasks.contract", False),
        ("from tasks.numerics.explainer import Explainer", False),
    ],
    ids=["TensorFlow alone", "night", "explain", "start-up", "Dask worker", "verify", "train", "doctor", "by hand"],
)
def test_float32_is_float32_after_every_way_in(enter: str, allowed: bool) -> None:
    assert printed_by_python(f"{enter}\n{SHOW}").splitlines()[-1] == f"tf32: {allowed}"


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("bfloat16", False), ("tf32", True)])
def test_it_is_allowed_for_tf32_alone_and_only_as_long_as_that_lasts(precision, allowed: bool) -> None:
    with computing_in(precision):
        assert is_allowed() == allowed
    assert not is_allowed()


def test_what_fails_in_tf32_leaves_it_forbidden() -> None:
    with pytest.raises(ValueError, match="in work"), computing_in("tf32"):
        raise ValueError("in work")
    assert not is_allowed()


class Working(threading.Thread):
    """Computes in a precision from when it may until it is let go. saw: what was allowed when it was let go."""

    def __init__(self, precision):
        super().__init__(daemon=True)
        self.precision, self.began, self.let_go, self.saw = precision, threading.Event(), threading.Event(), None
        self.start()

    def run(self) -> None:
        with computing_in(self.precision):
            self.began.set()
            assert self.let_go.wait(WAIT_S)
            self.saw = is_allowed()

    def finish(self) -> None:
        self.let_go.set()
        self.join(WAIT_S)


def test_parts_in_tf32_go_side_by_side_and_it_is_allowed_until_the_last_is_done() -> None:
    one, other = Working("tf32"), Working("tf32")
    assert one.began.wait(WAIT_S) and other.began.wait(WAIT_S)
    one.finish()
    assert is_allowed()
    other.finish()
    assert (one.saw, other.saw, is_allowed()) == (True, True, False)


@pytest.mark.parametrize(("first", "second", "allowed"), [("tf32", "float32", False), ("bfloat16", "tf32", True)])
def test_parts_of_two_nights_do_not_change_each_others_precision(first, second, allowed: bool) -> None:
    one = Working(first)
    assert one.began.wait(WAIT_S)
    other = Working(second)
    assert not other.began.wait(0.2)
    one.finish()
    assert other.began.wait(WAIT_S)
    other.finish()
    assert (one.saw, other.saw, is_allowed()) == (not allowed, allowed, False)


def shapes(size: int) -> set[int]:
    return {size, max(1, size // 8)}


def test_batches_in_tf32_share_no_shape_with_any_in_float32() -> None:
    of_rules = set[int]().union(*(shapes(1 << k) for k in range(13)))
    for size in range(1, 4200):
        own, halved = shapes(tf32_batch(size)), set[int]().union(*(shapes(max(1, size >> k)) for k in range(13)))
        beside = shapes(float32_batch(tf32_batch(size)))
        assert not own & (halved | beside | of_rules), size
        assert abs(tf32_batch(size) - size) <= 16 or size < 31, size


@pytest.mark.parametrize(
    ("gpus", "name", "has_tf32"),
    [
        ([], "CPU", False),
        ([H200], "NVIDIA H200", True),
        ([H200, H200], "NVIDIA H200", True),
        ([H200, A100], "NVIDIA A100-SXM4-80GB + NVIDIA H200", True),
        ([T4], "Tesla T4", False),
        ([H200, T4], "NVIDIA H200 + Tesla T4", False),
        ([{}], "GPU", False),
    ],
    ids=["none", "H200", "two alike", "two kinds", "before Ampere", "one before Ampere", "nothing known"],
)
def test_the_device_by_what_tensorflow_says_of_it(
    gpus: list[dict], name: str, has_tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, *gpus)
    assert (device_name(), has_tensor_float_32()) == (name, has_tf32)


def test_here_the_device_is_the_cpu() -> None:
    assert (device_name(), has_tensor_float_32()) == ("CPU", False)
