"""The logs for TensorBoard, read back with TensorBoard's own reader; and as its server answers."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from command import python
from example_store import ATTRIBUTES, joined_arrays, write_parts
from foreign_server import asked, asked_json, serving
from free_port import free_port
from storage import open_store, seal_store
from storage.draw.figures import render
from storage.export import export_rows
from storage.export.embedding import pooled_heat
from waiting import wait_until

pytest.importorskip("tensorboard", reason="TensorBoard is not installed: the extra `tensorboard`")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")

# No line and no column of a table may be torn by these.
CLASS_NAMES = ["a\tb\nc", "<script>alert(1)</script>", "naïve 猫 " + "x" * 300]
HISTORY = {"loss": [1.25, 0.5, 0.25], "val_loss": [1.0, 0.75, 0.875], "accuracy": [0.5, 0.75, 1.0]}
START, STOP, BEGAN = 64, 224, 1795399200.0  # 2026-11-23T02:00:00Z
TENSOR = {"run": "explanations", "name": "where attributions lie"}


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    path = folder / "attributions.h5"
    seal_store(path, write_parts(folder, START, STOP), class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    return path


@pytest.fixture(scope="module")
def logs(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log directory of all rows."""
    folder, seen = tmp_path_factory.mktemp("tensorboard") / "logs", []
    with open_store(store_path) as store:
        export_rows(store, store.row_numbers, "tensorboard", folder, advance=seen.append, history=HISTORY)
    assert sum(seen) == STOP - START
    return folder


@pytest.fixture(scope="module")
def heat(store_path: Path) -> NDArray[np.float32]:
    """Where the attributions for the predicted class lie, by h5py alone."""
    with h5py.File(store_path) as file:
        attributions = file["integrated_gradients/attribution"][...]
        positions = file["predicted_row"][...] - START
        attributions[positions] = file["integrated_gradients/predicted/attribution"][...]
    return pooled_heat(attributions)


def events(folder: Path) -> dict[str, list[Any]]:
    """The events of a run by tag, as TensorBoard reads them."""
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {tag: reader.Tensors(tag) for tag in reader.Tags()["tensors"]}


