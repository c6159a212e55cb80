"""The nightly check against alibi and tf-explain: it passes on what is right and names the rows that are not.

A tampered store is made of altered parts, sealed as any other: its checksums are right and its numbers are not.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from storage import open_store, write_part
from tasks import audit as auditing
from tasks.audit import Audit, AuditedRow, AuditError, Check, audit_store, compare
from tasks.config import AuditConfig, DatasetConfig, ExplanationConfig, IntegratedGradientsConfig
from tasks.models.registry import read_record
from tasks.numerics.cams import CAMS
from tasks.numerics.endpoint import Endpoint
from tasks.numerics.explainer import Explainer
from tasks.numerics.references import missing_references
from tasks.pages.page import Page
from tasks.parts.compute import compute_part
from tasks.parts.methods import METHODS, cam_rows, integrated_gradients_rows
from tasks.parts.methods import method as methods_given
from tasks.parts.methods.comparison import probability_rounding, relative_difference
from tasks.parts.plan import Plan
from tasks.seal import seal

if TYPE_CHECKING:
    import keras

MakePlan = Callable[..., Plan]
EVERY_ROW = AuditConfig(n_rows=100)
SEED = 5
needs_references = pytest.mark.skipif(bool(missing_references()), reason="needs the extra 'reference'")
pytestmark = pytest.mark.usefixtures("no_run_logger")


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that would have been uploaded, as markdown."""
    published: list[str] = []
    monkeypatch.setattr(Page, "publish", lambda page: published.append(page.markdown()))
    return published


@pytest.fixture
def plan(make_small_plan: MakePlan, small_plan: Plan, tmp_path: Path) -> Plan:
    """Rows 8 to 15 of the small plan under a root of their own, all in one part that is there."""
    shutil.copytree(small_plan.root / "parts", tmp_path / "parts")
    return make_small_plan(tmp_path, rows="8:16")


def sealed(plan: Plan) -> Path:
    configuration = {"dataset": DatasetConfig(), "explanation": plan.explanation}
    return seal.fn(plan, "20261123T020000Z-ab12cd", "2026-11-23T02:00:00+00:00", "", configuration)


