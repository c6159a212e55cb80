"""Agree: how the model is fed and read, established before anything is explained, with the page `model`."""

from prefect import task
from prefect.logging import get_run_logger

from tasks.config import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig, ModelConfig
from tasks.contract import Contract, establish
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord, load_model
from tasks.pages.model_page import model_page

__all__ = ["agree"]


@task(name="contract")
def agree(
    model: ModelRecord,
    dataset: Dataset,
    config: ModelConfig,
    explanation: ExplanationConfig,
    integrated_gradients: IntegratedGradientsConfig,
    grad_cam: GradCamConfig,
) -> Contract:
    """The model's contract, found or as it is set, proved on labelled images and published as the artifact `model`.

    Raises ModelError for a model whose function cannot be found.
    """
    network = load_model(model.path, model.code)
    contract = establish(
        network, model, dataset, config.input,
        score=explanation.score, layer=grad_cam.layer, baseline=integrated_gradients.baseline,
    )  # fmt: skip
    get_run_logger().info("model %s is fed %s", model.name, contract.summary)
    if not contract.layer:
        get_run_logger().info("no Grad-CAM: %s", contract.layer_text)
    for warning in contract.warnings:
        get_run_logger().warning("model %s: %s", model.name, warning.message)
    model_page(contract.as_json()).publish()
    return contract
