"""The night: ingest, train, agree on a contract, evaluate, explain, assess, seal, audit, promote, publish."""

from prefect import flow
from prefect.runtime import flow_run

import tasks.process.start_tensorflow  # noqa: F401  before what imports TensorFlow
from tasks.agree import agree
from tasks.assess import assess
from tasks.audit import audit_store
from tasks.config import (
    AlertConfig,
    AuditConfig,
    DatasetConfig,
    DriftConfig,
    ExplanationConfig,
    GalleryConfig,
    GradCamConfig,
    IntegratedGradientsConfig,
    ModelConfig,
    RunConfig,
    WorthConfig,
)
from tasks.evaluate import evaluate
from tasks.explain import explain
from tasks.handover.mlflow_run import check_log_to, log_to_mlflow
from tasks.handover.published_copy import check_address, publish_copy
from tasks.ingest import check_root, ingest
from tasks.pages.page import drawing
from tasks.parts.plan import check_settings, given_shape, make_plan
from tasks.parts.runners import check_runner
from tasks.process.quiet import settle_tensorflow
from tasks.publish import amend_report, announce, publish
from tasks.running_night import Night, NightResult, run_name
from tasks.seal import promote, seal
from tasks.train import train

__all__ = ["NightResult", "nightly"]


@flow(name="nightly", flow_run_name=run_name)
def nightly(
    dataset: DatasetConfig = DatasetConfig(),  # noqa: B008 (frozen, and Prefect draws its form from the defaults)
    model: ModelConfig = ModelConfig(),  # noqa: B008
    explanation: ExplanationConfig = ExplanationConfig(),  # noqa: B008
    integrated_gradients: IntegratedGradientsConfig = IntegratedGradientsConfig(),  # noqa: B008
    grad_cam: GradCamConfig = GradCamConfig(),  # noqa: B008
    worth: WorthConfig = WorthConfig(),  # noqa: B008
    drift: DriftConfig = DriftConfig(),  # noqa: B008
    audit: AuditConfig = AuditConfig(),  # noqa: B008
    alert: AlertConfig = AlertConfig(),  # noqa: B008
    gallery: GalleryConfig = GalleryConfig(),  # noqa: B008
    run: RunConfig = RunConfig(),  # noqa: B008
) -> NightResult:
    """Explains every image of a test split and says how far each explanation can be trusted.

    A crash loses at most the parts in flight: run again, and what is there is not computed again. `latest` moves
    only to a night that is sealed and has passed its audit.
    """
    root = check_root(run.root)
    check_runner(run, root)
    check_address(run.publish_to)
    check_log_to(run)
    settle_tensorflow()
    configuration = {
        "dataset": dataset,
        "model": model,
        "explanation": explanation,
        "integrated_gradients": integrated_gradients,
        "grad_cam": grad_cam,
        "worth": worth,
        "drift": drift,
        "audit": audit,
        "alert": alert,
        "gallery": gallery,
        "run": run,
    }
    with Night.begin(root, flow_run.id or "", run.resume) as night, drawing(gallery.draw):
        with night.stage("ingest"):
            images = ingest(dataset, root, given_shape(model))
            check_settings(images, model, grad_cam, integrated_gradients, explanation, run.rows)
        with night.stage("train"):
            trained = train(model, images, root / "models")
        with night.stage("contract"):
            contract = agree(trained, images, model, explanation, integrated_gradients, grad_cam)
        with night.stage("evaluate"):
            evaluation = evaluate(trained, contract, images, explanation, night.seed)
        with night.stage("explain"):
            plan = make_plan(root, images, trained, contract, explanation, integrated_gradients, grad_cam, run.rows)
            night.record(plan, configuration)
            parts = explain(plan, run)
        with night.stage("assess"):
            assessed = assess(plan, night.id, worth, drift, moves_latest=run.move_latest)
        with night.stage("seal"):
            store = seal(plan, night.id, night.began, night.flow_run_id, configuration, assessed, run.layout)
        with night.stage("audit"):
            audited = audit_store(plan, store, audit, seed=night.seed)
        with night.stage("promote"):
            result = night.result(
                store, evaluation.accuracy, audited.verdict, images.warnings, alert,
                doubts=(*contract.warnings, *evaluation.warnings), parts=parts, moves_latest=run.move_latest,
            )  # fmt: skip
            promote(plan, result)
        with night.stage("publish"):
            publish(plan, result, evaluation, gallery, worth)
            if run.log_to:
                logged = log_to_mlflow(result, run.mlflow_uri)
                result = amend_report(plan, result, logged, evaluation, gallery)
            if run.publish_to:
                copied = publish_copy(result, run.publish_to)
                result = amend_report(plan, result, copied, evaluation, gallery)
            announce(plan, result, gallery)
    return result
