"""Where TensorFlow is started: memory of every GPU is taken as it is needed, and its remarks are not heard.

There is no GPU in these tests, so TensorFlow's list of them and its switch are stood in for; what they do to a GPU is not shown.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from command import python
from environment import clean_environment
from tasks.process.quiet import start_tensorflow

ONE_DNN = (
    "E0000 00:00:1795717404.906813   14924 util.cc:131] oneDNN supports DT_INT64 only on platforms with AVX-512. "
    "Falling back to the default Eigen-based implementation if present."
)
GPUS = [SimpleNamespace(name=f"/physical_device:GPU:{k}") for k in range(2)]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: GPUS if kind in (None, "GPU") else [])


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_gives_memory_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    growing: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, enable: growing.append((gpu.name, enable))
    )
    start_tensorflow()
    assert growing == [(gpu.name, True) for gpu in GPUS]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_in_use_already_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(gpu: object, enable: bool) -> None:
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    start_tensorflow()
    assert "memory of /physical_device:GPU:1 is taken at once, not as it is needed: Physical devices" in caplog.text


def test_without_a_gpu_there_is_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    start_tensorflow()
    assert caplog.text == ""


def stderr_of(program: str) -> str:
    """What a process of its own writes to stderr, TensorFlow as talkative as it comes."""
    done = python("-c", program, environment=clean_environment("TF_CPP_"))
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_library_that_writes_while_it_is_imported_is_heard_but_for_what_is_known(tmp_path: Path) -> None:
    """Past Python, as a native library does."""
    (tmp_path / "library.py").write_text(
        f"import os\nos.write(2, {(ONE_DNN + chr(10)).encode()!r} + b'E0000 a real error\\n')"
    )
    assert (
        stderr_of(
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "from tasks.process.quiet import quiet_tensorflow\n"
            "with quiet_tensorflow(): import library"
        )
        == "E0000 a real error\n"
    )


def test_once_tensorflow_is_settled_it_has_nothing_to_say_of_the_processor() -> None:
    """On a processor that has all instructions there is nothing to say from the start."""
    transpose = "import tensorflow as tf; print(tf.transpose(tf.ones((3, 2), tf.int64)).shape)"
    assert (
        stderr_of(
            f"import flows.nightly; from tasks.process.quiet import settle_tensorflow; settle_tensorflow(); {transpose}"
        )
        == ""
    )
