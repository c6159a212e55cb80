"""What the tests of models share: code of somebody's own layers, and a Keras that knows of none."""

from pathlib import Path
from typing import Any

import keras
import pytest

from model_files import MINE


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my_layers.py"
    path.write_text(MINE)
    return path


@pytest.fixture(autouse=True)
def nothing_registered() -> Any:
    """What a test's code registers is unknown to the next test."""
    known = dict(keras.saving.get_custom_objects())
    yield
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(known)
