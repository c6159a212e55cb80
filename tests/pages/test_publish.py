"""Which rows are drawn and why, what a figure says of its row, and the files and pages of a published night."""

import contextlib
import errno
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from prefect.logging import disable_run_logger

from hostile_texts import unescape
from storage import AttributionStore, Catalog, open_store, verify_store, write_part
from storage.draw.panels import Sheet
from storage.draw.row_pictures import explained_rows, row_caption, row_pictures
from storage.file.methods import METHODS
from storage.file.schema import part_variables
from storage.nights.browse_record import remove_browse_record, write_browse_record
from storage.nights.night_entries import begin_run
from storage.read import row_means
from tasks import config as settings
from tasks import running_night
from tasks.audit import AuditError
from tasks.config import GalleryConfig
from tasks.evaluate import Evaluation, measure
from tasks.night import events as emitting
from tasks.night.class_means import class_means
from tasks.night.events import emit_failed, emit_sealed
from tasks.night.progress import Progress, listening
from tasks.pages import class_means_page as drawing_class_means
from tasks.pages import gallery_pages
from tasks.pages.chosen_rows import choose_rows
from tasks.pages.class_means_page import class_means_page
from tasks.pages.failure_page import failure_page
from tasks.pages.gallery_pages import method_pages, misclassified_page
from tasks.pages.night_page import night_page
from tasks.pages.page import Page
from tasks.pages.sheets import attribution_tile, image_tile, overlay_tile
from tasks.parts.plan import Plan
from tasks.publish import announce, publish
from tasks.running_night import Night
from tasks.seal import promote, seal

MakePlan = Callable[..., Plan]
SLUGS = ("integrated-gradients", "grad-cam", "hires-cam")

pytestmark = pytest.mark.usefixtures("no_run_logger")


@pytest.fixture(scope="module")
def night(
    make_small_plan: MakePlan, small_plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, Night, Path]:
    """The small plan, its night and its sealed store."""
    root = tmp_path_factory.mktemp("published")
    shutil.copytree(small_plan.root / "parts", root / "parts")
    plan, began = make_small_plan(root), Night("20261123T020000Z-ab12cd", "2026-11-23T02:00:00+00:00", "flow-run-7")
    configuration = {"explanation": plan.explanation, "dataset": settings.DatasetConfig()}
    with disable_run_logger(), began.stage("seal"):
        path = seal.fn(plan, began.id, began.began, began.flow_run_id, configuration)
    return plan, began, path


@pytest.fixture
def store(night: tuple[Plan, Night, Path]):
    with open_store(night[2]) as opened:
        yield opened


@pytest.fixture
def evaluation(store: AttributionStore) -> Evaluation:
    return measure(store.probabilities, store.labels, tuple(store.class_names), seed=0)


def table(**columns: list) -> pd.DataFrame:
    """Six rows from 10 on, of two classes."""
    base = {
        "label": [0, 0, 0, 1, 1, 1],
        "correct": [True, True, False, False, False, False],
        "confidence": [0.9, 0.8, 0.7, 0.6, 0.95, 0.5],
        "converged": [True, True, True, True, True, True],
        "quadrature_error": [0.01, 0.19, 0.02, 0.03, 0.04, 0.05],
    }
    return pd.DataFrame(base | columns, index=pd.RangeIndex(10, 16, name="row"))


def test_rows_are_chosen_for_each_reason_and_class() -> None:
    assert choose_rows(table(), GalleryConfig(spotlight=())) == {
        10: "most confident right",
        12: "most confident wrong",
        11: "least converged",
        14: "most confident wrong",
        15: "least converged",
    }


def test_a_row_that_did_not_converge_comes_before_one_with_a_larger_error() -> None:
    chosen = choose_rows(table(converged=[True, True, True, False, True, True]), GalleryConfig(spotlight=()))
    assert chosen[13] == "least converged"


def test_the_spotlight_comes_first_and_only_where_the_rows_exist() -> None:
    chosen = choose_rows(table(), GalleryConfig(spotlight=(2864, 15, 0, 10), per_class=0))
    assert list(chosen.items()) == [(15, "spotlight"), (10, "spotlight")]


def test_no_row_is_drawn_twice() -> None:
    chosen = choose_rows(table(), GalleryConfig(spotlight=(12,), per_class=3))
    assert chosen[12] == "spotlight"
    assert len(chosen) == 6


