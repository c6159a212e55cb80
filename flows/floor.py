"""The floor of drift, ahead of the nights that need it: networks of the model's recipe with other seeds, and how they differ."""

from datetime import UTC, datetime

from prefect import flow
from prefect.logging import get_run_logger

import tasks.process.start_tensorflow  # noqa: F401  before what imports TensorFlow
from tasks.agree import agree
from tasks.assess import know_floor
from tasks.config import (
    DatasetConfig,
    DriftConfig,
    ExplanationConfig,
    GradCamConfig,
    IntegratedGradientsConfig,
    ModelConfig,
    RunConfig,
)
from tasks.ingest import check_root, ingest
from tasks.parts.plan import check_settings, given_shape, make_plan
from tasks.process.quiet import settle_tensorflow
from tasks.train import train
from tasks.worth.drift.drift_floor import ReferenceFloor

__all__ = ["floor"]


def run_name() -> str:
    """What a run is called in the UI: when it began, UTC."""
    return f"floor {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="floor", flow_run_name=run_name)
def floor(
    drift: DriftConfig,
    dataset: DatasetConfig = DatasetConfig(),  # noqa: B008 (frozen, and Prefect draws its form from the defaults)
    model: ModelConfig = ModelConfig(),  # noqa: B008
    explanation: ExplanationConfig = ExplanationConfig(),  # noqa: B008
    integrated_gradients: IntegratedGradientsConfig = IntegratedGradientsConfig(),  # noqa: B008
    grad_cam: GradCamConfig = GradCamConfig(),  # noqa: B008
    run: RunConfig = RunConfig(),  # noqa: B008
) -> ReferenceFloor:
    """Trains the night's model and reference networks, those that are not there, and keeps how much their reasons differ.

    Every later night with the same recipe compares its drift with it.
    """
    root = check_root(run.root)
    settle_tensorflow()
    images = ingest(dataset, root, given_shape(model))
    check_settings(images, model, grad_cam, integrated_gradients, explanation, run.rows)
    trained = train(model, images, root / "models")
    contract = agree(trained, images, model, explanation, integrated_gradients, grad_cam)
    plan = make_plan(root, images, trained, contract, explanation, integrated_gradients, grad_cam, run.rows)
    found = know_floor(plan, drift.reference_seeds)
    get_run_logger().info("floor of %d networks: %s", len(found.seeds), found.shares)
    return found
