"""An explanation on demand: a model that exists, on any dataset, by the recipe of the night.

It is sealed, audited and published as a night of its own, and listed, resumed, verified and pruned like one. It trains
nothing, and unless `run.move_latest` says so `latest` stays with the last night: who loads that gets what the schedule made.
"""

from prefect import flow

from flows.nightly import NightResult, nightly
from tasks.config import (
    AlertConfig,
    AuditConfig,
    DatasetConfig,
    ExistingModelConfig,
    ExplanationConfig,
    GalleryConfig,
    GradCamConfig,
    IntegratedGradientsConfig,
    ModelConfig,
    OnDemandRunConfig,
    WorthConfig,
)
from tasks.ingest import check_root
from tasks.models.registry import existing_model
from tasks.running_night import run_name

__all__ = ["explain"]


@flow(name="explain", flow_run_name=run_name)
def explain(
    model: ExistingModelConfig,
    dataset: DatasetConfig = DatasetConfig(),  # noqa: B008 (frozen, and Prefect draws its form from the defaults)
    explanation: ExplanationConfig = ExplanationConfig(),  # noqa: B008
    integrated_gradients: IntegratedGradientsConfig = IntegratedGradientsConfig(),  # noqa: B008
    grad_cam: GradCamConfig = GradCamConfig(),  # noqa: B008
    worth: WorthConfig = WorthConfig(),  # noqa: B008
    audit: AuditConfig = AuditConfig(),  # noqa: B008
    alert: AlertConfig = AlertConfig(),  # noqa: B008
    gallery: GalleryConfig = GalleryConfig(),  # noqa: B008
    run: OnDemandRunConfig = OnDemandRunConfig(),  # noqa: B008
) -> NightResult:
    """Explains every image of a test split with a model that exists already, as a night that is not the latest."""
    path = existing_model(model.source, check_root(run.root) / "models")
    # The night's own steps, within this flow's run: pages of a subflow are not listed with the run that called it.
    return nightly.fn(
        dataset=dataset,
        model=ModelConfig(source=str(path), code=model.code, input=model.input),
        explanation=explanation,
        integrated_gradients=integrated_gradients,
        grad_cam=grad_cam,
        worth=worth,
        audit=audit,
        alert=alert,
        gallery=gallery,
        run=run,
    )
