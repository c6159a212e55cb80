"""Assess: what the explanations are worth, beside controls, before the store is sealed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect import task
from prefect.logging import get_run_logger

from storage import AttributionStore, Catalog, StoreError, open_store
from storage.file.catalog import STORE_NAME
from storage.write.draft import drafted
from tasks.config import WorthConfig
from tasks.night.alert import earlier_night
from tasks.night.progress import Progress, report
from tasks.numerics.network.tensor_float_32 import computing_in
from tasks.parts.explained_rows import baselines_for, explainer_for
from tasks.parts.plan import Plan
from tasks.worth.assessment import NOT_ASSESSED, Assessed, Assessment, StrategyNotes
from tasks.worth.controls_table import Sample, measure_controls, take_sample
from tasks.worth.known.kept_results import kept
from tasks.worth.known.known_answers import Canary, Graft, measure_canary, measure_graft
from tasks.worth.known.sanity import Sanity, measure_sanity
from tasks.worth.night_drift import NightDrift
from tasks.worth.store_drift import OtherImages
from tasks.worth.strategies.class_strategies import Strategies, find_strategies, pooled_heat
from tasks.worth.strategies.strategy_names import named_as_before
from tasks.worth.worth_words import say_worth

__all__ = ["assess"]


@task(name="assess")
def assess(plan: Plan, night_id: str, config: WorthConfig) -> Assessed:
    """Measures what `config.level` asks for. The rows' own worth is in their parts already, and a sealed night has all of it.

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
    }
    rows = (plan.start, plan.stop)
    with (
        drafted(parts, night_id, class_names=plan.dataset.class_names, expected_rows=rows, attributes=about) as path,
        open_store(path) as store,
        _last_night(plan, night_id) as before,
        computing_in(plan.precision),
    ):
        sample = take_sample(store, lambda images: baselines_for(plan, images), config.rows, plan.dataset.sha256)
        controls = measure_controls(explainer_for(plan).scores, sample, _reporter("controls"))
        strategies = _named(_strategies(plan, store), before)
        tables = strategies.tables(store.row_numbers)
        found = _known_answers(plan, sample).model_copy(
            update={
                "controls": controls,
                "strategies": StrategyNotes(
                    notes=dict(strategies.notes),
                    pasted={each.name: each.pasted for each in strategies.found if each.pasted},
                ),
                "drift": _drift(plan, before, store),
            }
        )
    for line in say_worth(found):
        get_run_logger().info("%s", line)
    return Assessed(found, tables)


@contextmanager
def _last_night(plan: Plan, night_id: str) -> Iterator[AttributionStore | None]:
    """The store of the last night on the same images, if there is one that can be read."""
    catalog = Catalog(plan.root)
    images = {"dataset_sha256": plan.dataset.sha256, "dataset_split": plan.dataset.test_split}
    earlier = earlier_night(catalog, night_id, **images)
    with ExitStack() as opened:
        before = None
        if earlier is not None:
            try:
                before = opened.enter_context(open_store(catalog.night_dir(earlier.night_id)))
            except StoreError as error:
                get_run_logger().warning("nothing is compared with night %s: %s", earlier.night_id, error)
        yield before


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


def _drift(plan: Plan, before: AttributionStore | None, store: AttributionStore) -> NightDrift | None:
    """None without a night before, and for a model that is the same: its reasons cannot have changed."""
    if before is None or before.attributes["model_sha256"] == plan.model.sha256:
        return None
    try:
        return NightDrift.of(before, store)
    except (OtherImages, StoreError) as error:
        get_run_logger().warning("drift since night %s is not measured: %s", before.attributes["run_id"], error)
        return None


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
    return Assessment(
        sanity=kept(plan.root, Sanity, of_model, lambda: measure_sanity(plan, *rows, _reporter("random networks"))),
        graft=kept(plan.root, Graft, of_model, lambda: measure_graft(plan, *rows)),
        canary=kept(plan.root, Canary, of_settings, lambda: measure_canary(plan, _reporter("canary networks"))),
    )


def _reporter(what: str) -> Callable[[float], None]:
    def say(share: float) -> None:
        report(Progress(stage="assess", done=round(100 * share), total=100, unit="%", note=what))

    return say
