"""The whole flow on real digits against a real Prefect server, judged by opening what it left behind.

The first night trains the seed's network; all others explain a small network of somebody else's, which takes a second.
"""

import hashlib
import json
import re
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pytest
from PIL import Image
from prefect.client.schemas.objects import State

from flows.nightly import nightly
from night_record import recorded
from small_night import small_night
from storage import Catalog, check_part, open_store
from tasks import audit, train
from tasks import explain as explaining
from tasks.datasets import Dataset, read_rows
from tasks.models.registry import ModelRecord, load_model
from tasks.night import explanations_bar
from tasks.night.outage import Outage
from tasks.night.progress import Progress, listening
from tasks.numerics.references import missing_references
from tasks.pages import page
from tasks.parts import compute
from tasks.running_night import NightResult

pytestmark = pytest.mark.usefixtures("prefect_server")
ARTIFACT_BYTES = 500_000
EARLIER = "20260101T020000Z-000000"
KEYS = {
    *("dataset", "training", "model", "evaluation", "confusion", "explanations", "audit", "night"),
    *("gallery-integrated-gradients", "gallery-grad-cam", "gallery-misclassified", "class-means"),
}
SEED_NIGHT = {
    "model": {"epochs": 1},
    "audit": {"n_rows": 2},
    "gallery": {"spotlight": [3, 40, 2864], "per_class": 0},
    "explanation": {"part_rows": 32},
}


def fails(parameters: dict[str, Any]) -> str:
    """Runs a night that must fail; the message of its state."""
    state: State = nightly(**parameters, return_state=True)
    assert state.is_failed(), state
    assert state.message
    return state.message


def left_behind(root: Path) -> dict[str, tuple[int, int]]:
    """Every file under nights, models and parts with its inode and modification time, and where `latest` points.

    But for run.json, by which an unfinished night is resumed: a night that explains has one, whatever becomes of it.
    """
    files = {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for folder in ("nights", "models", "parts")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name != "run.json"
    }
    latest = root / "latest"
    return files | ({f"latest -> {latest.readlink()}": (0, 0)} if latest.is_symlink() else {})


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
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are retried as often as in production, but at once."""
    monkeypatch.setattr(explaining.explain_part, "retry_delay_seconds", [0.0] * explaining.RETRIES)
    monkeypatch.setattr(explaining.explain_part, "retries", explaining.RETRIES)


class Seen:
    """A night with the seed's network: its root, its result and what it reported."""

    def __init__(self, root: Path):
        self.root, self.reports = root, list[Progress]()
        with listening(self.reports.append):
            self.result: NightResult = nightly(**SEED_NIGHT, run={"root": root, "rows": "0:64"})


