"""A plan's digest changes with all that decides a number in a part, and with nothing else; its ranges hold every row once."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tasks.config import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig, ModelConfig
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord, read_record
from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.quadrature import Adaptive, Fixed
from tasks.parts import plan as planning
from tasks.parts.compute import compute_part
from tasks.parts.plan import Plan, check_settings, default_part_rows, select_rows
from tensor_cores import H200, pretend_gpus

MakePlan = Callable[..., Plan]


pytestmark = pytest.mark.usefixtures("no_run_logger")


@pytest.fixture
def plan(make_small_plan: MakePlan, tmp_path: Path) -> Plan:
    return make_small_plan(tmp_path)


def explaining(**changed: object) -> dict[str, object]:
    return {"explanation": ExplanationConfig.model_validate({"part_rows": 8, "batch_size": 64} | changed)}


def integrating(**changed: object) -> dict[str, object]:
    return {"integrated_gradients": IntegratedGradientsConfig.model_validate(changed)}


@pytest.mark.parametrize(
    "changed",
    [
        explaining(score="logit"),
        explaining(part_rows=16),
        explaining(precision="bfloat16"),
        integrating(rule="gausslegendre"),
        integrating(rule="gausslegendre", engine="alibi"),
        integrating(exponent=2),
        integrating(n_start=8),
        integrating(n_max=256),
        integrating(refine_fraction=1),
        integrating(gap_tolerance=0.04),
        integrating(error_tolerance=0.1),
        integrating(baseline="white"),
        integrating(keep_mantissa_bits=12),
        {"grad_cam": GradCamConfig(layer="edges")},
        {"grad_cam": GradCamConfig(engine="tf-explain")},
    ],
    ids=lambda changed: ",".join(str(value.model_dump(exclude_defaults=True)) for value in changed.values()),
)
def test_digest_changes_with_what_decides_the_numbers(
    make_small_plan: MakePlan, plan: Plan, tmp_path: Path, changed: dict
) -> None:
    other = make_small_plan(tmp_path, **changed)
    assert other.digest != plan.digest
    assert other.parts_folder != plan.parts_folder


def test_digest_changes_with_the_device_and_a_part_is_computed_on_no_other(
    make_small_plan: MakePlan, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        pretend_gpus(patch, H200)
        other = make_small_plan(tmp_path)
    assert (plan.device, other.device) == ("CPU", "NVIDIA H200")
    assert other.digest != plan.digest
    with pytest.raises(
        ValueError, match="expected to compute on NVIDIA H200, .*, got CPU on .*; give the cluster"
    ) as no:
        compute_part(other, 0, 8)
    assert "\n" not in str(no.value) and not other.part(0, 8).exists()


@pytest.mark.parametrize("record", ["dataset", "model"])
def test_digest_changes_with_the_data_and_the_model(
    make_small_plan: MakePlan, plan: Plan, tmp_path: Path, record: str
) -> None:
    other = getattr(plan, record).model_copy(update={"sha256": "f00d"})
    assert make_small_plan(tmp_path, **{record: other}).digest != plan.digest


@pytest.mark.parametrize("name", ["code_digest", "SCHEMA_VERSION"])
def test_digest_changes_with_the_code(
    make_small_plan: MakePlan, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(planning, name, 99 if name == "SCHEMA_VERSION" else lambda: "other code")
    assert make_small_plan(tmp_path).digest != plan.digest


def test_digest_does_not_change_with_what_decides_nothing(
    make_small_plan: MakePlan, plan: Plan, tmp_path: Path
) -> None:
    """The root, which rows of the split, how many in a call, and what the records say beside their fingerprints."""
    others = [
        make_small_plan(tmp_path / "elsewhere"),
        make_small_plan(tmp_path, rows="4:12"),
        make_small_plan(tmp_path, **explaining(batch_size=32)),
        make_small_plan(tmp_path, **explaining(batch_size=None, memory_gb=0.001)),
        make_small_plan(tmp_path, dataset=plan.dataset.model_copy(update={"name": "other", "warnings": ("old",)})),
        make_small_plan(tmp_path, model=plan.model.model_copy(update={"name": "other", "seconds": 9.0})),
    ]
    assert {other.digest for other in others} == {plan.digest}


def test_plan_knows_nothing_of_workers_galleries_and_audits() -> None:
    assert not {"run", "gallery", "audit", "n_workers"} & Plan.model_fields.keys()


@pytest.mark.parametrize(
    ("n_rows", "part_rows"),
    [(1, 32), (360, 32), (1_280, 32), (1_281, 64), (10_000, 256), (60_000, 1024), (10**6, 1024)],
)
def test_default_part_rows(n_rows: int, part_rows: int) -> None:
    assert default_part_rows(n_rows, n_features=32 * 32 * 3) == part_rows


@pytest.mark.parametrize(("side", "part_rows"), [(64, 1024), (224, 64), (512, 16), (4096, 1)])
def test_parts_of_large_images_have_fewer_rows(side: int, part_rows: int) -> None:
    assert default_part_rows(60_000, n_features=side * side * 3) == part_rows


@pytest.mark.parametrize("rows", ["0:20", "3:4", ":", "5:", "350:360", "0:16"])
def test_ranges_hold_every_row_once(make_small_plan: MakePlan, tmp_path: Path, rows: str) -> None:
    plan = make_small_plan(tmp_path, rows=rows)
    held = np.concatenate([np.arange(start, stop) for start, stop in plan.ranges()])
    np.testing.assert_array_equal(held, np.arange(plan.start, plan.stop))
    assert all(0 < stop - start <= plan.part_rows for start, stop in plan.ranges())
    assert all(stop - start == plan.part_rows for start, stop in plan.ranges()[:-1])


def test_parts_are_named_by_digest_and_rows(plan: Plan, tmp_path: Path) -> None:
    assert plan.part(8, 16) == tmp_path / "parts" / plan.digest / "rows-000008-000016.h5"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, (0, 360)),
        (":", (0, 360)),
        ("0:64", (0, 64)),
        ("300:", (300, 360)),
        (":7", (0, 7)),
        ("359:360", (359, 360)),
    ],
    ids=str,
)
def test_rows_are_selected(digits: Dataset, rows: str | None, expected: tuple[int, int]) -> None:
    assert select_rows(digits, rows) == expected


@pytest.mark.parametrize("rows", ["0:361", "360:", "360:361", "5:5", "7:3", "0:0", ":0"])
def test_rows_out_of_range_are_refused(digits: Dataset, rows: str) -> None:
    with pytest.raises(ValueError, match=rf"rows {rows} are not in .* digits; expected A:B with 0 <= A < B <= 360"):
        select_rows(digits, rows)


def test_method_takes_over_every_setting(make_small_plan: MakePlan, tmp_path: Path) -> None:
    method = make_small_plan(
        tmp_path,
        **integrating(exponent=2, n_start=4, n_max=64, refine_fraction=0.5, gap_tolerance=0.01, error_tolerance=0.3),
        **explaining(score="logit", batch_size=16, precision="bfloat16"),
        grad_cam=GradCamConfig(layer="edges", engine="tf-explain"),
    ).settings()
    assert method.rule == Adaptive(exponent=2, n_start=4, n_max=64, refine_fraction=0.5)
    assert (method.tolerances.gap, method.tolerances.error) == (0.01, 0.3)
    assert (method.score, method.batch_size, method.layer) == ("logit", 16, "edges")
    assert (method.ig_engine, method.cam_engine, method.precision) == ("nightlens", "tf-explain", "bfloat16")


def test_method_of_a_fixed_rule(make_small_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_small_plan(tmp_path, **integrating(rule="riemann_left", n_steps=30, engine="alibi"))
    assert plan.settings().rule == Fixed(rule="riemann_left", n_steps=30)
    assert plan.settings().ig_engine == "alibi"


def test_layer_is_resolved(plan: Plan, digits: Dataset, make_small_plan: MakePlan, tmp_path: Path) -> None:
    assert plan.layer == "strokes"
    notebooks = tmp_path / "notebooks.keras"
    build_cnn(digits.shape, digits.n_classes).save(notebooks)
    assert make_small_plan(tmp_path, model=read_record(notebooks)).layer == "Conv2D_Block3_Layer1"


@pytest.mark.parametrize(
    ("layer", "reason"), [("conv", "is not in the model"), ("flat", "has no map, .*, on the way to the output")]
)
def test_a_wrong_layer_is_refused_with_the_right_ones(
    make_small_plan: MakePlan, tmp_path: Path, layer: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=f"'{layer}' {reason}; choose one of edges, strokes, or auto, or none"):
        make_small_plan(tmp_path, grad_cam=GradCamConfig(layer=layer))


def check(
    dataset: Dataset, *, source: str = "auto", layer: str = "auto", rows: str | None = None, **ig: object
) -> None:
    rule = IntegratedGradientsConfig.model_validate(ig)
    check_settings(dataset, ModelConfig(source=source), GradCamConfig(layer=layer), rule, ExplanationConfig(), rows)


def test_what_a_training_would_only_delay_is_refused_before_it(digits: Dataset) -> None:
    check(digits)
    with pytest.raises(ValueError, match="rows 0:999 are not in the test split"):
        check(digits, rows="0:999")
    with pytest.raises(ValueError, match="'Conv9' is not in the model; choose one of .*Conv2D_Block3_Layer2"):
        check(digits, layer="Conv9")
    with pytest.raises(ValueError, match="no model file at theirs.keras"):
        check(digits, source="theirs.keras")
    with pytest.raises(ValueError, match="digits has 1 class; a classifier needs two or more"):
        check(digits.model_copy(update={"class_names": ("0",)}))


def test_a_given_model_is_examined_before_it_is_evaluated(digits: Dataset, small_model: ModelRecord) -> None:
    check(digits, source=str(small_model.path))
    with pytest.raises(ValueError, match="theirs knows 10 classes, the dataset has 11"):
        check(digits.model_copy(update={"class_names": (*digits.class_names, "ten")}), source=str(small_model.path))


def classifier(
    shape: tuple[int | None, ...] = (32, 32, 3), n_inputs: int = 1, n_outputs: int = 1, dtype: str = "float32"
):
    images = [keras.Input(shape, dtype=dtype) for _ in range(n_inputs)]
    x = keras.layers.Conv2D(4, 3, name="conv")(keras.ops.add(*images) if n_inputs == 2 else images[0])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, [keras.layers.Dense(10, activation="softmax")(x) for _ in range(n_outputs)])


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"shape": (28, 28, 3)}, r"the model takes inputs of shape \(28, 28, 3\), the images have \(32, 32, 3\)"),
        ({"shape": (32, 32, 1)}, r"the model takes inputs of shape \(32, 32, 1\), the images have \(32, 32, 3\)"),
        ({"n_inputs": 2}, r"expected a model with one image input, got 2 inputs \(.*\); save a model of one"),
        ({"n_outputs": 2}, r"expected a model with one output, got 2 outputs \(of .*\); save a model of the one"),
        ({"n_inputs": 2, "dtype": "float16"}, r"expected a model with one image input, got 2 inputs"),
    ],
    ids=["another size", "grey", "two inputs", "two outputs", "two float16 inputs"],
)
def test_a_model_that_cannot_be_explained_is_refused_in_one_line_before_any_work(
    digits: Dataset, tmp_path: Path, network: dict, said: str
) -> None:
    classifier(**network).save(tmp_path / "theirs.keras")
    with pytest.raises(ValueError, match=said) as refusal:
        check(digits, source=str(tmp_path / "theirs.keras"))
    assert "\n" not in str(refusal.value)


def test_alibi_has_no_other_precision(digits: Dataset) -> None:
    half = ExplanationConfig(precision="bfloat16")
    rule = IntegratedGradientsConfig(engine="alibi", rule="gausslegendre")
    check_settings(digits, ModelConfig(), GradCamConfig(), IntegratedGradientsConfig(), half, None)
    with pytest.raises(ValueError, match="engine alibi computes in float32, precision is 'bfloat16'; set precision to"):
        check_settings(digits, ModelConfig(), GradCamConfig(), rule, half, None)


def test_tf32_is_refused_where_there_is_none(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (ModelConfig(), GradCamConfig(), IntegratedGradientsConfig(), ExplanationConfig(precision="tf32"), None)
    for gpus, name in (([], "CPU"), ([{"device_name": "Tesla T4", "compute_capability": (7, 5)}], "Tesla T4")):
        pretend_gpus(monkeypatch, *gpus)
        with pytest.raises(ValueError, match=f"precision tf32: expected .* 8.0 or above, got {name}; set precision to"):
            check_settings(digits, *asked)
    pretend_gpus(monkeypatch, H200)
    check_settings(digits, *asked)


def test_an_engine_that_is_not_installed_is_refused(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "missing_references", lambda: ["alibi"])
    check(digits)
    with pytest.raises(ValueError, match="need alibi, not installed; install the extra 'reference'"):
        check(digits, engine="alibi", rule="gausslegendre")


def test_images_too_large_for_the_notebooks_network_are_refused_before_training(digits: Dataset) -> None:
    large = digits.model_copy(update={"shape": (256, 256, 3)})
    with pytest.raises(
        ValueError, match=r"256x256x3 has 135 million parameters: a file of 1.6 GB.*dataset.size to 64 or so"
    ):
        check(large)
