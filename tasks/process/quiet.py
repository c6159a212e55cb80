"""TensorFlow without its start-up remarks, which no setting silences: known ones are dropped, the rest is passed on.

It writes them past Python to the process's stderr, when it is imported and when it first lists the devices; and one, on
processors without AVX-512's newest instructions, when it first meets numbers that its fast library does not take, in the
middle of a night.
"""

import importlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["noise_patterns", "quiet_tensorflow", "settle_tensorflow", "start_tensorflow"]

NOISE = (
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    r"I\d{4} .*\] .*",
    r"E\d{4} .* util\.cc:\d+\] oneDNN supports \w+ only on platforms with AVX-512\..*",
    r"To enable the following instructions: .*, in other operations, rebuild TensorFlow with the appropriate .*",
)
# Told on every machine without an NVIDIA driver; where there is one, it is a real error.
NO_GPU = r"E\d{4} .* cuda_platform\.cc:\d+\] failed call to cuInit: .*"

logger = logging.getLogger(__name__)


def start_tensorflow() -> None:
    """Imports TensorFlow and lists the devices, in silence as far as that says nothing. Threads can still be set after.

    On an NVIDIA GPU float32 is float32 from here on, and not TF32, which TensorFlow takes unless it is forbidden. Memory of a
    GPU is taken as it is needed, not all at once, so that several processes can share it. No GPU was at hand to run this on.
    """
    with quiet_tensorflow():
        config = importlib.import_module("tensorflow").config
        config.list_physical_devices()
    config.experimental.enable_tensor_float_32_execution(False)
    for gpu in config.list_physical_devices("GPU"):
        try:
            config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:  # whoever imported us has computed with TensorFlow before
            logger.warning("memory of %s is taken at once, not as it is needed: %s", gpu.name, error)


def settle_tensorflow() -> None:
    """Has TensorFlow make its remark on the processor now, unheard: it makes it once, where it first transposes integers.

    Its threads begin here: after that their number is fixed, and the process is not to fork.
    """
    with quiet_tensorflow():
        tf = importlib.import_module("tensorflow")
        tf.transpose(tf.zeros((2, 2), tf.int64))


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Drops TensorFlow's known start-up remarks from stderr, which it writes past Python, and passes the rest on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    stderr = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    filtering = threading.Thread(target=_pass_on, args=(reading, stderr))
    filtering.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        filtering.join()
        os.close(stderr)


def noise_patterns() -> tuple[str, ...]:
    """Regular expressions that match the known remarks, each a whole line without its end."""
    return NOISE if Path("/dev/nvidiactl").exists() else (*NOISE, NO_GPU)


def _pass_on(reading: int, stderr: int) -> None:
    noise = re.compile("|".join(noise_patterns()))
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if not noise.fullmatch(line.decode(errors="replace").rstrip("\n")):
                os.write(stderr, line)
