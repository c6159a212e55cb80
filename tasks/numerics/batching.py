"""How many images go into one compiled call: RULE, or what fits into memory, unless another number is measured to be faster.

Memory is estimated from the shapes of the layers' outputs, which the gradient keeps until its way back. TensorFlow frees much
of it before: measured peaks were 0.3 to 1.0 of the estimate (the notebook's CNN 0.95, ResNet50 0.4, MobileNetV2 0.35 a
further image). Time is measured where the work is worth it. No tensor of a batch has 2^31 elements or more, which kernels with
32-bit indices cannot address.

XLA, which takes seconds to compile a network, is measured on GPUs only, and where it is little beside the work. On two cores it
made a gradient of the notebook's CNN 1.3 times as dear, and of MobileNetV2 13 times (`tests/benchmarks/xla.py`).
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.client import device_lib  # nothing public says how much of a GPU's memory TensorFlow may take

from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.map_layers import symbolic_trace
from tasks.numerics.network.compiled import LARGEST_TENSOR, XLA_ERRORS
from tasks.numerics.network.graph import Trace
from tasks.numerics.network.scores import Network, network_of

__all__ = [
    "CPU_GB",
    "BatchSize",
    "bytes_per_image",
    "choose_batch_size",
    "fastest",
    "fitting",
    "memory_bytes",
    "ruled",
    "time_batches",
    "traced_bytes",
]

_traces: WeakKeyDictionary[keras.Model, tuple[int, int]] = WeakKeyDictionary()  # of a large network it takes seconds

RULE = 256
LEAST, LARGEST = 16, 4096
IMAGE_COPIES = 8  # of a batch's points: as arrays and tensors, with their gradients and the products of both
BYTES_A_SECOND = 1e9  # of layers' outputs, about, on two cores
LEAST_WORK_S = 50.0
STEP = 4  # from one size to the next
ROUNDS = 3
SLACK, GAIN = 0.05, 0.02
SHARE, LIMIT_S = 0.04, 10.0  # for measuring: of what the work takes at least, and at most
COMPILE_S = 20.0  # that XLA takes, about
CPU_GB, GPU_SHARE = 1.0, 0.8  # of what is free


@dataclass(frozen=True)
class BatchSize:
    """Images in one compiled call, whether XLA compiles it, and why so, in words."""

    images: int
    reason: str
    xla: bool = False


def bytes_per_image(model: keras.Model) -> int:
    """Bytes that a gradient of one more image needs, by estimate: the output of every call, and copies of the image.

    model: a score model, or any classifier.
    """
    return _sizes(model)[0]


def _sizes(model: keras.Model) -> tuple[int, int]:
    """Bytes a further image needs, and elements of its largest tensor."""
    if model not in _traces:
        network = network_of(model) or Network(model)
        traced = symbolic_trace(network)
        largest = max(_elements(tensor) for call in traced.calls.values() for tensor in call.outputs)
        _traces[model] = traced_bytes(traced, network.shape), max(largest, math.prod(network.shape))
    return _traces[model]


def traced_bytes(traced: Trace, shape: tuple[int, int, int]) -> int:
    """As `bytes_per_image`, of a network's calls. shape: of the images, (y, x, channel)."""
    kept = sum(_bytes(tensor) for call in traced.calls.values() for tensor in call.outputs)
    return kept + IMAGE_COPIES * math.prod(shape) * tf.float32.size


def _bytes(tensor: tf.Tensor) -> int:
    return _elements(tensor) * tensor.dtype.size


def _elements(tensor: tf.Tensor) -> int:
    return math.prod(size or 1 for size in tensor.shape[1:])


def memory_bytes(memory_gb: float | None) -> float:
    """What was asked for, or of a GPU most of what is free, of a CPU 1 GB.

    Only seen on CPUs: TensorFlow's limit of a GPU is what was free when it started, and what it has given out since counts.
    """
    if memory_gb is not None:
        return memory_gb * 1e9
    free = _free_gpu_bytes()
    return CPU_GB * 1e9 if free is None else GPU_SHARE * free


@cache
def _free_gpu_bytes() -> int | None:
    """When it is first asked for, so that all parts of a night are explained with the same settings; None without a GPU."""
    limits = [int(device.memory_limit) for device in device_lib.list_local_devices() if device.device_type == "GPU"]
    return limits[0] - tf.config.experimental.get_memory_info("GPU:0")["current"] if limits else None


