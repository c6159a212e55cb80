"""Figures: what a colour means, maps that are empty, names that nobody chose for matplotlib, and no warning anywhere."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Text

from storage.draw import figures
from storage.draw.figures import (
    RED_GREEN,
    overlay,
    render,
    scaled_map,
    short_name,
    signed_heat,
    summary_figure,
)
from storage.draw.panels import Sheet, row_figure
from storage.draw.row_pictures import NAME_LENGTH
from storage.file.methods import GRAD_CAM, INTEGRATED_GRADIENTS, METHODS
from tasks.pages.figures.page_figures import (
    audit_figure,
    class_figure,
    confusion_figure,
    curves_figure,
    duration,
    grid_figure,
    parameters_figure,
    reliability_figure,
    stages_figure,
    text_figure,
)
from tasks.pages.sheets import attribution_tile, heat_tile, image_tile, overlay_tile, rows_sheet

# What other tests left open, and only the garbage collection during one of these speaks of, is none of theirs.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (16, 16, 1), dtype=np.uint8)
ATTRIBUTION = RNG.normal(size=(16, 16, 3)).astype(np.float32) * 1e-3
MAP = RNG.random((4, 4), dtype=np.float32)
EMPTY = np.zeros((4, 4), np.float32)
NASTY = ["$", "$\\nope$", "a_{$b$", "two\nlines", "x" * 300, "%s {0}", "", " ", "<b>&amp;</b>", "\\"]
SMALLEST = np.finfo(np.float32).smallest_subnormal


def attribution_figure(image, attribution, *, title, units):
    sheet = Sheet(INTEGRATED_GRADIENTS, image.shape, units)
    sheet.show(image, attribution, title)
    return sheet.figure


def map_figure(image, picture, *, title):
    sheet = Sheet(GRAD_CAM, image.shape, "logit")
    sheet.show(image, picture, title)
    return sheet.figure


def pictures_of(attribution, picture):
    """Each method with its picture, or pictures: the same for all that are alike."""
    return [(method, picture if method.is_map else attribution) for method in METHODS]


# Signed attributions


def test_signed_heat_sums_channels_and_keeps_the_sign():
    attribution = np.zeros((10, 10, 3), np.float32)
    attribution[2, 3], attribution[5, 5] = [1, 2, -0.5], [-4, 1, 1]
    heat, limit = signed_heat(attribution)
    assert heat.shape == (10, 10) and heat.dtype == np.float32
    assert (heat[2, 3], heat[5, 5], heat[0, 0]) == (2.5, -2, 0)
    assert limit == pytest.approx(np.percentile(np.abs(heat), 99.5))


@pytest.mark.parametrize(
    ("attribution", "expected"),
    [
        (np.zeros((40, 40, 1), np.float32), 1.0),
        (np.eye(1600, 1, dtype=np.float32).reshape(40, 40, 1) * 3, 3.0),  # one pixel in 1,600: the percentile is zero
        (np.full((4, 4, 1), -7, np.float32), 7.0),
    ],
    ids=["zero", "one pixel", "negative"],
)
def test_the_limit_of_the_colours_is_positive(attribution, expected):
    assert signed_heat(attribution)[1] == pytest.approx(expected)


def test_green_adds_and_red_takes_away():
    attribution = np.zeros((16, 16, 3), np.float32)
    attribution[:8, :8], attribution[8:, 8:] = 0.01, -0.01
    heat = attribution_tile(attribution)
    assert heat[0, 0, 1] > heat[0, 0, 0] + 0.2, "green where the attribution is positive"
    assert heat[-1, -1, 0] > heat[-1, -1, 1] + 0.2 and heat[8, 8, 0] > heat[8, 8, 1] + 0.2, "red where it is negative"
    assert (heat[0, -1] >= 0.995).all(), "white where it is zero"
    assert [tuple(np.rint(np.array(RED_GREEN(x)[:3]) * 255)) for x in (0.0, 1.0)] == [(192, 57, 27), (0, 121, 90)]


def test_the_attribution_figure_uses_the_same_convention():
    heat_axes = attribution_figure(IMAGE, ATTRIBUTION, title="Row 1", units="probability").axes[1]
    (shown,) = heat_axes.images
    heat, limit = signed_heat(ATTRIBUTION)
    np.testing.assert_array_equal(shown.get_array(), heat)
    assert shown.get_clim() == (-limit, limit) and shown.get_cmap() is RED_GREEN


@pytest.mark.parametrize("scale", [0, float(SMALLEST), 1e-30, 1e30])
def test_attributions_of_any_size_are_drawn(scale):
    attribution = np.sign(ATTRIBUTION) * np.float32(scale)
    assert np.isfinite(attribution_tile(attribution)).all()
    render(attribution_figure(IMAGE, attribution, title="", units="logit"))


@pytest.mark.parametrize("name", ["Ankle boot", "Great white shark, Carcharodon\ncarcharias", "W" * 30, "mmmmm\n" * 9])
@pytest.mark.parametrize("scale", [1e-30, 3e-3, 1.4e-2, 0.75, 3.3, 1e30])
def test_all_that_is_written_on_a_row_is_within_its_figure_and_off_its_pictures(scale, name):
    attribution, peak = ATTRIBUTION * np.float32(1e3 * scale), MAP * np.float32(scale)
    name = short_name(name, NAME_LENGTH)
    caption = f"Row 12345: {name}, predicted {name} (100.0%), explained {name}\ngap +0.049, error 0.199, NOT CONVERGED"
    for figure in (
        attribution_figure(IMAGE, attribution, title=caption, units="probability"),
        map_figure(IMAGE, peak, title=caption.splitlines()[0]),
        row_figure(IMAGE, pictures_of(attribution, peak), title=caption, units="probability"),
    ):
        render(figure)
        written = [*figure.texts, figure._suptitle]
        for ax in figure.axes:
            low, high = ax.get_ylim()
            written += [ax.title, ax.yaxis.label, ax.yaxis.offsetText]
            written += [label for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
        within, renderer = figure.bbox, figure.canvas.get_renderer()
        extents = [text.get_window_extent(renderer) for text in written if text is not None and text.get_text()]
        assert len(extents) > 6
        pictures = [ax.get_window_extent(renderer) for ax in figure.axes if ax.images]
        for extent in extents:
            assert within.x0 <= extent.x0 and extent.x1 <= within.x1, extent
            assert within.y0 <= extent.y0 and extent.y1 <= within.y1, extent
            assert not any(extent.overlaps(picture) for picture in pictures), extent


# Grad-CAM maps


def test_a_scaled_map_is_divided_by_the_maximum_and_enlarges_bilinearly():
    heat = scaled_map(MAP * 7, 16, 12)
    assert heat.shape == (16, 12) and heat.dtype == np.float32
    np.testing.assert_allclose(scaled_map(MAP * 7, 4, 4), MAP / MAP.max(), atol=1e-6)
    assert heat.min() >= 0 and heat.max() <= 1
    ramp = np.tile(np.arange(4, dtype=np.float32), (4, 1))
    np.testing.assert_allclose(
        scaled_map(ramp, 8, 8)[0], np.array([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]) / 3, atol=1e-6
    )
    assert not scaled_map(EMPTY, 16, 16).any()


def test_the_overlay_is_six_tenths_image_and_four_tenths_heat():
    heat = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    mixed = overlay(IMAGE, heat)
    expected = 0.6 * (IMAGE / 255) + 0.4 * mpl.colormaps["jet"](heat)[..., :3]
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    assert (figures.IMAGE_SHARE, figures.HEAT_SHARE) == (0.6, 0.4)
    grey = overlay(GREY, heat)
    np.testing.assert_allclose(grey, overlay(np.repeat(GREY, 3, axis=2), heat))


def test_tiles_show_image_heat_and_overlay():
    np.testing.assert_array_equal(image_tile(IMAGE) * 255, IMAGE)
    heat = scaled_map(MAP, 16, 16)
    np.testing.assert_array_equal(heat_tile(IMAGE, MAP), mpl.colormaps["jet"](heat)[..., :3])
    np.testing.assert_array_equal(overlay_tile(IMAGE, MAP), overlay(IMAGE, heat))
    assert heat_tile(IMAGE, EMPTY) is None and overlay_tile(IMAGE, EMPTY) is None


def test_an_empty_map_is_labelled_so():
    titles = [ax.get_title() for ax in map_figure(IMAGE, EMPTY, title="").axes[:3]]
    assert titles == ["Image", "Grad-CAM: empty map", "No overlay: empty map"]
    titles = [ax.get_title() for ax in map_figure(IMAGE, MAP, title="").axes[:3]]
    assert titles == ["Image", "Grad-CAM", "Overlay 0.6 + 0.4"]


@pytest.mark.parametrize("grad_cam", [MAP, EMPTY, EMPTY + SMALLEST, MAP * 1e30], ids=["map", "empty", "tiny", "huge"])
@pytest.mark.parametrize("image", [IMAGE, GREY], ids=["colour", "grey"])
def test_every_map_is_drawn_without_a_warning(image, grad_cam):
    with np.errstate(divide="raise", invalid="raise"):
        pixels = render(map_figure(image, grad_cam, title="Row 1"))
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8


# Sheets of one row after the other


@pytest.mark.parametrize("dpi", [60, 110])
def test_a_sheet_shows_of_each_row_what_a_figure_of_its_own_would(dpi):
    signed, warm = (Sheet(method, IMAGE.shape, "logit") for method in (INTEGRATED_GRADIENTS, GRAD_CAM))
    for image, scale, grad_cam, title in (
        (IMAGE, 1e-3, MAP, "Row 1: a long caption, predicted to be longer\ngap +0.049"),
        (GREY, 40.0, EMPTY, "Row 2"),
        (IMAGE[::-1], 0.0, MAP * 1e9, ""),
        (IMAGE, 3e7, EMPTY + SMALLEST, "Row 4"),
    ):
        attribution = ATTRIBUTION * np.float32(scale)
        signed.show(image, attribution, title)
        warm.show(image, grad_cam, title)
        alone = attribution_figure(image, attribution, title=title, units="logit")
        np.testing.assert_array_equal(signed.render(dpi), render(alone, dpi))
        np.testing.assert_array_equal(warm.render(dpi), render(map_figure(image, grad_cam, title=title), dpi))


def test_a_sheet_is_drawn_at_any_resolution_and_whole_by_others():
    sheet = Sheet(GRAD_CAM, IMAGE.shape, "logit")
    sheet.show(IMAGE, MAP, "Row 1")
    shown = sheet.render(50)
    np.testing.assert_array_equal(render(sheet.figure, 100), sheet.render(100))
    np.testing.assert_array_equal(sheet.render(50), shown)


# Names and sizes


@pytest.mark.parametrize("name", NASTY, ids=[repr(name[:12]) for name in NASTY])
def test_every_figure_shows_every_name_as_it_is(name):
    """In one short line where it is one of many, and never as mathematics."""
    images, short = np.stack([IMAGE, IMAGE]), short_name(name)
    attributions, maps, tiles = np.stack([ATTRIBUTION] * 2), np.stack([MAP, EMPTY]), [image_tile(IMAGE)]
    title, caption = f"Row 1: {name}\ngap", f"row 1\n{short}"
    for figure, names in (
        (attribution_figure(IMAGE, ATTRIBUTION, title=title, units="probability"), [title]),
        (map_figure(IMAGE, MAP, title=name), [name]),
        (row_figure(IMAGE, pictures_of(ATTRIBUTION, MAP), title=name, units="logit"), [name]),
        (grid_figure(images, [name, "other"], title=name), [short, "other", name]),
        (summary_figure(images, pictures_of(attributions, maps), [name, "other"], title=name), [short, "other", name]),
        (confusion_figure(np.eye(2, dtype=int), [name, "other"]), [short, "other", short, "other"]),
        (class_figure([name, "other"], [0.5, 1.0], 0.75), [short_name(name, 28), "other"]),
        (parameters_figure([name, "other"], [10, 0]), [short_name(name, 28), "other"]),
        (text_figure(f"no {name}"), [short_name(f"no {name}", 44)]),
        (rows_sheet([(caption, tiles)], ["image"]), [caption, "image"]),
    ):
        render(figure)
        assert literal_texts(figure) == sorted(text for text in names if text.strip())


def literal_texts(figure):
    """What is written as it is: numbers and our own words may be mathematics."""
    texts = [text for text in figure.findobj(Text) if not text.get_parse_math()]
    return sorted(text.get_text() for text in texts if text.get_visible() and text.get_text().strip())


def test_a_confusion_of_a_hundred_classes_with_nasty_names():
    names = [f"{NASTY[k % len(NASTY)]}{k}" for k in range(100)]
    matrix = RNG.integers(0, 100, (100, 100))
    matrix[7] = 0  # a class of which the test split has no image
    figure = confusion_figure(matrix, names)
    pixels = render(figure)
    assert max(pixels.shape) < 1500
    (shown,) = figure.axes[0].images
    shares = np.asarray(shown.get_array())
    np.testing.assert_allclose(np.delete(shares.sum(1), 7), 1)
    assert not shares[7].any()
    labels = figure.axes[0].get_yticklabels()
    assert 20 <= len(labels) <= 40
    assert all(len(label.get_text()) <= 18 and "\n" not in label.get_text() for label in labels)
    assert labels[1].get_text().endswith("3"), "a tick carries the name of its own class"


def test_a_confusion_of_few_classes_shows_true_in_rows_and_its_counts():
    figure = confusion_figure(np.array([[5, 1], [0, 2]]), ["cat", "dog"])
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    counts = {text.get_position(): text.get_text() for text in ax.texts}  # positions are (x, y)
    assert counts == {(0, 0): "5", (1, 0): "1", (1, 1): "2"}
    render(figure)


@pytest.mark.parametrize("n", [1, 4, 5, 25])
def test_a_grid_holds_every_image(n):
    figure = grid_figure(np.stack([IMAGE] * n), [f"name {k}" for k in range(n)], title="Training images")
    (ax,) = figure.axes
    assert len(ax.images) == n
    corners = {(int(left), int(top / 1.2)) for left, _, _, top in (picture.get_extent() for picture in ax.images)}
    assert corners == {(k % 5, k // 5) for k in range(n)}
    assert [text.get_text() for text in ax.texts] == [f"name {k}" for k in range(n)]
    render(figure)


@pytest.mark.parametrize("epochs", [1, 12])
def test_curves(epochs):
    history = {name: list(RNG.random(epochs)) for name in ("accuracy", "loss", "val_accuracy", "val_loss")}
    figure = curves_figure(history)
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[1].lines}
    assert lines == {"training": history["loss"], "validation": history["val_loss"]}
    render(figure)


@pytest.mark.parametrize("n", [1, 500])
def test_reliability(n):
    confidences = np.full(n, 0.75)
    correct = np.arange(n) % 2 == 0
    figure = reliability_figure(confidences, correct)
    (points,) = figure.axes[0].collections
    np.testing.assert_allclose(points.get_offsets(), [[0.75, correct.mean()]])
    render(figure)


def test_render_gives_rgb_of_the_asked_size():
    figure = grid_figure(np.stack([IMAGE]), ["name"], title="title", columns=1)
    width, height = figure.get_size_inches()
    assert render(figure, dpi=50).shape == (int(height * 50), int(width * 50), 3)
    assert render(figure, dpi=50).dtype == np.uint8


# Figures of the pages


def test_a_sheet_places_each_tile_under_its_heading():
    tiles = [image_tile(IMAGE), attribution_tile(ATTRIBUTION), heat_tile(IMAGE, MAP), overlay_tile(IMAGE, EMPTY)]
    figure = rows_sheet([(f"row {k}", tiles) for k in range(3)], ["a", "b", "c", "d"], across=2, caption=1.5)
    (ax,) = figure.axes
    assert len(ax.images) == 3 * 4
    placed = [picture.get_extent() for picture in ax.images]
    for number, (left, right, bottom, top) in enumerate(placed):
        row, tile = divmod(number, 4)
        assert (int(top), (left + right) / 2) == (row // 2, pytest.approx(row % 2 * 5.65 + 1.5 + tile + 0.5))
        assert 0 < bottom - top <= 1
    np.testing.assert_array_equal(ax.images[0].get_array(), tiles[0])
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("empty\nmap") == 3 and texts.count("a") == 2 and texts.count("row 2") == 1
    render(figure)


def test_a_sheet_of_one_row_and_tiles_of_any_shape():
    wide = np.zeros((8, 40, 1), np.uint8)
    white = attribution_tile(np.zeros((8, 40, 1), np.float32))
    figure = rows_sheet([("row 1", [image_tile(wide), white])], ["a", "b"])
    render(figure)
    placed = figure.axes[0].images
    for picture, tile in zip(placed, (image_tile(wide), white), strict=True):
        left, right, bottom, top = picture.get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(8 / 40)
        np.testing.assert_array_equal(picture.get_array(), tile)
    assert heat_tile(wide, EMPTY) is None


def test_the_failed_stage_is_told_from_the_others():
    figure = stages_figure({"ingest": 3.0, "explain": 75.0}, failed="explain")
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ingest", "explain ✗"]
    assert [text.get_text() for text in ax.texts] == ["3.0 s", "1 min 15 s, failed"]
    assert len({bar.get_facecolor() for bar in ax.patches}) == 2
    render(figure)
    render(stages_figure({}))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (3599.6, "1 h 0 min"), (86399, "23 h 59 min")]
)
def test_durations_as_a_person_says_them(seconds, told):
    assert duration(seconds) == told


def test_the_weakest_classes_come_first_and_the_rest_is_counted():
    figure = class_figure([f"c{k}" for k in range(100)], list(np.linspace(1, 0, 100)), 0.5)
    (ax,) = figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:2] == ["c99", "c98"] and len(labels) == 30
    assert "the worst 30 of 100 classes" in ax.get_xlabel()
    render(figure)


def test_what_is_beyond_the_line_of_an_audit_names_its_row():
    figure = audit_figure({"same rule": [1e-9, 2.0], "map": [np.inf, np.nan], "gap": [0.0, 1.0]}, [12, 40])
    (ax,) = figure.axes
    assert sorted(text.get_text() for text in ax.texts) == ["row 12", "row 40", "row 40"]
    render(figure)
