"""The page of a night: what is in it, how large it is, and what hostile names do to it, which is nothing."""

import base64
import io
import json
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import IMPORT_TIMES, libraries_loaded, nightlens, printed_by_python, python
from environment import clean_environment
from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, example_arrays
from places import REPOSITORY
from report_elements import Elements, assert_asks_nothing, page_data, words
from reported_night import (
    CONFIGURATION,
    CONTRACT,
    HISTORY,
    HOSTILE,
    N_ROWS,
    NIGHT,
    hostile_contract,
    seal_example,
    write,
)
from storage import AttributionStore, StoreCorrupt, open_store, part_path, seal_store, write_part
from storage.file.disk import durable
from storage.file.methods import GRAD_CAM, INTEGRATED_GRADIENTS, METHODS
from tasks.night import class_means as averaging
from tasks.night.class_means import class_means
from tasks.night.contract_facts import model_facts
from tasks.night.evaluation import measure
from tasks.numerics.quality import expected_calibration_error
from tasks.report import read_history, report_page, write_report
from tasks.report.charts import calibration_chart, curve_chart, histogram, log_histogram
from tasks.report.confusion import confusion_of
from tasks.report.mean_pictures import draw_mean
from tasks.report.picture_strips import Heat, draw_heat, draw_image, draw_rows
from tasks.report.ranking import rank_rows


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_example(tmp_path_factory.mktemp("night"))


