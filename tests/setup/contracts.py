"""Contracts as they are set by hand, for tests of what comes after: a network of probabilities that is fed images as 0 to 1."""

from tasks.contract import Contract
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord, load_model
from tasks.numerics.map_layers import find_layer
from tasks.numerics.network.scores import Network


def unit_contract(model: ModelRecord, dataset: Dataset, layer: str = "auto") -> Contract:
    """The contract of a softmax classifier of images in 0..1; layer: as `grad_cam.layer`."""
    found = find_layer(Network(load_model(model.path, model.code)), layer)
    return Contract(
        feed_name="unit",
        mean=(0.0,),
        scale=(1.0,),
        bgr=False,
        chosen="set by a test",
        output="probability",
        logits="what goes into the last softmax",
        shape=dataset.shape,
        class_order="as the dataset has them",
        layer=found.label,
        layer_text=found.text,
    )
