"""Assess: what the explanations are worth, beside controls, before the store is sealed."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger

from storage import AttributionStore, Catalog, StoreError, open_store
from storage.file.catalog import STORE_NAME
from storage.file.layout import to_json
from storage.write.draft import drafted
from tasks.config import DriftConfig, ModelConfig, WorthConfig
from tasks.models.registry import ModelError
from tasks.night.progress import Progress, report
from tasks.numerics.network.tensor_float_32 import computing_in
from tasks.parts.explained_rows import baselines_for, explainer_for
from tasks.parts.plan import Plan
from tasks.train import obtain_model
from tasks.worth.assessment import NOT_ASSESSED, Assessed, Assessment, StrategyNotes
from tasks.worth.controls_table import Sample, measure_controls, take_sample
from tasks.worth.drift.drift_floor import ReferenceFloor
from tasks.worth.drift.earlier_stores import earlier_changes, last_comparable
from tasks.worth.drift.night_drift import DriftFloor, NightDrift, drift_tables
from tasks.worth.drift.reference_networks import measure_floor
from tasks.worth.drift.store_drift import compare_stores
from tasks.worth.known.kept_results import find_kept, keep, kept
from tasks.worth.known.known_answers import measure_canary, measure_graft
from tasks.worth.known.known_results import Canary, Graft, Sanity
from tasks.worth.known.sanity import measure_sanity
from tasks.worth.strategies.class_strategies import Strategies, find_strategies, pooled_heat
from tasks.worth.strategies.strategy_names import named_as_before
from tasks.worth.worth_words import say_worth

__all__ = ["assess", "know_floor", "reference_floor"]

FIRST_SEED = 1_000  # of the reference networks


@task(name="assess")
def assess(
    plan: Plan,
    night_id: str,
    config: WorthConfig,
    drift: DriftConfig = DriftConfig(),  # noqa: B008 (frozen)
    *,
    moves_latest: bool = True,
) -> Assessed:
    """Measures what `config.level` asks for. The rows' own worth is in their parts already, and a sealed night has all of it.

    moves_latest: as of the night; one on demand is not compared with the scheduled ones.
    Raises a StoreError if parts are missing or damaged.
    """
    if config.level != "full" or (Catalog(plan.root).night_dir(night_id) / STORE_NAME).exists():
        return NOT_ASSESSED
    parts = [plan.part(start, stop) for start, stop in plan.ranges()]
    about = {
        "run_id": night_id,
        "dataset_sha256": plan.dataset.sha256,
        "dataset_split": plan.dataset.test_split,
        "model_sha256": plan.model.sha256,
        "configuration": to_json(
            {
                "explanation": plan.explanation.model_dump(mode="json"),
                "integrated_gradients": plan.integrated_gradients.model_dump(mode="json"),
            }
        ),
    }
    rows = (plan.start, plan.stop)
    with (
        drafted(parts, night_id, class_names=plan.dataset.class_names, expected_rows=rows, attributes=about) as path,
        open_store(path) as store,
        last_comparable(plan.root, night_id, store) if moves_latest else nullcontext() as before,
    ):
        with computing_in(plan.precision):
            sample = take_sample(store, lambda images: baselines_for(plan, images), config.rows, plan.dataset.sha256)
            controls = measure_controls(explainer_for(plan).scores, sample, _reporter("controls"))
            strategies = _named(_strategies(plan, store), before)
        changed, tables = _drift(plan, night_id, before, store, drift)
        tables |= strategies.tables(store.row_numbers)
        found = _known_answers(plan, sample).model_copy(
            update={
                "controls": controls,
                "strategies": StrategyNotes(
                    notes=dict(strategies.notes),
                    pasted={each.name: each.pasted for each in strategies.found if each.pasted},
                ),
                "drift": changed,
            }
        )
    for line in say_worth(found):
        get_run_logger().info("%s", line)
    return Assessed(found, tables)


@task(name="floor")
def know_floor(plan: Plan, n_seeds: int) -> ReferenceFloor:
    """The floor of drift for the plan's model. Raises ValueError for a model without a recipe."""
    if not _has_recipe(plan):
        raise ValueError(
            f"expected a model that nightlens trained on this dataset, got {plan.model.name}: it has no recipe to train "
            "reference networks by; its floor are earlier nights whose models changed"
        )
    return reference_floor(plan, n_seeds)


def _strategies(plan: Plan, store: AttributionStore) -> Strategies:
    scores = explainer_for(plan).all_scores
    heat = pooled_heat(store, _reporter("reading attributions"))
    return find_strategies(store, heat, lambda images: scores(images).argmax(axis=1), _reporter("strategies"))


def _named(found: Strategies, before: AttributionStore | None) -> Strategies:
    """By the names of the night before, if it can be read."""
    try:
        return named_as_before(found, before)
    except StoreError as error:
        last = before.attributes["run_id"] if before else ""
        get_run_logger().warning("strategies are not named as in night %s: %s", last, error)
        return found