@pytest.fixture
def store(path: Path):
    with open_store(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def html(path: Path) -> str:
    return write(path).read_text(encoding="utf-8")


# What is in it.


def test_the_numbers_of_every_row_are_in_the_page(html: str, store: AttributionStore) -> None:
    data, table = page_data(html), store.table()
    assert (data["start"], data["n_rows"], data["classes"]) == (0, N_ROWS, CLASS_NAMES)
    columns = {column["name"]: column for column in data["columns"]}
    assert {"label", "prediction", "confidence", "gap", "quadrature_error", "converged", "cam_max"} <= set(columns)
    for name, column in columns.items():
        values = np.frombuffer(base64.b64decode(column["numbers"]), f"<{column['dtype']}")
        np.testing.assert_array_equal(values, table[name].to_numpy(), err_msg=name)


def test_the_page_tells_the_night(html: str) -> None:
    text = " ".join(Elements(html).text.split())
    for told in (
        "Night of 23 November 2026, 02:00 UTC",
        "sealed with warnings",
        "7 of 160 rows did not converge",
        "accuracy fell",
        "digits 1.0.0, split test",
        "seed-cnn",
        "open_store(",
        "Accuracy by epoch",
        "training from 0.5 to 0.8",
        "30.5",
        "Calibration",
        "Completeness gap",
    ):
        assert told in text, told


@pytest.mark.parametrize(
    ("night", "level", "told"),
    [
        ({"verdict": "sealed"}, "good", "sealed"),
        ({"verdict": "sealed with warnings: audit skipped"}, "warn", "audit skipped"),
        ({"verdict": "sealed with warnings", "warnings": ["accuracy <fell>"]}, "warn", "accuracy &lt;fell&gt;"),
        ({"verdict": "sealed", "warnings": [{"kind": "accuracy", "message": "it fell"}]}, "warn", "<li>it fell</li>"),
        ({"verdict": "sealed", "accuracy_change": -0.025, "compared_with": "n1"}, "good", "−2.5 points since n1"),
        ({"verdict": "failed: the audit"}, "bad", "failed"),
        ({}, "bad", "There is no night.json"),
    ],
    ids=[
        "sealed",
        "with warnings in the line",
        "with a list of warnings",
        "with kinds of warnings",
        "compared",
        "failed",
        "never finished",
    ],
)
def test_the_verdict_is_drawn_as_what_it_is(path: Path, tmp_path: Path, night: dict, level: str, told: str) -> None:
    html = write(path, night=night, out=tmp_path / "page.html").read_text()
    assert f'<div class="verdict {level}">' in html
    assert told in html


def test_without_a_history_the_page_says_so(path: Path, tmp_path: Path) -> None:
    with open_store(path) as store:
        evaluation = measure(store.probabilities, store.labels, tuple(store.class_names), seed=0)
        html = write_report(store, NIGHT, evaluation, {}, tmp_path / "page.html").read_text()
    assert "There are no training curves" in html
    assert "Accuracy by epoch" not in html


def test_a_store_of_many_classes_has_the_most_frequent_mistakes_instead_of_a_matrix() -> None:
    names = [f"class {k}" for k in range(100)]
    labels, predictions = np.array([1, 1, 1, 2, 3, 3]), np.array([1, 2, 2, 2, 4, 3])
    found = confusion_of(labels, predictions, names)
    assert found.lines == ()
    assert [(m.label, m.prediction, m.count) for m in found.mistakes] == [(1, 2, 2), (3, 4, 1)]
    assert found.mistakes[0].share == pytest.approx(2 / 3)


def test_the_matrix_counts_rows_and_shades_their_share() -> None:
    found = confusion_of(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ["a", "b", "c"])
    assert [[cell.count for cell in line] for line in found.lines] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert [[cell.shade for cell in line] for line in found.lines] == [[7, 3, 0], [0, 10, 0], [0, 0, 0]]


# How the model is fed and read.


def test_the_model_section_tells_the_contract(tmp_path: Path) -> None:
    text = words(write(seal_example(tmp_path, contract=CONTRACT)).read_text())
    for told in (
        "The model is fed images as 0 to 255 (auto).",
        "raw (chosen) 0.9512 −0.210 512",
        "unit 0.0820 −2.310 64 the same outputs as x",
        "caffe – – –",
        "input images as 0 to 255",
        "why this input auto: it explains the labels best",
        "outputs probabilities that sum to 1",
        "order of classes names sorted as strings",
        "Grad-CAM layer backbone/c1",
        "why this layer the last map of all paths",
        "same images twice largest difference 0 yes",
        "another batch largest difference 3 NO",
        "Warning: signed nearly as well",
    ):
        assert told in text, told
    assert "they need not sum to 1" not in text


@pytest.mark.parametrize("earlier", [3, None], ids=["schema 3", "empty"])
def test_a_store_without_a_contract_has_no_such_section(path: Path, tmp_path: Path, earlier: int | None) -> None:
    shutil.copy(REPOSITORY / f"tests/data/schema-{earlier}.h5" if earlier else path, tmp_path / "attributions.h5")
    text = words(write(tmp_path / "attributions.h5").read_text())
    assert "How it is fed and read" not in text and "The model is fed" not in text
    assert "What is taken for what" in text


def test_independent_probabilities_are_not_said_to_sum_to_one(tmp_path: Path) -> None:
    contract = {"output": {"kind": "independent", "text": "independent probabilities, a sigmoid a class"}}
    text = words(write(seal_example(tmp_path, contract=contract)).read_text())
    assert text.count("they need not sum to 1") >= 2, "beside the outputs, and under the calibration"
    assert "for the loss, probabilities are divided by their sum" in text


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({}, "computed on CPU in float32 computed with"),
        ({"device": "NVIDIA H200", "precision": "tf32"}, "computed on NVIDIA H200 in tf32 computed with"),
        (
            {"precision": "bfloat16", "configuration": {"explanation": {"precision": "auto"}}},
            "computed on CPU in bfloat16, by auto computed with",
        ),
    ],
    ids=["CPU", "GPU", "auto"],
)
def test_it_says_what_computed_the_night_and_in_which_precision(tmp_path: Path, about: dict, said: str) -> None:
    assert said in words(write(seal_example(tmp_path, **about)).read_text())


@pytest.mark.parametrize("place", ["summary", "input", "feeds", "output", "classes", "grad_cam", "checks", "warnings"])
@pytest.mark.parametrize("value", [None, 7, "text", [], [None, 3], {}, {"name": []}], ids=repr)
def test_whatever_a_contract_holds_the_page_is_written(place: str, value: object) -> None:
    contract = CONTRACT | {place: value}
    if place == "feeds":
        contract = CONTRACT | {"input": {**CONTRACT["input"], "feeds": value}}
    assert model_facts(contract) is not None


# Without Grad-CAM.


def test_a_night_without_grad_cam_has_no_map_and_says_so(tmp_path: Path) -> None:
    html = write(seal_example(tmp_path, grad_cam=False)).read_text()
    data, elements = page_data(html), Elements(html)
    assert [method["name"] for method in data["methods"]] == ["integrated_gradients"]
    assert "cam_max" not in {column["name"] for column in data["columns"]}
    assert {tuple(entry["true"]) for entry in data["pictures"]} == {("integrated_gradients",)}
    text = " ".join(elements.text.split())
    assert "each by Integrated Gradients alone: this night has no Grad-CAM" in text
    assert "Grad-CAM none" in text and "This night has no Grad-CAM: its model has no map" in text
    assert "empty map" not in text and "Grad-CAM map" not in text
    assert not [a for tag, a in elements.found if tag == "select" and a.get("id") == "map"]
    assert not [a for tag, a in elements.found if tag == "img" and "Grad-CAM" in (a.get("alt") or "")]


