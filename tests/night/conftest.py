"""What the tests of nights share: a root with a night in it already, and the parameters of a small night there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from night_root import EARLIER
from small_night import small_night
from storage import Catalog
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with an earlier night, of which only the name matters, as the latest."""
    root = tmp_path / "data"
    earlier = Catalog(root).night_dir(EARLIER)
    earlier.mkdir(parents=True)
    (earlier / "attributions.h5").write_text("sealed long ago")
    Catalog(root).point_latest(earlier)
    return root


@pytest.fixture
def parameters(root: Path, small_model: ModelRecord, few_digits: Dataset) -> Callable[..., dict[str, Any]]:
    """Makes the parameters of a night of the small network there, given what differs."""
    return lambda **changed: small_night(root, small_model.path, few_digits.directory, **changed)
