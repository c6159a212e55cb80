"""Nights that are refused: the message, and that nothing is left behind."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from flows.nightly import nightly
from night_root import EARLIER, fails, left_behind
from small_night import small_night
from storage import Catalog
from tasks import train
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord

pytestmark = pytest.mark.usefixtures("prefect_server")

# Bad input.


def broken_file(tmp_path: Path, _: Callable[..., keras.Model]) -> Path:
    (tmp_path / "night.keras").write_text("not a model")
    return tmp_path / "night.keras"


def missing_file(tmp_path: Path, _: Callable[..., keras.Model]) -> Path:
    return tmp_path / "gone.keras"


def other_classes(tmp_path: Path, network: Callable[..., keras.Model]) -> Path:
    network(n_classes=7).save(tmp_path / "seven.keras")
    return tmp_path / "seven.keras"


def sick_weights(tmp_path: Path, network: Callable[..., keras.Model]) -> Path:
    model = network()
    bias = model.get_layer("edges").bias
    bias.assign(np.where(np.arange(8) == 3, np.nan, bias.numpy()))
    model.save(tmp_path / "sick.keras")
    return tmp_path / "sick.keras"


def sick_outputs(tmp_path: Path, network: Callable[..., keras.Model]) -> Path:
    """Finite weights so large that the products leave float32."""
    model = network()
    model.set_weights([np.full_like(weight, 1e30) for weight in model.get_weights()])
    model.save(tmp_path / "overflow.keras")
    return tmp_path / "overflow.keras"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken_file, "night.keras: expected a .keras file, which is a zip archive"),
        (missing_file, "no model file at .*gone.keras; expected auto, train, or the path of a .keras or .h5 file"),
        (other_classes, "model seven knows 7 classes, the dataset has 10; choose another model, or train one"),
        (sick_weights, "sick.keras: weight 'edges/bias' has values that are not finite; train the model again"),
        (
            sick_outputs,
            r"model overflow: the model's outputs are not finite under any of the feeds unit, raw, signed",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "refused",
)
def test_a_model_that_cannot_be_used_is_refused(
    parameters: Callable[..., dict],
    small_network: Callable[..., keras.Model],
    root: Path,
    tmp_path: Path,
    make: Callable[..., Path],
    message: str,
) -> None:
    refused(parameters(model={"source": str(make(tmp_path, small_network))}), f"ModelError: .*{message}", root)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run": {"rows": "50:61"}}, "rows 50:61 are not in the test split of digits; .* 0 <= A < B <= 60"),
        (
            {"grad_cam": {"layer": "edge"}},
            "Grad-CAM layer 'edge' is not in the model; choose one of edges, strokes, or auto, or none$",
        ),
        ({"grad_cam": {"layer": "flat"}}, "layer 'flat' has no map, .* on the way to the output; choose one of edges"),
        ({"dataset": {"test_split": "validation"}}, r"digits: no split 'validation', the splits are: .*test \(60"),
    ],
    ids=["rows", "layer-unknown", "layer-no-convolution", "split"],
)
def test_settings_that_do_not_fit_are_refused(
    parameters: Callable[..., dict], root: Path, changed: dict, message: str
) -> None:
    refused(parameters(**changed), message, root)


def test_an_unknown_layer_is_refused_before_any_training(
    parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "train_model", lambda *_: pytest.fail("trained"))
    given = parameters(model={"source": "train"}, grad_cam={"layer": "Conv9"})
    refused(
        given,
        "Grad-CAM layer 'Conv9' is not in the model; choose one of .*BatchNorm_Block3_Layer2, MaxPool_Block3",
        root,
    )


@pytest.mark.parametrize(
    ("group", "settings", "message"),
    [
        ("integrated_gradients", {"engine": "alibi"}, "engine alibi has fixed rules only.* set rule to one of gauss"),
        ("integrated_gradients", {"baselin": "white"}, "baselin"),
        ("run", {"row": "0:8"}, "row"),
        ("run", {"rows": "8"}, "rows must be A:B .* got '8'"),
    ],
    ids=["alibi-adaptive", "misspelt-in-ig", "misspelt-in-run", "rows-no-range"],
)
def test_parameters_that_are_no_settings_are_refused(
    parameters: Callable[..., dict], root: Path, group: str, settings: dict, message: str
) -> None:
    refused(parameters(**{group: settings}), f"Validation of flow parameters failed.*{message}", root)


def test_an_unknown_group_of_settings_is_refused(parameters: Callable[..., dict], root: Path) -> None:
    with pytest.raises(Exception, match="grad_kam"):
        nightly(**parameters(), grad_kam={"layer": "edges"})
    assert [path.name for path in (root / "nights").iterdir()] == [EARLIER]


def test_a_root_that_cannot_be_written_to_is_refused(
    small_model: ModelRecord, few_digits: Dataset, tmp_path: Path
) -> None:
    """A folder under a regular file: not even the superuser can make it."""
    (tmp_path / "file").write_text("in the way")
    message = fails(small_night(tmp_path / "file" / "data", small_model.path, few_digits.directory))
    assert f"the root {tmp_path / 'file' / 'data'} cannot be written to" in message
    assert "choose another with --root or run.root" in message
    assert (tmp_path / "file").read_text() == "in the way"


def refused(parameters: dict[str, Any], message: str, root: Path) -> None:
    """The night fails with the message, in one line where it is ours, and leaves nothing but prepared data."""
    before, nights = left_behind(root), list((root / "nights").iterdir())
    came = fails(parameters)
    by_pydantic = came.startswith("Validation of flow parameters failed")
    assert re.search(message, came, re.DOTALL if by_pydantic else 0), came
    assert by_pydantic or "\n" not in came
    assert left_behind(root) == before
    assert list((root / "nights").iterdir()) == nights
    assert Catalog(root).latest().name == EARLIER