@pytest.mark.parametrize("target", ["true", "predicted"])
def test_a_caption_tells_classes_confidence_and_trust(store: AttributionStore, target) -> None:
    row = int(store.rows(correct=False)[0])
    record, certificate = store.table().loc[row], store.certificate(target).loc[row]
    classes, trust = row_caption(store, row, target).splitlines()
    label, prediction = record["label_name"], record["prediction_name"]
    assert label != prediction
    assert classes.startswith(f"Row {row}: {label}, predicted {prediction} ({record['confidence']:.1%})")
    assert classes.endswith(f"explained {label if target == 'true' else prediction}")
    assert trust.startswith(f"gap {certificate['gap']:+.3f}, error {certificate['quadrature_error']:.3f}")
    assert ("NOT CONVERGED" in trust) != certificate["converged"]


@pytest.mark.parametrize("target", ["true", "predicted"])
def test_a_row_has_a_picture_of_each_method(store: AttributionStore, target) -> None:
    rows = [int(store.rows(correct=False)[0]), 3]
    drawn = {(row, method): pixels for row, method, pixels in row_pictures(store, rows, 60, target)}
    assert list(drawn) == [(row, method) for row in rows for method in SLUGS]
    for row in rows:
        caption = row_caption(store, row, target)
        for method in METHODS:
            sheet = Sheet(method, store.image[row].shape, "probability")
            title = caption.splitlines()[0] if method.is_map else caption
            sheet.show(store.image[row], store.view(method, target)[row], title)
            np.testing.assert_array_equal(drawn[row, method.slug], sheet.render(60))


@pytest.mark.parametrize("block_bytes", [1, 16 << 20])
def test_rows_are_read_in_their_order_in_blocks_of_any_size(
    store: AttributionStore, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_means, "BLOCK_BYTES", block_bytes)
    rows = [7, 2, 19, 2]
    read = list(explained_rows(store, rows, "predicted"))
    assert [one.row for one in read] == rows
    np.testing.assert_array_equal([one.image for one in read], store.image[rows])
    for method in METHODS:
        np.testing.assert_array_equal([one.pictures[method] for one in read], store.view(method, "predicted")[rows])
    assert list(explained_rows(store, [])) == []


def test_a_row_that_is_not_there_has_no_picture(store: AttributionStore) -> None:
    with pytest.raises(IndexError, match="999"):
        list(row_pictures(store, [999], 60))


def test_a_night_says_what_its_store_holds(night: tuple[Plan, Night, Path], store: AttributionStore) -> None:
    _, began, path = night
    result = began.result(path, accuracy=0.5, audit="passed", warnings=())
    values = store.table()
    assert (result.night_id, result.store, result.store_bytes) == (began.id, path, path.stat().st_size)
    assert result.n_rows == 20
    assert result.converged_share == values["converged"].mean()
    assert result.worst_gap == pytest.approx(values["gap"].abs().max())
    assert result.gradients_per_image == pytest.approx(values["n_gradients"].mean())
    assert result.n_zero_maps == (values["cam_max"] == 0).sum() > 0
    assert result.seconds == sum(result.stage_seconds.values())


class FiveRows:
    """A store of which tables and the fingerprint are asked for: the worst gap is negative, one row is open, two maps are
    empty, and nothing was measured of what explanations are worth beyond each row's gain."""

    attributes: ClassVar = {
        "dataset_sha256": "ab12",
        "dataset_split": "test",
        "precision": "float32",
        "precision_error": None,
        "device": "NVIDIA H200",
        "worth": {},
    }
    n_bytes = 1000
    class_names: ClassVar = ["cat", "dog"]
    has_grad_cam = True

    def __enter__(self) -> "FiveRows":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def table(self) -> pd.DataFrame:
        columns = {
            "gap": [-0.4, 0.1, 0.2, 0.0, 0.0],
            "converged": [0, 1, 1, 1, 1],
            "cam_max": [0, 0, 3, 3, 3],
            "hires_max": [1] * 5,
            "relevance_gain": [0.5, 0.25, 0.0, -0.25, 0.125],
        }
        return pd.DataFrame(columns | {"n_gradients": [512, 16, 16, 16, 40]})

    def clusters(self) -> pd.DataFrame:
        return pd.DataFrame(columns=["transplant_score", "region_share"])