@pytest.fixture(scope="module")
def night(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(tmp_path_factory.mktemp("nightly") / "data")


@pytest.fixture
def store(night: Seen) -> Iterator:
    with open_store(night.root / "latest") as opened:
        yield opened


# The first night.


@pytest.mark.slow
def test_every_row_is_there_once_with_the_datasets_image_and_label(store, digits: Dataset) -> None:
    np.testing.assert_array_equal(store.row_numbers, np.arange(64))
    images, labels = read_rows(digits, "test", 0, 64)
    np.testing.assert_array_equal(store.image[:], images)
    np.testing.assert_array_equal(store.labels, labels)


def test_predictions_are_the_registered_models(store, night: Seen) -> None:
    (path,) = (night.root / "models").glob("*.keras")
    model = load_model(path)
    np.testing.assert_allclose(
        store.probabilities, model.predict(store.image[:].astype(np.float32) / 255, verbose=0), atol=1e-5
    )
    np.testing.assert_array_equal(store.predictions, store.probabilities.argmax(axis=1))
    assert 0 < store.rows(correct=False).size < 64


@pytest.mark.parametrize("target", ["true", "predicted"])
def test_attributions_are_finite_and_their_gap_is_the_recorded_one(store, target) -> None:
    attributions = store.attributions(store.row_numbers, target)
    assert np.isfinite(attributions).all()
    assert np.abs(attributions).max(axis=(1, 2, 3)).min() > 0
    certificate = store.certificate(target)
    difference = certificate["score"].astype(float) - certificate["score_baseline"]
    gap = attributions.sum(axis=(1, 2, 3), dtype=np.float64) - difference
    np.testing.assert_allclose(certificate["gap"], gap, atol=1e-5)
    within = np.abs(gap) <= 0.05 * np.maximum(1, np.abs(difference)) + 1e-5
    assert (within | ~certificate["converged"]).all()
    assert certificate["converged"].mean() > 0.9
    classes = store.labels if target == "true" else store.predictions
    np.testing.assert_allclose(certificate["score"], store.probabilities[np.arange(64), classes], atol=1e-5)


def test_misclassified_rows_have_predicted_groups_of_their_own(store) -> None:
    wrong = store.rows(correct=False)
    for name in ("integrated_gradients", "grad_cam"):
        np.testing.assert_array_equal(store.column(f"{name}/predicted/row"), wrong)
    true, predicted = (store.attributions(wrong, target) for target in ("true", "predicted"))
    assert (np.abs(true - predicted).max(axis=(1, 2, 3)) > 0).all()


def test_maps_are_finite_and_never_negative_and_their_maximum_is_recorded(store) -> None:
    maps = store.maps(store.row_numbers)
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()
    np.testing.assert_array_equal(store.table()["cam_max"], maps.max(axis=(1, 2)))


def test_latest_is_the_night_and_its_checksum_is_right(night: Seen) -> None:
    folder = Catalog(night.root).latest()
    assert folder == night.result.store.parent == night.root / "nights" / night.result.night_id
    sha256, name = (folder / "attributions.h5.sha256").read_text().split()
    assert name == "attributions.h5"
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert not night.result.store.stat().st_mode & 0o222


def test_the_record_of_the_night_is_what_the_flow_returned_and_true(night: Seen, store) -> None:
    record = json.loads((night.result.store.parent / "night.json").read_text())
    assert NightResult.model_validate(record) == night.result
    values = store.table()
    assert record["n_rows"] == 64
    assert record["converged_share"] == pytest.approx(values["converged"].mean())
    assert record["worst_gap"] == pytest.approx(values["gap"].abs().max())
    assert record["n_zero_maps"] == (values["cam_max"] == 0).sum()
    lacking = ", ".join(missing_references())
    assert record["audit"] == (f"not audited: {lacking} not installed (extra 'reference')" if lacking else "passed")
    assert {"ingest", "train", "evaluate", "explain", "seal", "audit"} <= set(record["stage_seconds"])


def test_pictures_of_the_chosen_rows_are_there(night: Seen) -> None:
    pictures = {path.name: path for path in night.result.gallery.glob("*.png")}
    rows = {f"row-0000{row}-{method}.png" for row in ("03", "40") for method in ("integrated-gradients", "grad-cam")}
    assert rows | {"confusion.png", "training-curves.png"} <= set(pictures)
    assert not any("2864" in name for name in pictures)
    for path in pictures.values():
        with Image.open(path) as picture:
            assert len(np.unique(np.asarray(picture))) > 10, f"{path.name} is blank"


def test_the_page_of_the_night_is_beside_its_store(night: Seen) -> None:
    page = night.result.store.with_name("report.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert (data["n_rows"], data["store"]) == (64, str(night.result.store))
    assert {3, 40} <= {entry["row"] for entry in data["pictures"] if data["reasons"][entry["why"]] == "spotlight"}
    assert night.result.verdict.partition(":")[0] in page
    assert "Accuracy by epoch" in page


def test_the_server_has_the_whole_run(night: Seen) -> None:
    state, tasks, _ = recorded(night.result.flow_run_id, n_tasks=10)
    assert state.is_completed()
    names = Counter(task.name.rsplit("-", 1)[0] if not task.name.startswith("rows") else "part" for task in tasks)
    expected = ("ingest", "train", "contract", "evaluate", "seal", "audit", "promote", "publish")
    assert names == {**dict.fromkeys(expected, 1), "part": 2}
    assert {task.name for task in tasks if task.name.startswith("rows")} == {"rows-0-to-32", "rows-32-to-64"}
    assert all(task.state.is_completed() for task in tasks)


def test_every_artifact_has_its_key_and_is_small_enough_for_the_ui(night: Seen) -> None:
    _, _, artifacts = recorded(night.result.flow_run_id, n_tasks=10)
    assert Counter(artifact.key for artifact in artifacts) == dict.fromkeys(KEYS, 1)
    for artifact in artifacts:
        size = len(str(artifact.data).encode()) + len(str(artifact.description).encode())
        assert size < ARTIFACT_BYTES, artifact.key
        assert "Look" in str(artifact.description), artifact.key
    by_key = {artifact.key: artifact for artifact in artifacts}
    assert by_key["explanations"].data == 100
    for key in KEYS - {"explanations"}:
        assert "data:image/png;base64," in str(by_key[key].data), key
        assert "![thumbnail](data:image" in str(by_key[key].description), key


def test_the_terminal_hears_of_every_stage_in_order(night: Seen) -> None:
    stages = list(dict.fromkeys(step.stage for step in night.reports))
    assert stages == ["ingest", "train", "contract", "evaluate", "explain", "seal", "audit", "promote", "publish"]
    parts = [(step.done, step.total, step.images) for step in night.reports if step.unit == "parts"]
    assert parts[-1] == (2, 2, 64)
    assert any(step.stage == "train" and step.unit == "images" for step in night.reports)


@pytest.mark.slow
def test_the_same_night_again_computes_nothing_and_holds_the_same(night: Seen, store, monkeypatch) -> None:
    before = left_behind(night.root)
    monkeypatch.setattr(compute, "explain_rows", lambda *_, **__: pytest.fail("a part was computed again"))
    monkeypatch.setattr(train, "train_model", lambda *_: pytest.fail("the model was trained again"))
    again = nightly(**SEED_NIGHT, run={"root": night.root, "rows": "0:64", "n_workers": 1})
    assert again.night_id != night.result.night_id
    assert Catalog(night.root).latest() == again.store.parent
    after = left_behind(night.root)
    for name, inode in before.items():
        if name.startswith(("parts", "models", f"nights/{night.result.night_id}")):
            assert after[name] == inode
    assert {name for name in after if name.startswith(("parts", "models"))} <= set(before)
    with open_store(again.store) as other:
        np.testing.assert_array_equal(other.attributions(other.row_numbers), store.attributions(store.row_numbers))
        np.testing.assert_array_equal(other.maps(other.row_numbers), store.maps(store.row_numbers))
        assert other.table().equals(store.table())
        assert other.attributes["digest"] == store.attributes["digest"]


# Nights of the small network: what is kept, what is computed anew, and what a failing part does.


@pytest.fixture
def parameters(root: Path, small_model: ModelRecord, few_digits: Dataset) -> Callable[..., dict[str, Any]]:
    return lambda **changed: small_night(root, small_model.path, few_digits.directory, **changed)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The rows of every part that is written, in order; an attempt that fails counts too."""
    written: list[tuple[int, int]] = []
    write = compute.write_part

    def counting(path: Path, start: int, stop: int, *arguments: Any, **named: Any) -> None:
        written.append((start, stop))
        write(path, start, stop, *arguments, **named)

    monkeypatch.setattr(compute, "write_part", counting)
    return written


def test_a_changed_setting_uses_other_parts(
    parameters: Callable[..., dict], root: Path, computed: list[tuple[int, int]]
) -> None:
    nightly(**parameters())
    first = left_behind(root)
    other = nightly(**parameters(integrated_gradients={"exponent": 2}))
    assert sorted(computed) == sorted([(0, 8), (8, 16), (16, 20)] * 2)
    assert len(list((root / "parts").iterdir())) == 2
    assert {name: there for name, there in left_behind(root).items() if name in first and "latest" not in name} == {
        name: there for name, there in first.items() if "latest" not in name
    }
    with open_store(root / "latest") as store:
        assert store.attributes["run_id"] == other.night_id
        assert store.attributes["configuration"]["integrated_gradients"]["exponent"] == 2


def test_only_missing_and_damaged_parts_are_computed(
    parameters: Callable[..., dict], root: Path, computed: list[tuple[int, int]]
) -> None:
    nightly(**parameters(run={"rows": "0:16"}))
    assert sorted(computed) == [(0, 8), (8, 16)]
    (part,) = root.glob("parts/*/rows-000008-000016.h5")
    part.write_bytes(part.read_bytes()[:-1000])
    del computed[:]
    result = nightly(**parameters())
    assert sorted(computed) == [(8, 16), (16, 20)]
    with open_store(result.store) as store:
        np.testing.assert_array_equal(store.row_numbers, np.arange(20))


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError(28, "No space left on device"), 3), (ValueError("row 11 is not finite"), 1)],
    ids=["OSError-retried-twice", "ValueError-not-retried"],
)
def test_one_failing_part_fails_the_night_and_the_next_run_finishes_it(
    parameters: Callable[..., dict],
    root: Path,
    computed: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    attempts: int,
) -> None:
    before = left_behind(root)
    write = compute.write_part

    def failing(path: Path, start: int, stop: int, *arguments: Any, **named: Any) -> None:
        if start == 8:
            computed.append((start, stop))
            raise error
        write(path, start, stop, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(compute, "write_part", failing)
        message = fails(parameters())
    assert "ExplanationError: 1 of 3 parts failed, rows 8 to 15" in message
    assert f"{type(error).__name__}: {error}" in message
    assert computed.count((8, 16)) == attempts
    assert Catalog(root).latest().name == EARLIER
    kept = set(left_behind(root)) - set(before)
    assert {Path(name).name for name in kept} == {"rows-000000-000008.h5", "rows-000016-000020.h5"}
    digest = Path(next(iter(kept))).parent.name
    assert check_part(root / "parts" / digest / "rows-000000-000008.h5", digest=digest, start=0, stop=8) is None

    del computed[:]
    result = nightly(**parameters())
    assert computed == [(8, 16)]
    assert Catalog(root).latest() == result.store.parent
    with open_store(result.store) as store:
        np.testing.assert_array_equal(store.row_numbers, np.arange(20))


@pytest.mark.usefixtures("quick_retries")
def test_all_failing_rows_are_named(
    parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, start: int, *_: Any, **__: Any) -> None:
        raise ValueError(f"row {start} is bad")

    monkeypatch.setattr(compute, "write_part", failing)
    before = left_behind(root)
    message = fails(parameters())
    assert (
        "3 of 3 parts failed, rows 0 to 7, 8 to 15, 16 to 19; first cause (rows 0 to 7): ValueError: row 0 is"
        in message
    )
    assert "run again to compute what is missing" in message
    assert left_behind(root) == before


@pytest.mark.usefixtures("quick_retries")
def test_a_hiccup_of_the_disk_is_survived(parameters: Callable[..., dict], monkeypatch: pytest.MonkeyPatch) -> None:
    write, hiccups = compute.write_part, iter([True, True])

    def hiccup(path: Path, start: int, *arguments: Any, **named: Any) -> None:
        if start == 8 and next(hiccups, False):
            raise OSError(5, "Input/output error")
        write(path, start, *arguments, **named)

    monkeypatch.setattr(compute, "write_part", hiccup)
    result = nightly(**parameters())
    assert result.n_rows == 20
    _, tasks, _ = recorded(result.flow_run_id, n_tasks=11)
    assert {task.name: task.run_count for task in tasks if task.name.startswith("rows")} == {
        "rows-0-to-8": 1,
        "rows-8-to-16": 3,
        "rows-16-to-20": 1,
    }


@pytest.mark.usefixtures("quick_retries")
def test_a_disk_without_space_fails_the_night_and_leaves_nothing_half_written(
    parameters: Callable[..., dict], root: Path
) -> None:
    """A limit on the size of files: writing a part then fails as it does on a full disk."""
    before = left_behind(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        message = fails(parameters())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "parts failed, rows 0 to 7, 8 to 15" in message
    assert "File too large" in message
    assert {Path(name).name for name in set(left_behind(root)) - set(before)} <= {"rows-000016-000020.h5"}
    assert Catalog(root).latest().name == EARLIER
    assert not list(root.rglob("*.tmp"))


def test_a_failing_audit_keeps_latest_and_the_store(
    parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing_references():
        pytest.skip("needs the extra 'reference'")
    monkeypatch.setattr(audit, "alibi_integrated_gradients", lambda _model, images, *_, **__: np.zeros_like(images))
    message = fails(parameters(run={"rows": "0:8"}, audit={"n_rows": 2}))
    assert "AuditError: the audit failed: rows [" in message
    assert "alibi returned zeros for all of rows" in message
    assert Catalog(root).latest().name == EARLIER
    assert len(Catalog(root).list_nights()) == 2  # the store is kept, to be looked at


def test_without_the_references_the_night_is_sealed_and_says_why(
    parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "missing_references", lambda: ["alibi", "tf-explain"])
    result = nightly(**parameters(run={"rows": "0:8"}, audit={"n_rows": 8}))
    assert result.audit == "not audited: alibi, tf-explain not installed (extra 'reference')"
    assert result.verdict.startswith("sealed with warnings: ") and result.verdict.endswith(f"; {result.audit}")
    assert Catalog(root).latest() == result.store.parent
    _, _, artifacts = recorded(result.flow_run_id, n_tasks=9)
    pages = {artifact.key: str(artifact.data) for artifact in artifacts}
    assert "not audited: alibi, tf-explain not installed" in pages["audit"]
    assert "not audited: alibi, tf-explain not installed" in pages["night"]


def test_pages_that_cannot_be_uploaded_do_not_fail_the_night(
    parameters: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise httpx.ReadTimeout("the server is busy")

    monkeypatch.setattr(page, "create_markdown_artifact", refuse)
    monkeypatch.setattr(explanations_bar, "create_progress_artifact", refuse)
    monkeypatch.setattr(Outage.finish, "__defaults__", (1.0,))
    result = nightly(**parameters(run={"rows": "0:8"}, gallery={"draw": True, "spotlight": [1], "per_class": 0}))
    assert result.verdict.startswith("sealed")
    assert (result.store.parent / "night.json").is_file()
    assert list(result.gallery.glob("*.png"))


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
