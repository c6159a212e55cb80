"""Keras is used by our settings, whatever the environment says and whoever imports us first."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import nightlens, printed_by_python, python
from empty_record import EmptyRecord
from environment import clean_environment
from small_night import NO_GALLERY, small_night, write_settings
from storage import open_store
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord
from tasks.parts.compute import compute_part

COMMAND = "import flows.cli, flows.terminal.progress_bars, tasks.models.registry"
# How else a process comes to us: a flow under a worker, a worker of a cluster that is sent a task, a fork.
WAYS = {
    "flow": "import flows.nightly",
    "cluster": f"import pickle; pickle.loads({pickle.dumps(compute_part)!r})",
    "fork": "import flows.nightly, os\nif os.fork(): os.wait(); os._exit(0)",
}
SAID = """
import json, keras, tensorflow as tf
from tasks.numerics.network.cnn import build_cnn
model = build_cnn((16, 16, 3), 10)
fitted = keras.Sequential([keras.layers.Dense(1)])
fitted.compile(loss="mse")
print(json.dumps({
    "backend": keras.config.backend(), "floatx": keras.config.floatx(), "format": keras.config.image_data_format(),
    "epsilon": keras.config.epsilon(), "kernel": str(model.weights[0].dtype), "map": list(model.layers[1].output.shape),
    "tf.keras is keras": tf.keras.Model is keras.Model,
    "epochs": len(fitted.fit(tf.ones((4, 2)), tf.ones(4), epochs=3, verbose=0).epoch),
}), flush=True)
"""
OURS = {
    "backend": "tensorflow",
    "floatx": "float32",
    "format": "channels_last",
    "epsilon": 1e-7,
    "kernel": "float32",
    "map": [None, 16, 16, 32],
    "tf.keras is keras": True,
    "epochs": 3,
}
THEIRS: dict[str, tuple[dict[str, str], dict[str, Any] | None]] = {
    # variables, and what keras.json says
    "variables": (
        {
            "KERAS_BACKEND": "jax",
            "TF_USE_LEGACY_KERAS": "1",
            "KERAS_HOME": "/dev/null/nowhere",
            "KERAS_MAX_EPOCHS": "1",
            "KERAS_MAX_STEPS_PER_EPOCH": "1",
        },
        None,
    ),
    "file": ({}, {"backend": "torch", "image_data_format": "channels_first", "floatx": "float16"}),
    "file-that-keras-refuses": ({}, {"floatx": "bfloat16", "epsilon": 1}),
}
ALL = (
    {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1"},
    {"floatx": "float16", "image_data_format": "channels_first"},
)


def environment(folder: Path, variables: dict[str, str], configuration: dict[str, Any] | None) -> dict[str, str]:
    """A process's, with a home of its own where keras.json is, if there is one."""
    (folder / "home" / ".keras").mkdir(parents=True)
    if configuration is not None:
        (folder / "home" / ".keras" / "keras.json").write_text(json.dumps(configuration))
    return clean_environment("KERAS_", "TF_USE_", **({"HOME": str(folder / "home")} | variables))


def settings_of(way: str, environment: dict[str, str]) -> dict[str, Any]:
    """What Keras is set to in a process that comes to us this way."""
    found: dict[str, Any] = json.loads(printed_by_python(f"{way}\n{SAID}", environment=environment))
    return found


@pytest.mark.parametrize("theirs", THEIRS)
def test_our_settings_hold_whatever_the_environment_says(theirs: str, tmp_path: Path) -> None:
    assert settings_of(COMMAND, environment(tmp_path, *THEIRS[theirs])) == OURS


@pytest.mark.parametrize("way", WAYS)
def test_our_settings_hold_however_a_process_comes_to_us(way: str, tmp_path: Path) -> None:
    assert settings_of(WAYS[way], environment(tmp_path, *ALL)) == OURS


def test_nothing_is_written_to_the_home_of_keras(tmp_path: Path) -> None:
    printed_by_python("import tasks, keras", environment=environment(tmp_path, {}, None))
    assert list((tmp_path / "home" / ".keras").iterdir()) == []


def test_who_imported_keras_before_us_gets_our_settings(tmp_path: Path) -> None:
    assert settings_of("import keras, tasks.models.registry", environment(tmp_path, {}, ALL[1])) == OURS


def test_who_imported_keras_before_us_on_another_backend_is_told_so_in_a_line(tmp_path: Path) -> None:
    """A stand-in for Keras: no other backend is installed here."""
    program = (
        "import sys, types\n"
        "sys.modules['keras'] = types.SimpleNamespace(config=types.SimpleNamespace(backend=lambda: 'jax'))\n"
        "import tasks.models.registry"
    )
    assert python("-c", program, environment=environment(tmp_path, {}, None)).stderr.splitlines()[-1] == (
        "ImportError: nightlens: expected Keras on tensorflow, but this process has imported it on jax before; import "
        "nightlens first, or set KERAS_BACKEND=tensorflow"
    )


def test_storage_alone_imports_no_keras_and_sets_nothing(tmp_path: Path) -> None:
    program = (
        "import os, sys; before = dict(os.environ); import storage; print('keras' in sys.modules, os.environ == before)"
    )
    assert printed_by_python(program, environment=environment(tmp_path, *ALL)) == "False True\n"


@pytest.mark.slow
def test_a_night_is_the_same_whatever_the_environment_says(
    few_digits: Dataset, small_model: ModelRecord, empty_record: EmptyRecord, tmp_path: Path
) -> None:
    stores = []
    for name, theirs in (("plain", ({}, None)), ("foreign", ALL)):
        folder = tmp_path / name
        root, surroundings = folder / "data", environment(folder, *theirs)
        empty_record.put(root / "prefect")
        night = small_night(root, small_model.path, few_digits.directory, gallery=NO_GALLERY, run={"rows": "0:8"})
        config = write_settings(folder / "night.yaml", night)
        done = nightlens("run", "--config", config, environment=surroundings, cwd=folder)
        assert done.returncode == 0, done.stderr
        stores.append(root)
    with open_store(stores[0]) as plain, open_store(stores[1]) as foreign:
        np.testing.assert_array_equal(foreign.attributions(...), plain.attributions(...))
        np.testing.assert_array_equal(foreign.maps(...), plain.maps(...))