# Self-contained, and safe.


def test_nothing_in_the_page_leads_to_a_network(html: str) -> None:
    assert_asks_nothing(html)


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    store = seal_example(tmp_path, HOSTILE, dataset_name=HOSTILE[0], model_name=HOSTILE[1], contract=hostile_contract())
    html = write(store, night={"verdict": f"sealed with warnings: {HOSTILE[0]}"}).read_text()
    assert page_data(html)["classes"] == HOSTILE
    assert html.count("<script") == html.count("</script>") == 2
    elements = Elements(html)
    assert not [attributes for tag, attributes in elements.found if "onerror" in attributes]
    assert HOSTILE[0] in elements.text
    assert "49" not in elements.text.split("{{ 7 * 7 }}")[0][-40:]


# How it is written.


def test_writing_twice_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    first, second = (write(path, out=tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_a_failure_leaves_the_old_page_and_nothing_else(path: Path, tmp_path: Path, monkeypatch) -> None:
    page = write(path, out=tmp_path / "report.html")
    before = page.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, night={"verdict": "sealed"}, out=page)
    assert page.read_bytes() == before
    assert list(tmp_path.iterdir()) == [page]


def noise(random: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Noise, which nothing compresses: no real image is larger."""
    return random.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.slow
def test_ten_thousand_rows_stay_under_5_megabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n, part_rows, random = 10_000, 1000, np.random.default_rng(0)
    parts = []
    for start in range(0, n, part_rows):
        arrays = example_arrays(start, start + part_rows, side=32)
        arrays["image"] = noise(random, part_rows, 32)
        parts.append(part_path(tmp_path, start, start + part_rows))
        write_part(parts[-1], start, start + part_rows, arrays, digest=DIGEST, part_rows=part_rows)
    store = tmp_path / "attributions.h5"
    attributes = ATTRIBUTES | {"configuration": CONFIGURATION}
    seal_store(store, parts, class_names=CLASS_NAMES, attributes=attributes)
    began = time.monotonic()
    page = write(store)
    data = page_data(page.read_text())
    with capsys.disabled():
        n_pictures, megabytes = len(data["pictures"]), page.stat().st_size / 1e6
        print(f"\n{n:,} rows: {megabytes:.2f} MB, {n_pictures} with pictures, {time.monotonic() - began:.1f} s")
    assert page.stat().st_size < 5_000_000
    assert data["n_rows"] == n
    assert n_pictures >= 300
    assert f"{n_pictures} of them have pictures" in page.read_text()


# Which rows have pictures.


def test_the_most_telling_rows_come_first_and_classes_take_turns(store: AttributionStore) -> None:
    table = store.table()
    ranked = list(rank_rows(table, [98, 5000, 91], seed=1))
    assert sorted(row for row, _ in ranked) == list(range(N_ROWS))
    assert ranked[:2] == [(98, "spotlight"), (91, "spotlight")]
    reasons = [why for _, why in ranked]
    assert reasons[2:11].count("most confident right") == 3
    assert reasons[2:11].count("most confident wrong") == 3
    rest = table.drop([98, 91])
    for label in range(3):
        own = rest[rest["label"] == label]
        best = own[own["correct"]]["confidence"].idxmax()
        assert (best, "most confident right") in ranked[:11]
        worst = own[~own["correct"]]["confidence"].idxmax()
        assert (worst, "most confident wrong") in ranked[:11]
    assert reasons[-1] == "random sample"
    assert ranked == list(rank_rows(table, [98, 5000, 91], seed=1))
    assert ranked != list(rank_rows(table, [98, 5000, 91], seed=2))


def test_pictures_stop_at_the_budget(store: AttributionStore) -> None:
    ranked = [(row, "random sample") for row in range(N_ROWS)]
    all_of_them = draw_rows(store, ranked, 10**9)
    assert [entry.row for entry in all_of_them] == list(range(N_ROWS))
    budget = sum(entry.n_bytes for entry in all_of_them[:70])
    assert draw_rows(store, ranked, budget) == all_of_them[:70]
    assert len(draw_rows(store, ranked, budget - 1)) == 69


def test_the_misclassified_have_the_predicted_class_explained_too(store: AttributionStore) -> None:
    row = int(store.rows(correct=False)[0])
    wrong, right = draw_rows(store, [(row, "spotlight"), (int(store.rows(correct=True)[0]), "spotlight")], 10**9)
    assert right.predicted == {}
    assert wrong.predicted == {
        method.group: draw_heat(method, store.view(method, "predicted")[row], (24, 24)) for method in METHODS
    }
    assert wrong.predicted != wrong.true


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_an_image_keeps_every_pixel_and_a_large_one_is_reduced() -> None:
    image = noise(np.random.default_rng(3), 1, 28)[0]
    np.testing.assert_array_equal(pixels(draw_image(image)), image)
    np.testing.assert_array_equal(pixels(draw_image(image[..., :1])), image[..., :1].repeat(3, axis=2))
    assert pixels(draw_image(noise(np.random.default_rng(3), 1, 200)[0, :100])).shape == (32, 64, 3)


def test_signs_have_the_colours_of_the_figures_and_an_empty_map_none() -> None:
    attribution = np.zeros((4, 4, 3), np.float32)
    attribution[0, 0], attribution[3, 3] = 0.5, -0.5
    drawn = draw_heat(INTEGRATED_GRADIENTS, attribution, (4, 4))
    picture = pixels(drawn.source).astype(int)
    assert drawn.end == pytest.approx(1.5)
    assert picture[0, 0, 1] > picture[0, 0, 0] and picture[3, 3, 0] > picture[3, 3, 1]
    assert picture[1, 2].min() >= 253
    assert draw_heat(GRAD_CAM, np.zeros((2, 2), np.float32), (4, 4)) == Heat("", 0.0)


def test_means_are_those_of_the_reader(store: AttributionStore) -> None:
    for label, raw in enumerate(class_means(store)):
        mean = draw_mean(raw, CLASS_NAMES[raw.label])
        assert (mean.name, mean.n_rows) == (CLASS_NAMES[label], int((store.labels == label).sum()))
        expected = {
            "integrated_gradients": draw_heat(INTEGRATED_GRADIENTS, store.mean_attribution(label), raw.image.shape),
            "grad_cam": draw_heat(GRAD_CAM, store.mean_map(label), raw.image.shape),
        }
        for group, heat in expected.items():
            assert mean.heats[group].source == heat.source
            assert mean.heats[group].end == pytest.approx(heat.end, rel=1e-2)


def test_of_many_classes_the_first_have_means(store: AttributionStore) -> None:
    assert [mean.label for mean in class_means(store, 2)] == [0, 1]


def test_of_many_large_means_as_many_are_made_as_fit(store: AttributionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2 * 8 * int(np.prod(store.image_shape))
    for allowed, n in ((size - 1, 1), (2 * size, 2), (100 * size, 3)):
        monkeypatch.setattr(averaging, "MOST_BYTES", allowed)
        assert [mean.label for mean in class_means(store)] == list(range(n))


def test_means_that_are_there_are_not_made_again(
    store: AttributionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = measure(store.probabilities, store.labels, tuple(store.class_names), seed=0)
    means = class_means(store)
    own = write_report(store, NIGHT, evaluation, {}, tmp_path / "own.html").read_text()
    monkeypatch.setattr(report_page, "class_means", lambda *_: pytest.fail("read again"))
    assert write_report(store, NIGHT, evaluation, {}, tmp_path / "given.html", means).read_text() == own


# The charts.


def counts_of(chart) -> int:
    return sum(int(bar.text.split(": ")[1].split()[0].replace(",", "")) for bar in chart.bars)


@pytest.mark.parametrize(
    "values", [np.array([0.0, 0.1, 0.3]), np.array([0.2]), np.zeros(5)], ids=["some", "one", "same"]
)
def test_a_histogram_counts_every_row(values: np.ndarray) -> None:
    chart = histogram(values, title="t", x_label="x", summary="s", limits=(-0.05, 0.05))
    assert counts_of(chart) == len(values)
    assert all(bar.x >= 54 and bar.x + bar.width <= 387 and bar.height > 0 for bar in chart.bars)


def test_bars_beyond_a_tolerance_are_marked() -> None:
    chart = histogram(np.array([-0.3, 0.0, 0.01, 0.3]), title="t", x_label="x", summary="s", limits=(-0.05, 0.05))
    assert [(bar.text, bar.beyond) for bar in chart.bars] == [
        ("-0.3 to -0.285: 1 row", True),
        ("0 to 0.015: 2 rows", False),
        ("0.285 to 0.3: 1 row", True),
    ]
    one_sided = histogram(np.array([0.1, 0.5]), title="t", x_label="x", summary="s", limits=(0.2,), zero=True)
    assert [bar.beyond for bar in one_sided.bars] == [False, True]


@pytest.mark.parametrize("values", [np.array([8, 16, 512]), np.array([16, 16]), np.array([20])], ids=str)
def test_a_logarithmic_histogram_counts_every_row(values: np.ndarray) -> None:
    chart = log_histogram(values, title="t", x_label="x", summary="s")
    assert counts_of(chart) == len(values)


def test_curves_rise_where_the_values_do() -> None:
    chart = curve_chart(HISTORY, "accuracy")
    training = [tuple(map(float, point.split(","))) for point in chart.lines[0].points.split()]
    assert training[0][0] < training[1][0] and training[0][1] > training[1][1]
    assert [line.name for line in chart.lines] == ["training", "validation"]
    assert curve_chart({"loss": [0.5]}, "loss").lines[0].points.count(",") == 1


def test_calibration_dots_lie_where_accuracy_meets_confidence() -> None:
    confidences, correct = np.array([0.95, 0.95, 0.31]), np.array([True, False, False])
    error = expected_calibration_error(np.column_stack([confidences, 1 - confidences]), np.where(correct, 0, 1))
    chart = calibration_chart(confidences, correct, error)
    assert sorted(dot.text for dot in chart.dots) == [
        "confidence 0.31: accuracy 0.00, 1 rows",
        "confidence 0.95: accuracy 0.50, 2 rows",
    ]


# From a night's files alone.


def test_the_command_writes_the_page_of_the_files_in_the_folder(tmp_path: Path) -> None:
    model = tmp_path / "models" / "seed-cnn.keras"
    store = seal_example(tmp_path, configuration=CONFIGURATION | {"resolved": {"model_path": str(model)}})
    model.parent.mkdir()
    model.with_suffix(".json").write_text(json.dumps({"sha256": "c0de", "history": HISTORY}))
    (tmp_path / "night.json").write_text(json.dumps(NIGHT))
    done = nightlens("report", tmp_path, options=IMPORT_TIMES)
    assert done.returncode == 0, done.stderr
    assert not libraries_loaded(done) & {"tensorflow", "keras", "prefect"}
    assert done.stdout.startswith(f"{tmp_path / 'report.html'}: {N_ROWS} rows, ")
    assert (tmp_path / "report.html").read_bytes() == write(store, out=tmp_path / "again.html").read_bytes()


def test_a_broken_record_is_one_clear_line(tmp_path: Path) -> None:
    seal_example(tmp_path)
    (tmp_path / "night.json").write_text('{"verdict": ')
    done = nightlens("report", tmp_path)
    assert done.returncode == 2
    assert "night.json cannot be read" in done.stderr and "Traceback" not in done.stderr


def test_records_of_others_are_not_taken_for_the_night_s(store: AttributionStore, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    record = tmp_path / "models" / "seed-cnn.json"
    for text in ("not JSON", "[]", json.dumps({"sha256": "another", "history": HISTORY})):
        record.write_text(text)
        assert read_history(store, tmp_path) == {}
    record.write_text(json.dumps({"sha256": "c0de", "history": HISTORY}))
    assert read_history(store, tmp_path) == HISTORY
    with open_store(seal_example(tmp_path)) as own:
        (tmp_path / "night.json").write_text("[1]")
        with pytest.raises(StoreCorrupt, match=r"night.json is no record of a night"):
            own.night()
        (tmp_path / "night.json").write_text('{"n_rows": 160, "accuracy": 1}')
        assert "sealed, without a verdict" in write(tmp_path / "attributions.h5", night=own.night()).read_text()


def test_an_installed_package_has_its_templates(path: Path, tmp_path: Path) -> None:
    copy, left_out = tmp_path / "source", (".*", "__pycache__", "nightlens-data", "build", "*.egg-info")
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(*left_out))
    build = "from setuptools import build_meta; build_meta.build_wheel('wheel')"
    printed_by_python(build, cwd=copy)
    (wheel,) = (copy / "wheel").glob("*.whl")
    installed, page = tmp_path / "installed", tmp_path / "page.html"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = "import tasks, sys; print(tasks.__file__, file=sys.stderr); from flows.cli import main; main()"
    asked = ("-P", "-c", code, "report", path, "--out", page)
    done = python(*asked, cwd=tmp_path, environment=clean_environment(path=[installed]))
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stderr
    assert page.read_bytes() == write(path, night={}, history={}, out=tmp_path / "again.html").read_bytes()