def values(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return {
        tag: [(e.step, float(make_ndarray(e.tensor_proto))) for e in found] for tag, found in events(folder).items()
    }


def test_the_curves_are_in_the_runs_that_keras_makes(logs: Path) -> None:
    assert values(logs / "train") == {
        "epoch_loss": [(0, 1.25), (1, 0.5), (2, 0.25)],
        "epoch_accuracy": [(0, 0.5), (1, 0.75), (2, 1.0)],
    }
    assert values(logs / "validation") == {"epoch_loss": [(0, 1.0), (1, 0.75), (2, 0.875)]}
    assert {event.wall_time for found in events(logs / "train").values() for event in found} == {BEGAN}


def test_the_night_is_there_in_numbers(logs: Path) -> None:
    arrays, found = joined_arrays(START, STOP), events(logs / "explanations")
    numbers = {tag: float(make_ndarray(e.tensor_proto)) for tag, (e,) in found.items() if tag.startswith("night/")}
    assert numbers["night/accuracy"] == np.float32((arrays["label"] == arrays["prediction"]).mean())
    assert numbers["night/relevance_gain"] == pytest.approx(arrays["quality/relevance_gain"].mean(), rel=1e-6)
    assert set(numbers) == {
        f"night/{name}"
        for name in ("accuracy", "confidence", "converged_share", "worst_gap", "gradients_per_image", "relevance_gain")
    }


def test_figures_are_of_the_most_confident_mistakes_of_each_class_and_of_what_did_not_converge(
    logs: Path, store_path: Path
) -> None:
    arrays = joined_arrays(START, STOP)
    confidence, wrong = arrays["probability"].max(axis=1), arrays["label"] != arrays["prediction"]
    ranked = np.argsort(-confidence, kind="stable")
    mistakes = [int(k) + START for k in ranked if wrong[k]][:10]
    right = [next(int(k) + START for k in ranked if not wrong[k] and arrays["label"][k] == c) for c in range(3)]
    found = {tag: e for tag, e in events(logs / "explanations").items() if not tag.startswith("night/")}
    by_kind = {kind: {int(tag[-6:]) for tag in found if tag.startswith(kind)} for kind in ("mistakes/", "right/")}
    assert by_kind == {"mistakes/": set(mistakes), "right/": set(right)}
    with open_store(store_path) as store:
        open_ones = set(store.row_numbers[~store.values("converged", store.row_numbers, "predicted")].tolist())
        drawn = {int(tag[-6:]) for tag in found if tag.startswith("not-converged/")}
        assert len(drawn) == min(10, len(open_ones)) and drawn <= open_ones
        (event,) = found[f"mistakes/row-{mistakes[0]:06d}"]
        width, height, png = make_ndarray(event.tensor_proto)
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        assert (int(width), int(height)) == (pixels.shape[1], pixels.shape[0])
        expected = render(store.figure(mistakes[0], "predicted"), 80)
    np.testing.assert_array_equal(pixels, expected)


def test_without_rows_and_without_curves_there_is_nothing(store_path: Path, tmp_path: Path) -> None:
    with open_store(store_path) as store:
        export_rows(store, store.row_numbers[:0], "tensorboard", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["export.json"]


def test_many_rows_share_a_picture_that_browsers_take(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.export.tensorboard_logs.SPRITE_SIDE", 100)
    with open_store(store_path) as store:
        export_rows(store, store.row_numbers[:26], "tensorboard", tmp_path / "out")
    sprite = Image.open(io.BytesIO((tmp_path / "out" / "explanations" / "sprite.png").read_bytes()))
    assert sprite.size == (6 * 16, 6 * 16)


def test_tensorflow_is_not_imported(store_path: Path, tmp_path: Path) -> None:
    """Where it is installed TensorBoard would; where it is not, the logs are the same."""
    code = (
        "import sys; from storage import open_store; from storage.export import export_rows\n"
        "with open_store(sys.argv[1]) as store:\n"
        "    export_rows(store, store.row_numbers[:3], 'tensorboard', __import__('pathlib').Path(sys.argv[2]))\n"
        "print('tensorflow' in sys.modules)"
    )
    done = python("-c", code, store_path, tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


# TensorBoard itself.


@pytest.fixture(scope="module")
def served(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logs, "--host", "127.0.0.1", "--port", port]
    with serving(command, port, "/data/environment", tmp_path_factory.mktemp("tensorboard") / "log") as address:
        runs = {"train", "validation", "explanations"}
        wait_until(lambda: set(asked_json(f"{address}/data/runs")) == runs, 60, "TensorBoard has read the runs")
        yield f"{address}/data/plugin"


def test_tensorboard_shows_curves_and_figures(served: str, store_path: Path) -> None:
    tags = asked_json(f"{served}/scalars/tags")
    assert {run: set(found) for run, found in tags.items() if run != "explanations"} == {
        "train": {"epoch_loss", "epoch_accuracy"},
        "validation": {"epoch_loss"},
    }
    curve = asked_json(f"{served}/scalars/scalars?" + urlencode({"run": "validation", "tag": "epoch_loss"}))
    assert [point[1:] for point in curve] == [[0, 1.0], [1, 0.75], [2, 0.875]]
    figures = asked_json(f"{served}/images/tags")["explanations"]
    assert {tag.partition("/")[0] for tag in figures} == {"mistakes", "right", "not-converged"}
    sample = {"run": "explanations", "tag": sorted(figures)[0], "sample": 0}
    (about,) = asked_json(f"{served}/images/images?" + urlencode(sample))
    picture = np.asarray(Image.open(io.BytesIO(asked(f"{served}/images/individualImage?{about['query']}"))))
    with open_store(store_path) as store:
        np.testing.assert_array_equal(picture, render(store.figure(int(sample["tag"][-6:]), "predicted"), 80))


def test_tensorboard_projects_the_heat_of_every_row_with_its_image(
    served: str, heat: NDArray[np.float32], store_path: Path
) -> None:
    assert asked_json(f"{served}/projector/runs") == ["explanations"]
    (about,) = asked_json(f"{served}/projector/info?run=explanations")["embeddings"]
    assert about["tensorShape"] == [STOP - START, 256]
    tensor = np.frombuffer(asked(f"{served}/projector/tensor?{urlencode(TENSOR)}"), np.float32)
    np.testing.assert_allclose(tensor.reshape(STOP - START, 256), heat, rtol=1e-3, atol=1e-6)
    lines = asked(f"{served}/projector/metadata?{urlencode(TENSOR)}").decode().split("\n")
    names, *cells = [line.split("\t") for line in lines if line]
    arrays = joined_arrays(START, STOP)
    assert {len(line) for line in (names, *cells)} == {len(names)}
    assert [int(line[names.index("row")]) for line in cells] == list(range(START, STOP))
    said = [" ".join(CLASS_NAMES[k].split()) for k in arrays["prediction"]]
    assert [line[names.index("prediction_name")] for line in cells] == said
    sprite = np.asarray(Image.open(io.BytesIO(asked(f"{served}/projector/sprite_image?{urlencode(TENSOR)}"))))
    width, height = about["sprite"]["singleImageDim"]
    assert (width, height, *sprite.shape) == (48, 48, 13 * 48, 13 * 48, 3)
    down, across = divmod(40, 13)
    cell = sprite[down * 48 : (down + 1) * 48, across * 48 : (across + 1) * 48]
    np.testing.assert_array_equal(cell[::2, ::2], arrays["image"][40])