def _drift(
    plan: Plan, night_id: str, before: AttributionStore | None, store: AttributionStore, config: DriftConfig
) -> tuple[NightDrift | None, dict[str, NDArray]]:
    """Since the night before, and its table. None and no table without one, and for a model that is the same: its reasons
    cannot have changed.
    """
    if before is None or before.attributes["model_sha256"] == plan.model.sha256:
        return None, {}
    last = str(before.attributes["run_id"])
    try:
        found = compare_stores(before, store, _reporter("drift"))
    except StoreError as error:
        get_run_logger().warning("drift since night %s is not measured: %s", last, error)
        return None, {}
    floor = _floor(plan, night_id, before, store, config)
    return NightDrift.of(found, last, floor), drift_tables(found, store.row_numbers, len(store.class_names))


def _floor(
    plan: Plan, night_id: str, before: AttributionStore, store: AttributionStore, config: DriftConfig
) -> DriftFloor:
    """Of reference networks of this model's recipe, which may be trained now, or of the one before; else of earlier nights."""
    if has_recipe := _has_recipe(plan):
        try:
            if config.reference_seeds:
                return DriftFloor.of_references(reference_floor(plan, config.reference_seeds))
        except ModelError as error:
            get_run_logger().warning("there are no reference networks: %s", error)
        for dataset_sha256 in (plan.dataset.sha256, str(before.attributes["dataset_sha256"])):
            known = find_kept(plan.root, ReferenceFloor, _floor_settings(plan, dataset_sha256))
            if known is not None:
                return DriftFloor.of_references(known)
    elif config.reference_seeds:
        get_run_logger().warning(
            "drift.reference_seeds is for models that nightlens trains on this dataset, not for this one"
        )
    return DriftFloor.of_nights(earlier_changes(plan.root, night_id, store), has_recipe=has_recipe)


def _has_recipe(plan: Plan) -> bool:
    """Whether other networks can be trained as the plan's model was."""
    return bool(plan.model.training) and plan.model.dataset_sha256 == plan.dataset.sha256


def reference_floor(plan: Plan, n_seeds: int) -> ReferenceFloor:
    """The floor among so many networks of the recipe of the plan's model, as it was measured before or is measured now.

    A floor of fewer networks is measured anew; the networks that are there are not trained again.
    """
    settings = _floor_settings(plan, plan.dataset.sha256)
    known = find_kept(plan.root, ReferenceFloor, settings)
    if known is not None and len(known.seeds) >= n_seeds:
        return known
    recipe = {name: value for name, value in plan.model.training.items() if name != "seed"}
    seeds = [seed for seed in range(FIRST_SEED, FIRST_SEED + n_seeds + 1) if seed != plan.model.training["seed"]][
        :n_seeds
    ]
    models = [obtain_model(ModelConfig(**recipe, seed=seed), plan.dataset, plan.root / "models")[0] for seed in seeds]
    with computing_in(plan.precision):
        found = measure_floor(plan, models, seeds, _reporter("reference networks"))
    keep(plan.root, settings, found)
    return found


def _floor_settings(plan: Plan, dataset_sha256: str) -> dict[str, Any]:
    return {
        "dataset": dataset_sha256,
        "recipe": {name: value for name, value in plan.model.training.items() if name != "seed"},
        "score": plan.explanation.score,
        "integrated_gradients": plan.integrated_gradients.model_dump(mode="json"),
        "precision": plan.precision,
        "device": plan.device,
    }


def _known_answers(plan: Plan, sample: Sample) -> Assessment:
    """Sanity, graft and canary: measured once a model, configuration and software."""
    ig = plan.integrated_gradients.model_dump(mode="json")
    of_model = {"plan": plan.digest, "rows": [plan.start, plan.stop], "sample": len(sample)}
    of_settings = {
        "dataset": plan.dataset.sha256,
        "score": plan.explanation.score,
        "integrated_gradients": ig,
        "grad_cam": plan.grad_cam.engine,
        "precision": plan.precision,
        "device": plan.device,
    }
    rows = sample.images, sample.baselines, sample.predictions
    with computing_in(plan.precision):
        sanity = kept(plan.root, Sanity, of_model, lambda: measure_sanity(plan, *rows, _reporter("random networks")))
        graft = kept(plan.root, Graft, of_model, lambda: measure_graft(plan, *rows))
    return Assessment(
        sanity=sanity,
        graft=graft,
        canary=kept(plan.root, Canary, of_settings, lambda: measure_canary(plan, _reporter("canary networks"))),
    )


def _reporter(what: str) -> Callable[[float], None]:
    def say(share: float) -> None:
        report(Progress(stage="assess", done=round(100 * share), total=100, unit="%", note=what))

    return say
