"""Several rows in one figure: which pictures stand where, what is said of them, and that nothing lies over another."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from example_store import ATTRIBUTES, CLASS_NAMES, joined_arrays, seal, write_parts
from hostile_texts import NASTY
from reported_night import seal_example
from storage import AttributionStore, open_store, part_path, seal_store, write_part
from storage.draw.figures import as_rgb, explained_picture, render, signed_heat
from storage.draw.row_sheet import MOST_LINES

N_ROWS = 70
# HDF5 keeps neither of the two that are left out.
KEPT = {"wide": "W" * 30} | {what: name for what, name in NASTY.items() if what not in ("control", "undecodable")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttributionStore]:
    folder = tmp_path_factory.mktemp("night")
    seal(folder / "attributions.h5", write_parts(folder / "parts", 0, N_ROWS))
    with open_store(folder) as opened:
        yield opened


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("target", ["true", "predicted"])
def test_every_line_has_the_row_that_was_asked_for_in_the_order_asked_for(store: AttributionStore, target) -> None:
    rows = [31, 4, 4, 60]
    figure = store.figure(rows, target)
    pictures = [np.asarray(shown.get_array()) for shown in figure.axes[0].images]
    columns = 1 + len(store.methods)
    assert len(pictures) == len(rows) * columns
    for k, row in enumerate(rows):
        image = store.image[row]
        line = pictures[k * columns : (k + 1) * columns]
        np.testing.assert_array_equal(line[0], as_rgb(image))
        for method, drawn in zip(store.methods, line[1:], strict=True):
            np.testing.assert_array_equal(drawn, explained_picture(method, image, store.view(method, target)[row]))
    tops = [shown.get_extent()[3] for shown in figure.axes[0].images[::columns]]
    assert tops == sorted(tops) and len(set(tops)) == len(rows)
    assert [text for text in written(figure) if text.startswith("row ")] == ["row 31", "row 4", "row 4", "row 60"]


def test_every_picture_says_its_own_scale(store: AttributionStore) -> None:
    row = 9
    said = written(store.figure([row]))
    assert f"±{signed_heat(store.attributions(row))[1]:.2g} a pixel" in said
    for method in store.methods[1:]:
        assert f"maximum {store.maps(row, method=method).max():.2g}" in said


def test_a_line_says_what_is_known_of_its_row(store: AttributionStore) -> None:
    row = int(store.rows(correct=False)[0])
    table = store.table([row]).iloc[0]
    certificate = store.certificate("predicted", [row]).iloc[0]
    said = written(store.figure([row], "predicted"))
    assert f"label {table.label_name}" in said
    assert f"predicted {table.prediction_name}" in said
    assert f"confidence {table.confidence:.1%}" in said
    assert f"explained {table.prediction_name}" in said
    assert f"gap {certificate.gap:+.3f}, error {certificate.quadrature_error:.3f}" in said
    assert ("converged" if certificate.converged else "NOT CONVERGED") in said


def test_one_row_stays_the_figure_that_it_was_and_one_in_a_list_is_a_sheet(store: AttributionStore) -> None:
    assert len(store.figure(7).axes) > 3 and len(store.figure(np.int64(7)).axes) > 3
    assert len(store.figure([7]).axes) == 1


def test_rows_are_chosen_as_everywhere(store: AttributionStore) -> None:
    mask = np.zeros(N_ROWS, bool)
    mask[[2, 5]] = True
    for rows in (mask, slice(2, 6, 3), np.array([2, 5]), (2, 5)):
        assert [text for text in written(store.figure(rows)) if text.startswith("row ")] == ["row 2", "row 5"]
    with pytest.raises(IndexError, match="row 70 is not in this store, which has rows 0-69"):
        store.figure([1, 70])


@pytest.mark.parametrize("rows", [range(MOST_LINES + 1), ..., []], ids=["51", "all", "none"])
def test_too_many_rows_and_none_are_refused_in_one_line(store: AttributionStore, rows) -> None:
    with pytest.raises(
        ValueError, match=r"expected 1 to 50 rows for one figure, got \d+; take some of them"
    ) as refused:
        store.figure(rows)
    assert "\n" not in str(refused.value)


def test_as_many_rows_as_may_be(store: AttributionStore) -> None:
    assert len(store.figure(range(MOST_LINES)).axes[0].images) == MOST_LINES * (1 + len(store.methods))


@pytest.mark.parametrize("name", KEPT.values(), ids=KEPT)
def test_nothing_is_written_over_a_picture_or_off_the_figure(tmp_path: Path, name: str) -> None:
    with open_store(seal_example(tmp_path, [name, f"{name}2", "other"])) as store:
        figure = store.figure([0, 1, 2, 3])
        render(figure)
        (ax,) = figure.axes
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        extents = [text.get_window_extent(renderer) for text in ax.texts]
        pictures = [shown.get_window_extent(renderer) for shown in ax.images]
        for text, extent in zip(ax.texts, extents, strict=True):
            assert not text.get_parse_math()
            assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1, text
            assert not [other for other in pictures if extent.overlaps(other)], text
        for k, extent in enumerate(extents):
            assert not [other for other in extents[k + 1 :] if extent.overlaps(other)], ax.texts[k]


def test_large_images_are_drawn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = joined_arrays(0, 3, n_wrong=0)
    arrays |= {
        "image": random.integers(0, 256, (3, 224, 160, 3), dtype=np.uint8),
        "integrated_gradients/attribution": random.standard_normal((3, 224, 160, 3)).astype(np.float32),
        "integrated_gradients/predicted/attribution": np.zeros((0, 224, 160, 3), np.float32),
    }
    part = part_path(tmp_path / "parts", 0, 3)
    write_part(part, 0, 3, arrays, digest="d1935c", part_rows=3)

    seal_store(tmp_path / "attributions.h5", [part], class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    with open_store(tmp_path) as store:
        figure = store.figure([0, 1, 2])
        assert render(figure, 60).shape[2] == 3
        left, right, bottom, top = figure.axes[0].images[0].get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(224 / 160)


def test_a_store_without_maps_has_a_sheet_without_them(tmp_path: Path) -> None:
    with open_store(seal_example(tmp_path, grad_cam=False)) as store:
        figure = store.figure([0, 1])
        assert len(figure.axes[0].images) == 4
        assert "Grad-CAM" not in written(figure)