def tamper(plan: Plan, row: int, dataset: str, change: Callable[[NDArray], NDArray]) -> None:
    """Rewrite the part of a row with that row of a dataset changed."""
    start, stop = next((a, b) for a, b in plan.ranges() if a <= row < b)
    arrays: dict[str, Any] = {}
    with h5py.File(plan.part(start, stop)) as file:
        file.visititems(lambda name, item: arrays.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    for scale in ("row", "y", "x", "channel", "class", "cam_y", "cam_x"):
        del arrays[scale]
    arrays[dataset][row - start] = change(arrays[dataset][row - start])
    if dataset == "grad_cam/map":
        arrays["grad_cam/cam_max"] = arrays[dataset].max(axis=(1, 2))
    if dataset.endswith("attribution"):  # the forger keeps the gap consistent
        group = dataset.removesuffix("attribution")
        total = arrays[dataset].sum(axis=(1, 2, 3), dtype=np.float64)
        arrays[f"{group}gap"] = (total - (arrays[f"{group}score"] - arrays[f"{group}score_baseline"])).astype(
            np.float32
        )
    write_part(plan.part(start, stop), start, stop, arrays, digest=plan.digest, part_rows=plan.part_rows)


def zero_maps(_model: object, images: NDArray, _targets: NDArray) -> dict[str, NDArray]:
    return {name: np.zeros((len(images), 7, 7), np.float32) for name in CAMS}


def audited(plan: Plan, config: AuditConfig = EVERY_ROW) -> Audit:
    return audit_store.fn(plan, sealed(plan), config, seed=SEED)


@needs_references
def test_a_right_store_passes(plan: Plan, pages: list[str]) -> None:
    result = audited(plan)
    assert result.verdict == "passed"
    assert [row.row for row in result.rows] == list(range(8, 16))
    for row in result.rows:
        assert row.passed and 0 < row.checks["same rule"].difference < 1e-4
        assert row.checks["Grad-CAM map"].difference < 1e-4
    (page,) = pages
    assert page.startswith("# Audit: passed")
    assert page.count("| yes |") == 8


@needs_references
@pytest.mark.parametrize(
    ("dataset", "change", "row"),
    [
        ("integrated_gradients/attribution", np.negative, 9),
        ("integrated_gradients/attribution", lambda values: np.roll(values, 2, axis=1), 15),
        ("integrated_gradients/attribution", np.zeros_like, 8),
        ("grad_cam/map", lambda values: np.roll(values, 1, axis=0), 10),
        ("grad_cam/map", lambda values: values * 1.01, 14),
    ],
    ids=["negated", "shifted", "zero", "map-shifted", "map-scaled"],
)
def test_a_tampered_row_fails_by_its_number(
    plan: Plan, pages: list[str], dataset: str, change: Callable[[NDArray], NDArray], row: int
) -> None:
    with h5py.File(plan.part(*next((a, b) for a, b in plan.ranges() if a <= row < b))) as file:
        assert file[dataset][row % 8].any(), "a row that is zero anyway proves nothing"
    tamper(plan, row, dataset, change)
    with pytest.raises(AuditError, match=rf"the audit failed: rows \[{row}\] differ beyond tolerance.*`latest` stays"):
        audited(plan)
    assert pages[0].startswith("# Audit: failed")
    assert pages[0].count("| NO |") == 1
    assert not (plan.root / "latest").exists()


@needs_references
def test_a_gap_that_is_not_the_attributions_fails(plan: Plan) -> None:
    tamper(plan, 11, "integrated_gradients/gap", lambda values: values + 0.01)
    with pytest.raises(AuditError, match=r"rows \[11\] differ beyond tolerance"):
        audited(plan)


@needs_references
def test_a_saturated_map_is_audited_where_nothing_saturates(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding excuses the stored map of a certain model; our code still has to agree for the logit."""
    monkeypatch.setattr(cam_rows, "probability_rounding", lambda *_: np.full(8, 1.0))
    ours = Explainer.endpoint

    def off(*arguments: Any) -> Endpoint:
        endpoint = ours(*arguments)
        return dataclasses.replace(endpoint, maps={name: 1.01 * maps for name, maps in endpoint.maps.items()})

    monkeypatch.setattr(Explainer, "endpoint", off)
    with pytest.raises(AuditError, match=r"rows \[8, 9, 10, 11, 12, 13, 14, 15\] differ"):
        audited(plan)


@needs_references
def test_a_model_that_is_certain_passes(
    make_small_plan: Callable[..., Plan],
    small_network: "Callable[..., keras.Model]",
    tmp_path: Path,
) -> None:
    """Where 1 - p is nothing but rounding, two right maps may differ by any factor; the logits' still have to agree."""
    network = small_network()
    verdict = network.get_layer("verdict")
    kernel, bias = verdict.get_weights()
    verdict.set_weights([kernel, bias + 17 * np.eye(len(bias))[1]])
    path = tmp_path / "certain.keras"
    network.save(path)
    plan = make_small_plan(tmp_path / "data", model=read_record(path))
    for start, stop in plan.ranges():
        compute_part(plan, start, stop)
    audit = audited(plan)
    certain = [row for row in audit.rows if row.checks["Grad-CAM map"].allowed == np.inf]
    assert certain, "or this model is no example"
    assert audit.verdict == "passed"


@pytest.mark.parametrize(
    ("rest", "allowed"), [(1e-2, 2.4e-5), (1e-5, 2.4e-2), (1e-7, np.inf), (0.0, np.inf), (1.0, 2.4e-7)]
)
def test_what_rounding_of_a_probability_allows(rest: float, allowed: float) -> None:
    probabilities = np.array([[1 - rest, rest / 2, rest / 2]], np.float32)
    assert probability_rounding(probabilities, np.array([0])) == pytest.approx(allowed, rel=0.01)


@needs_references
@pytest.mark.parametrize("reference", ["alibi", "tf-explain"])
def test_a_reference_of_zeros_is_a_failure(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, pages: list[str], reference: str
) -> None:
    """As alibi 0.5.5 gives them, without a word."""

    def zeros(model: object, *arguments: Any, **_: object) -> NDArray:
        return np.zeros_like(arguments[0]) if reference == "alibi" else zero_maps(model, *arguments)

    if reference == "alibi":
        monkeypatch.setattr(integrated_gradients_rows, "alibi_integrated_gradients", zeros)
    else:
        monkeypatch.setattr(methods_given, "tf_explain_maps", zeros)
    with pytest.raises(AuditError, match=rf"{reference}.* returned zeros for all of rows \["):
        audited(plan)
    assert f"**Failed:** {reference}" in pages[0] and "returned zeros" in pages[0]


@needs_references
def test_a_reference_that_is_zero_where_we_are_too_is_still_a_failure(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero equals zero row by row; that all of a reference is zero is what gives it away."""
    for start, stop in plan.ranges():
        for row in range(start, stop):
            tamper(plan, row, "grad_cam/map", np.zeros_like)
    monkeypatch.setattr(methods_given, "tf_explain_maps", zero_maps)
    with pytest.raises(AuditError, match="the audit failed: .*tf-explain's Grad-CAM returned zeros for all of rows"):
        audited(plan)


@needs_references
def test_another_gradient_than_alibis_fails(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rule must give the same numbers: a thousandth is too much."""
    right = integrated_gradients_rows.alibi_integrated_gradients
    monkeypatch.setattr(
        integrated_gradients_rows, "alibi_integrated_gradients", lambda *a, **k: right(*a, **k) * np.float32(1.001)
    )
    with pytest.raises(AuditError, match=r"rows \[8, 9, .* 15\] differ beyond tolerance"):
        audited(plan)


@needs_references
def test_a_certificate_that_lies_fails(plan: Plan) -> None:
    """A stored attribution 30 % off is allowed to a row that says so, and not to one that claims to be exact."""
    tamper(plan, 12, "integrated_gradients/attribution", lambda values: values * 1.3)
    with pytest.raises(AuditError, match=r"rows \[12\] differ"):
        audited(plan)
    shutil.rmtree(plan.root / "nights")
    tamper(plan, 12, "integrated_gradients/quadrature_error", lambda _: np.float32(0.2))
    assert audited(plan).verdict == "passed"


@needs_references
def test_the_seed_chooses_the_rows(plan: Plan) -> None:
    store = sealed(plan)
    chosen = [
        [row.row for row in compare(plan, store, AuditConfig(n_rows=3), seed, METHODS).rows] for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(len(set(rows)) == 3 and rows == sorted(rows) for rows in chosen)


@needs_references
@pytest.mark.parametrize(
    ("score", "settings"),
    [("logit", {}), ("probability", {"rule": "riemann_trapezoid", "n_steps": 64}), ("logit", {"baseline": "mean"})],
    ids=["logit", "trapezoid", "mean-baseline"],
)
def test_other_settings_pass_too(make_small_plan: MakePlan, tmp_path: Path, score: str, settings: dict) -> None:
    from tasks.parts.compute import compute_part

    plan = make_small_plan(
        tmp_path,
        rows="0:4",
        explanation=ExplanationConfig.model_validate({"part_rows": 4, "batch_size": 64, "score": score}),
        integrated_gradients=IntegratedGradientsConfig.model_validate(settings),
    )
    compute_part(plan, 0, 4)
    assert audited(plan).verdict == "passed"


@needs_references
def test_bfloat16_passes_within_what_it_measured_of_itself(make_small_plan: MakePlan, tmp_path: Path) -> None:
    from tasks.parts.compute import compute_part

    explanation = ExplanationConfig(part_rows=4, batch_size=64, precision="bfloat16")
    plan = make_small_plan(tmp_path, rows="0:4", explanation=explanation)
    compute_part(plan, 0, 4)
    result = audited(plan)
    assert result.verdict == "passed"
    assert all(
        row.checks["same rule"].difference < 1e-4 for row in result.rows
    )  # our code against alibi's, both in float32
    with open_store(sealed(plan)) as store:
        worst = integrated_gradients_rows.precision_error(store)
        errors = store.certificate()["quadrature_error"].to_numpy(np.float64)
    assert worst > 1e-4
    allowed = [row.checks["certified"].allowed for row in result.rows]
    np.testing.assert_allclose(allowed, 2 * errors + 0.05 + 2 * worst, rtol=1e-6)
    # bfloat16 is of the gradients of the path alone: maps and scores get nothing for it.
    for row in result.rows:
        assert row.checks["Grad-CAM logit map"].allowed == pytest.approx(1e-4)
        assert row.checks["gap"].allowed == pytest.approx(1e-3)


def test_without_the_extra_the_verdict_says_so(plan: Plan, monkeypatch: pytest.MonkeyPatch, pages: list[str]) -> None:
    monkeypatch.setattr(auditing, "missing_references", lambda: ["alibi", "tf-explain"])
    result = audited(plan)
    assert result.verdict == "not audited: alibi, tf-explain not installed (extra 'reference')"
    assert result.rows == ()
    assert "not audited: alibi, tf-explain not installed" in pages[0]


def test_an_audit_that_is_switched_off_says_so(plan: Plan) -> None:
    assert audited(plan, AuditConfig(n_rows=0)).verdict == "not audited: switched off (n_rows is 0)"


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [3.0, 4.0], 1.0),
        ([3.0, 4.0], [0.0, 0.0], np.inf),
        ([-3.0, -4.0], [3.0, 4.0], 2.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([np.nan, 4.0], [3.0, 4.0], np.nan),
        ([3.0, 4.0], [np.nan, 4.0], np.nan),
        ([1e30, 0.0], [1e30, 0.0], 0.0),
    ],
    ids=["same", "both-zero", "ours-zero", "theirs-zero", "negated", "a-tenth", "ours-nan", "theirs-nan", "huge"],
)
def test_relative_difference(ours: list[float], theirs: list[float], expected: float) -> None:
    """Any shape, row by row, without a warning."""
    one, other = (np.array([[values], [[5.0, 5.0]]], np.float32) for values in (ours, theirs))
    np.testing.assert_allclose(relative_difference(one, other), [expected, 0.0], rtol=1e-6)


def test_a_difference_that_is_no_number_does_not_pass() -> None:
    right, wrong = (Check(about="", difference=difference, allowed=1.0) for difference in (0.0, np.nan))
    assert AuditedRow(row=1, checks={"gap": right, "map": right}).passed
    assert not AuditedRow(row=1, checks={"gap": right, "map": wrong}).passed
    assert not AuditedRow(row=1, checks={"gap": wrong, "map": right}).passed