def fitting(model: keras.Model, memory_bytes: float) -> int:
    """The largest power of two of images whose gradients fit into that memory, by estimate: from 1 to LARGEST.

    So many that no tensor has more than LARGEST_TENSOR elements.
    """
    bytes_each, elements_each = _sizes(model)
    images = max(1, min(LARGEST, int(memory_bytes // bytes_each), LARGEST_TENSOR // elements_each))
    return 1 << (images.bit_length() - 1)


def ruled(model: keras.Model, memory_bytes: float) -> BatchSize:
    """RULE images, or what fits, without a measurement."""
    fits = fitting(model, memory_bytes)
    return BatchSize(min(RULE, fits), "all that fits by estimate" if fits < RULE else "by rule, and fits by estimate")


def choose_batch_size(
    model: keras.Model,
    memory_bytes: float,
    n_gradients: float,
    xla: bool | None = None,
    in_calls: Callable[[int], int] = int,
) -> BatchSize:
    """The batch size for a night of so many gradients: measured where that is little beside the work.

    model: a score model. memory_bytes: for one batch. xla: whether XLA compiles it; None: where that is measured to be faster.
    in_calls: how many images are in a call that is timed in place of a size; tf32 has sizes of its own.
    """
    rule, fits = ruled(model, memory_bytes), fitting(model, memory_bytes)
    chosen = replace(rule, xla=bool(xla))
    if fits <= LEAST:
        return chosen
    work_s = n_gradients * bytes_per_image(model) / BYTES_A_SECOND
    if work_s < LEAST_WORK_S:
        return replace(chosen, reason=f"{rule.reason}; too little work to measure")
    found = time_batches(_stopwatch(model, in_calls), _series(rule.images, fits), min(LIMIT_S, SHARE * work_s))
    if len(found) < 2:  # nothing to compare; what does not fit will be halved
        return replace(chosen, reason=f"{rule.reason}; the machine had no room or time to measure")
    timings = ", ".join(f"{images}: {1e3 * seconds:.3g}" for images, seconds in sorted(found.items()))
    reason = f"measured, ms a gradient by images in a call: {timings}; {fits} fit by estimate"
    images = fastest(found, rule.images)
    chosen = replace(chosen, images=images, reason=reason)
    worth = SHARE * n_gradients * found[images] >= COMPILE_S and tf.config.list_logical_devices("GPU")
    return _by_xla(model, chosen, found[images], in_calls) if xla is None and worth else chosen


def _by_xla(model: keras.Model, batch: BatchSize, seconds: float, in_calls: Callable[[int], int]) -> BatchSize:
    """The same batch, with XLA where that is faster than `seconds` a gradient."""
    try:
        by_xla = _time(_stopwatch(model, in_calls, xla=True), batch.images, LIMIT_S)
    except XLA_ERRORS as error:
        return replace(batch, reason=f"{batch.reason}; XLA cannot compile the network ({type(error).__name__})")
    return replace(batch, reason=f"{batch.reason}; with XLA {1e3 * by_xla:.3g}", xla=by_xla < (1 - SLACK) * seconds)


def _series(rule: int, fits: int) -> tuple[list[int], list[int]]:
    """The sizes to time: from the rule's in steps down to LEAST, and in steps up to what fits."""
    down = [rule]
    while down[-1] > LEAST:
        down.append(max(down[-1] // STEP, LEAST))
    up = [rule]
    while up[-1] < fits:
        up.append(min(STEP * up[-1], fits))
    return down, up[1:]


def time_batches(
    time_call: Callable[[int], float], series: Iterable[Sequence[int]], limit_s: float
) -> dict[int, float]:
    """Seconds a gradient by batch size. Each series ends where a size is no faster than the best, or does not fit.

    Each is the median of ROUNDS rounds of as many images for all sizes, so that other work on the machine, which interrupts
    long calls more often than short ones, weighs on all alike. After the first, none is begun that the time is too short for.
    time_call: seconds that one call with so many images takes.
    """
    began, found = time.monotonic(), dict[int, float]()
    for sizes in series:
        for size in sizes:
            best = min(found.values(), default=0.0)
            left = limit_s - (time.monotonic() - began)
            if found and 2 * max(size, RULE) * best > left:
                break
            try:
                found[size] = _time(time_call, size, left)
            except (tf.errors.ResourceExhaustedError, MemoryError):
                if found:
                    break
                continue
            if best and found[size] > (1 - GAIN) * best:
                break
    return found


def _time(time_call: Callable[[int], float], size: int, limit_s: float) -> float:
    began, rounds = time.monotonic(), list[float]()
    time_call(size)  # the first call of a shape sets things up
    n_calls = max(1, RULE // size)
    while len(rounds) < ROUNDS and (not rounds or time.monotonic() - began < limit_s):
        rounds.append(sum(time_call(size) for _ in range(n_calls)))
    return median(rounds) / (n_calls * size)


def fastest(seconds: Mapping[int, float], rule: int) -> int:
    """The batch size nearest to the rule's of those within SLACK of the best. seconds: a gradient, by batch size."""
    good = [size for size, each in seconds.items() if each <= (1 + SLACK) * min(seconds.values())]
    return min(good, key=lambda size: max(size, rule) / min(size, rule))


def _stopwatch(
    model: keras.Model, in_calls: Callable[[int], int] = int, *, xla: bool = False
) -> Callable[[int], float]:
    shape = model.inputs[0].shape[1:]
    # One trace for all sizes: that a night's own functions have fixed shapes makes no difference between them.
    signature = [tf.TensorSpec((None, *shape), tf.float32), tf.TensorSpec((None,), tf.int32)]
    function = tf.function(target_gradients(model), input_signature=signature, jit_compile=xla or None)

    def time_call(size: int) -> float:
        n = in_calls(size)
        points = np.random.default_rng(size).random((n, *shape), np.float32)
        began = time.perf_counter()
        function(tf.constant(points), tf.zeros(n, tf.int32))[0].numpy()
        return time.perf_counter() - began

    return time_call
