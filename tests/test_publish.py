"""Which rows are drawn and why, what a figure says of its row, and the files and pages of a published night."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from prefect.logging import disable_run_logger

from storage import AttributionStore, open_store
from storage.pictures import row_caption, row_figures
from tasks import config as settings
from tasks.config import GalleryConfig
from tasks.evaluate import Evaluation, measure
from tasks.night import Night
from tasks.pictures import choose_rows
from tasks.plan import Plan
from tasks.publish import publish
from tasks.seal import seal

MakePlan = Callable[..., Plan]
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
def test_a_row_has_a_figure_of_each_method(store: AttributionStore, target) -> None:
    row = int(store.rows(correct=False)[0])
    figures = row_figures(store, row, target)
    assert list(figures) == ["integrated-gradients", "grad-cam"]
    gap = store.certificate(target).loc[row, "gap"]
    texts = [
        figures["integrated-gradients"].get_suptitle(),
        *(a.get_title() for a in figures["integrated-gradients"].axes),
    ]
    assert any(f"gap {gap:+.3f}" in text for text in texts)


def test_a_row_that_is_not_there_has_no_figure(store: AttributionStore) -> None:
    with pytest.raises(IndexError, match="999"):
        row_figures(store, 999)


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
    """A store of which only the table and the images' fingerprint are asked for: the worst gap is negative, one row is open, two maps are empty."""

    attributes: ClassVar = {"dataset_sha256": "ab12", "dataset_split": "test"}

    def __enter__(self) -> "FiveRows":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def table(self) -> pd.DataFrame:
        columns = {"gap": [-0.4, 0.1, 0.2, 0.0, 0.0], "converged": [0, 1, 1, 1, 1], "cam_max": [0, 0, 3, 3, 3]}
        return pd.DataFrame(columns | {"n_gradients": [512, 16, 16, 16, 40]})


def test_the_figures_of_a_night_by_hand(night: tuple[Plan, Night, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.night.open_store", lambda _: FiveRows())
    result = night[1].result(night[2], accuracy=0.5, audit="passed", warnings=())
    assert (result.n_rows, result.n_zero_maps) == (5, 2)
    assert (result.converged_share, result.worst_gap, result.gradients_per_image) == (0.8, 0.4, 120)
    assert result.verdict == ("sealed with warnings: 1 of 5 rows did not converge; 2 of 5 Grad-CAM maps are empty")


def test_a_night_is_sealed_with_warnings_where_something_is_to_be_looked_at(night: tuple[Plan, Night, Path]) -> None:
    _, began, path = night
    why = "not audited: alibi not installed"
    result = began.result(path, accuracy=0.5, audit=why, warnings=("no image of class 3 in the test split",))
    assert result.verdict.startswith("sealed with warnings: no image of class 3")
    assert result.verdict.endswith(why)


def test_publishing_writes_pictures_and_pages(
    night: tuple[Plan, Night, Path], evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: dict[str, str] = {}
    monkeypatch.setattr("tasks.artifacts.Page.publish", lambda page: pages.update({page.key: page.markdown()}))
    plan, began, path = night
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=())
    publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(3, 5), per_class=0))
    pictures = {picture.name for picture in result.gallery.iterdir()}
    rows = {f"row-00000{row}-{method}.png" for row in (3, 5) for method in ("integrated-gradients", "grad-cam")}
    assert rows | {"confusion.png", "summary.png"} == pictures
    for name in pictures:
        with Image.open(result.gallery / name) as picture:
            assert min(picture.size) > 100
            assert len(np.unique(np.asarray(picture))) > 10, f"{name} is blank"
    assert set(pages) == {"gallery-integrated-gradients", "gallery-grad-cam", "night"}
    assert all(pages[f"gallery-{method}"].count("data:image") == 2 for method in ("integrated-gradients", "grad-cam"))
    assert str(path.parent.name) in pages["night"].replace("&#45;", "-")


def test_a_night_without_a_row_to_draw_is_published(
    night: tuple[Plan, Night, Path], evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row of the spotlight is there and no other is asked for: the summary shows the first rows."""
    monkeypatch.setattr("tasks.artifacts.Page.publish", lambda _: True)
    plan, began, path = night
    result = began.result(path, evaluation.accuracy, audit="passed", warnings=())
    publish.fn(plan, result, evaluation, GalleryConfig(spotlight=(999,), per_class=0))
    assert (result.gallery / "summary.png").is_file()