def test_the_figures_of_a_night_by_hand(night: tuple[Plan, Night, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_night, "open_store", lambda _: FiveRows())
    result = night[1].result(night[2], accuracy=0.5, audit="passed", warnings=())
    assert (result.n_rows, result.n_zero_maps) == (5, 2)
    assert (result.converged_share, result.worst_gap, result.gradients_per_image) == (0.8, 0.4, 120)
    assert (result.device, result.precision) == ("NVIDIA H200", "float32")
    assert (result.relevance_gain, result.worth) == (0.125, {})
    assert result.verdict == ("sealed with warnings: 1 of 5 rows did not converge; 2 of 5 Grad-CAM maps are empty")


def test_a_night_is_sealed_with_warnings_where_something_is_to_be_looked_at(night: tuple[Plan, Night, Path]) -> None:
    _, began, path = night
    why = "not audited: alibi not installed"
    result = began.result(path, accuracy=0.5, audit=why, warnings=("no image of class 3 in the test split",))
    assert result.verdict.startswith("sealed with warnings: no image of class 3")
    assert result.verdict.endswith(why)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Page]:
    """The pages that would be uploaded, by key."""
    published: dict[str, Page] = {}
    monkeypatch.setattr(Page, "publish", lambda page: published.update({page.key: page}))
    return published


@pytest.fixture(autouse=True)
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events that would be sent."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(emitting, "emit_event", lambda **event: sent.append(event))
    return sent


def test_publishing_writes_pictures_and_pages(
    night: tuple[Plan, Night, Path], evaluation: Evaluation, pages: dict[str, Page]
) -> None:
    plan, began, path = night
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=())
    publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(3, 5), per_class=0))
    announce(plan, result, GalleryConfig(spotlight=(3, 5), per_class=0))
    pictures = {picture.name for picture in result.gallery.iterdir()}
    rows = {f"row-00000{row}-{method}.png" for row in (3, 5) for method in SLUGS}
    assert rows | {"confusion.png", "summary.png"} == pictures
    for name in pictures:
        with Image.open(result.gallery / name) as picture:
            assert min(picture.size) > 100
            assert len(np.unique(np.asarray(picture))) > 10, f"{name} is blank"
    assert set(pages) == {f"gallery-{kind}" for kind in ("integrated-gradients", "grad-cam", "misclassified")} | {
        "class-means",
        "night",
        "worth",
        "strategies",
    }
    for key, page in pages.items():
        assert "data:image/png" in page.markdown(), key
        assert "![thumbnail](data:image/png" in page.description(), key
        assert "Look" in page.look_for, key
        assert len(page.markdown().encode()) + len(page.description().encode()) < 500_000, key
    assert text_of(pages["night"]).startswith("# Sealed\n")
    assert began.id in text_of(pages["night"])
    assert "| computed | on CPU, in float32 |" in text_of(pages["night"])


def test_the_page_links_to_a_browse_that_is_up_and_else_says_how_to_start_one(
    night: tuple[Plan, Night, Path],
) -> None:
    plan, began, path = night
    result = began.result(path, 0.5, audit="passed", warnings=())
    command = f"nightlens browse {plan.root}"
    assert command in text_of(night_page(plan, result, Figure))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        write_browse_record(plan.root, address)
        text = text_of(night_page(plan, result, Figure))
    remove_browse_record(plan.root)
    assert f"]({address}/nights/{began.id}/)" in text
    assert command not in text


def test_a_disk_that_fills_up_while_pictures_are_written_is_told_and_leaves_whole_ones(
    night: tuple[Plan, Night, Path],
    evaluation: Evaluation,
    pages: dict[str, Page],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plan, began, path = night
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=())
    result = result.model_copy(update={"gallery": tmp_path / "gallery"})
    save, written = Image.Image.save, []

    def fill(picture: Image.Image, file: Path, *arguments: Any, **options: Any) -> None:
        written.append(file.name)
        save(picture, file, *arguments, **options)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill)
    with pytest.raises(OSError, match=rf"{began.id} is sealed, but .*No space left on device") as raised:
        publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(3, 5), per_class=0))
    assert raised.value.errno == errno.ENOSPC
    assert len(written) == 3
    assert {picture.name for picture in result.gallery.iterdir()} == {"confusion.png", "summary.png"}
    assert not pages


def test_progress_tells_of_every_picture_that_is_there(
    night: tuple[Plan, Night, Path], evaluation: Evaluation, pages: dict[str, Page], tmp_path: Path
) -> None:
    plan, began, path = night
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=())
    result = result.model_copy(update={"gallery": tmp_path / "gallery"})
    told: list[tuple[int, int, int]] = []

    def tell(progress: Progress) -> None:
        told.append((progress.done, progress.total, len(list(result.gallery.glob("*.png")))))

    with listening(tell):
        publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(3, 5), per_class=0))
    assert [(done, total) for done, total, _ in told] == [(k, 8) for k in range(1, 9)]
    assert all(there >= done for done, _, there in told)


