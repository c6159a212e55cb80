"""Where TensorFlow is started: memory of every GPU is taken as it is needed.

There is no GPU in these tests, so TensorFlow's list of them and its switch are stood in for; what they do to a GPU is not shown.
"""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from tasks.quiet import start_tensorflow

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