def text_of(page: Page) -> str:
    """What a page says, without its pictures."""
    return unescape(re.sub(r"\(data:image[^)]*\)", "()", page.markdown()))


def test_galleries_say_in_words_what_they_draw(store: AttributionStore) -> None:
    table = store.table()
    signed, maps = method_pages(store, {3: "spotlight", 5: "least converged"})
    for page, told in ((signed, f"gap {table.loc[3, 'gap']:+.3f}"), (maps, "maximum")):
        text = text_of(page)
        assert text.count("![") == 1, "one sheet"
        assert "| 3 | spotlight |" in text
        assert "| 5 | least converged |" in text
        assert told in text
        assert f"row 3: {table.loc[3, 'label_name']}" in text


def test_mistakes_come_most_confident_first_with_both_scores(store: AttributionStore) -> None:
    table = store.table()
    wrong = table[~table["correct"]].sort_values("confidence", ascending=False)
    text = text_of(misclassified_page(store, limit=5))
    assert text.startswith(f"# {len(wrong)} of 20 rows are misclassified")
    shown = [int(found) for found in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert shown == wrong.index[:5].tolist()
    assert f"{len(wrong) - 5} more are in the store" in text
    first = shown[0]
    scores = [store.certificate(target).loc[first, "score"] for target in ("true", "predicted")]
    assert scores[1] == pytest.approx(table.loc[first, "confidence"], rel=1e-3)
    assert f"| {table.loc[first, 'label_name']} | {scores[0]:.3g} |" in text
    assert f"| {table.loc[first, 'prediction_name']} | {scores[1]:.3g} |" in text


def test_mistakes_are_explained_for_both_classes(store: AttributionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles, left to right: image, attribution and map of the true class, then of the predicted one."""
    sheets: list[Any] = []
    monkeypatch.setattr(gallery_pages, "rows_sheet", lambda rows, *_, **__: sheets.append(rows) or Figure())
    misclassified_page(store, limit=1)
    (((_, tiles),),) = sheets
    row = int(store.table()[lambda table: ~table["correct"]].sort_values("confidence").index[-1])
    expected = [image_tile(store.image[row])]
    for target in ("true", "predicted"):
        expected.append(attribution_tile(store.attributions([row], target)[0]))
        expected += [
            overlay_tile(store.image[row], store.maps([row], target, name)[0]) for name in ("grad_cam", "hires_cam")
        ]
    assert len(tiles) == len(expected) == 7
    for tile, wanted in zip(tiles, expected, strict=True):
        assert (tile is None and wanted is None) or np.array_equal(tile, wanted)
    assert not np.array_equal(tiles[1], tiles[4])


def test_without_a_mistake_the_page_says_so(store: AttributionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    right = store.table().assign(correct=True)
    monkeypatch.setattr(store, "table", lambda *_: right)
    page = misclassified_page(store, limit=5)
    assert text_of(page).startswith("# 0 of 20 rows are misclassified")
    assert "![no row is misclassified]" in text_of(page)
    assert "![thumbnail]" in page.description()


def test_means_are_the_classes_means(store: AttributionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(row_means, "BLOCK_BYTES", 1)
    monkeypatch.setattr(drawing_class_means, "summary_figure", lambda *a, **_: drawn.append(a) or Figure())
    text = text_of(class_means_page(store, class_means(store)))
    ((images, explained, names),) = drawn
    present = sorted(set(store.labels.tolist()))
    assert names == [store.class_names[k] for k in present]
    for k, label in enumerate(present):
        rows = store.rows(label=label)
        np.testing.assert_array_equal(images[k], np.rint(store.image[rows].mean(axis=0)))
        for method, means in explained:
            expected = store.view(method)[rows].mean(axis=0, dtype=np.float64)
            np.testing.assert_allclose(means[k], expected, atol=1e-12)
        recognised = store.table().loc[rows, "correct"].mean()
        assert f"| {names[k]} | {len(rows)} | {recognised:.1%} |" in text


def test_a_night_tells_its_warnings_to_automations(
    night: tuple[Plan, Night, Path],
    evaluation: Evaluation,
    pages: dict[str, Page],
    events: list[dict[str, Any]],
) -> None:
    plan, began, path = night
    alert = settings.AlertConfig(zero_maps=0)
    result = began.result(path, evaluation.accuracy, audit="not audited: so", warnings=("odd | images",), alert=alert)
    publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(3,), per_class=0))
    announce(plan, result, GalleryConfig(spotlight=(3,), per_class=0))
    text = text_of(pages["night"])
    assert text.startswith("# Sealed with warnings\n")
    for warning in result.warnings:
        assert f"| {warning.kind} | {warning.message} |" in text
    assert [event["event"] for event in events] == ["nightlens.night.sealed"] + ["nightlens.night.warning"] * len(
        result.warnings
    )
    for event in events:
        assert event["resource"]["prefect.resource.id"] == f"nightlens.night.{began.id}"
        assert {"prefect.resource.id": "prefect.flow-run.flow-run-7", "prefect.resource.role": "flow-run"} in event[
            "related"
        ]
    assert events[0]["resource"]["nightlens.verdict"] == "warned"
    assert events[0]["payload"]["verdict"] == result.verdict
    kinds = [event["resource"].get("nightlens.warning") for event in events[1:]]
    assert kinds == [warning.kind for warning in result.warnings]
    assert kinds[0] == "dataset"
    assert kinds[-1] == "not-audited"
    assert events[0]["payload"]["accuracy"] == evaluation.accuracy
    zero = next(event for event in events if event["resource"].get("nightlens.warning") == "zero-maps")
    assert zero["payload"]["value"] == result.n_zero_maps / 20
    assert zero["payload"]["threshold"] == 0


def test_a_failed_audit_is_a_failure_and_a_warning(
    night: tuple[Plan, Night, Path], evaluation: Evaluation, events: list[dict[str, Any]]
) -> None:
    plan, began, path = night
    promote.fn(plan, began.result(path, evaluation.accuracy, audit="passed", warnings=()))
    tonight = Night("20261124T020000Z-ab12cd", "2026-11-24T02:00:00+00:00", "flow-run-8")
    failure = tonight.failure(Catalog(plan.root), AuditError("the audit failed: rows [12] differ beyond tolerance"))
    assert failure.latest == began.id
    assert [warning.kind for warning in failure.warnings] == ["audit"]
    emit_failed(failure)
    assert [event["event"] for event in events] == ["nightlens.night.failed", "nightlens.night.warning"]
    assert events[0]["resource"]["nightlens.verdict"] == "failed"
    assert events[0]["payload"]["verdict"] == f"failed in {failure.stage}: {failure.reason}"
    assert events[1]["resource"]["nightlens.warning"] == "audit"
    assert "rows [12] differ" in events[1]["payload"]["message"]
    assert f"latest is {began.id}" in failure_page(failure, plan.root).description()


def test_a_night_without_warnings_is_one_event_that_no_automation_need_post(
    night: tuple[Plan, Night, Path], evaluation: Evaluation, events: list[dict[str, Any]]
) -> None:
    _, began, path = night
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=())
    emit_sealed(result.model_copy(update={"warnings": (), "verdict": "sealed"}))
    (event,) = events
    assert event["resource"]["nightlens.verdict"] == event["payload"]["verdict"] == "sealed"


def test_a_failed_night_says_where_and_why_and_what_is_still_there(tmp_path: Path) -> None:
    began = Night("20261124T020000Z-ab12cd", "2026-11-24T02:00:00+00:00", "flow-run-7")
    with contextlib.suppress(ValueError):
        with began.stage("ingest"):
            pass
        with began.stage("explain"):
            raise ValueError
    begin_run(Catalog(tmp_path), began.id, parameters={}, plan={})
    error = ValueError("rows 8 to 15: <script>alert(1)</script> | a\nb " + "x" * 600)
    failure = began.failure(Catalog(tmp_path), error)
    assert (failure.stage, failure.latest) == ("explain", "none yet")
    page = failure_page(failure, tmp_path)
    first = page.markdown().splitlines()[0]
    assert unescape(first).startswith("# Failed in explain: ValueError: rows 8 to 15: <script>")
    assert "<script" not in page.markdown().replace("\\<script", "")
    assert "latest is none yet" in page.description()
    assert "![thumbnail]" in page.description()
    assert f"nightlens run --resume --night {began.id} --root {tmp_path}" in page.markdown()


def test_a_night_that_had_nothing_explained_cannot_be_resumed_and_its_page_does_not_say_so(tmp_path: Path) -> None:
    began = Night("20261124T020000Z-ab12cd", "2026-11-24T02:00:00+00:00", "flow-run-7")
    page = failure_page(began.failure(Catalog(tmp_path), ValueError("no images")), tmp_path)
    assert "--resume" not in page.markdown()
    assert "Nothing was explained yet" in page.markdown()


def test_a_night_without_a_row_to_draw_is_published(
    night: tuple[Plan, Night, Path], evaluation: Evaluation, pages: dict[str, Page]
) -> None:
    """No row of the spotlight is there and no other is asked for: the summary shows the first rows."""
    plan, began, path = night
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=())
    publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(999,), per_class=0))
    assert (result.gallery / "summary.png").is_file()
    assert "![no row was chosen]" in text_of(pages["gallery-grad-cam"])


@pytest.fixture
def without_maps(
    make_small_plan: MakePlan, small_plan: Plan, tmp_path: Path, no_run_logger: None
) -> tuple[Plan, Night, Path]:
    """The small night without Grad-CAM: the same parts without their maps, sealed."""
    plan = make_small_plan(tmp_path).model_copy(
        update={"contract": small_plan.contract.model_copy(update={"layer": ""}), "digest": "without"}
    )
    for start, stop in plan.ranges():
        with h5py.File(small_plan.part(start, stop)) as file:
            arrays = {v.path: file[v.path][...] for v in part_variables(maps=False) if v.is_per_row and v.path != "row"}
        write_part(plan.part(start, stop), start, stop, arrays, digest=plan.digest, part_rows=plan.part_rows)
    began = Night("20261125T020000Z-ab12cd", "2026-11-25T02:00:00+00:00", "flow-run-9")
    with began.stage("seal"):
        path = seal.fn(plan, began.id, began.began, began.flow_run_id, {"explanation": plan.explanation})
    return plan, began, path


def test_a_night_without_grad_cam_is_published_and_says_so(
    without_maps: tuple[Plan, Night, Path], pages: dict[str, Page], events: list[dict[str, Any]]
) -> None:
    plan, began, path = without_maps
    assert verify_store(path) == ()
    with open_store(path) as store:
        evaluation = measure(store.probabilities, store.labels, tuple(store.class_names), seed=0)
    alert = settings.AlertConfig(zero_maps=0)
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=(), alert=alert)
    assert (result.has_grad_cam, result.n_zero_maps) == (False, 0)
    assert "zero-maps" not in [warning.kind for warning in result.warnings]
    told: list[tuple[int, int]] = []
    with listening(lambda progress: told.append((progress.done, progress.total))):
        publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(3, 5), per_class=0))
        announce(plan, result, GalleryConfig(spotlight=(3, 5), per_class=0))
    assert told == [(k, 4) for k in range(1, 5)]
    assert {picture.name for picture in result.gallery.iterdir()} == {
        *(f"row-00000{row}-integrated-gradients.png" for row in (3, 5)),
        "confusion.png",
        "summary.png",
    }
    assert set(pages) == {
        *("gallery-integrated-gradients", "gallery-misclassified", "class-means", "night", "worth", "strategies")
    }
    for key, page in pages.items():
        assert ("This night has no Grad-CAM" in text_of(page)) == (key not in ("worth", "strategies")), key
        assert "empty" not in text_of(page), key
        assert "![thumbnail](data:image/png" in page.description(), key
    assert "| Grad-CAM | none: Integrated Gradients alone |" in text_of(pages["night"])
    assert "this night has no Grad-CAM" in (path.parent / "report.html").read_text()
    assert (events[0]["payload"]["has_grad_cam"], events[0]["payload"]["n_zero_maps"]) == (False, 0)


def test_without_grad_cam_mistakes_have_three_tiles_and_means_two(
    without_maps: tuple[Plan, Night, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[Any] = []
    monkeypatch.setattr(gallery_pages, "rows_sheet", lambda *a, **_: sheets.append(a) or Figure())
    with open_store(without_maps[2]) as store:
        misclassified_page(store, limit=1)
        means = class_means(store)
        text = text_of(class_means_page(store, means))
    (((_, tiles),), headings) = sheets[0]
    assert len(tiles) == len(headings) == 3
    assert [[method.group for method in mean.pictures] for mean in means] == [["integrated_gradients"]] * len(means)
    assert text.startswith("# Mean image and Integrated Gradients by true class")
    assert "empty maps" not in text
