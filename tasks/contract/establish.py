"""Establish: finds how a model is fed and read, or takes what is set, and proves it on labelled images."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.config.model_section import ModelInput
from tasks.contract.contract import Check, Contract
from tasks.contract.evidence import Evidence, compile_outputs
from tasks.contract.feed_choice import Sample, choose_feed
from tasks.contract.function import check_function, check_gradients
from tasks.datasets import Dataset, labelled_sample
from tasks.models.registry import ModelError, ModelRecord
from tasks.numerics.map_layers import find_layer, symbolic_trace
from tasks.numerics.network.outputs import KINDS, as_probabilities, breaks, flat_outputs, logits_of
from tasks.numerics.network.scores import Network, Reading, check_input, check_output

__all__ = ["check_fit", "establish"]

SAMPLE_IMAGES = 512
LOGIT_TOLERANCE = 1e-4
N_LOGIT_IMAGES = 8


def establish(
    model: keras.Model,
    record: ModelRecord,
    dataset: Dataset,
    wanted: ModelInput,
    *,
    score: str,
    layer: str,
    baseline: str = "black",
) -> Contract:
    """The contract of a model on a dataset.

    wanted: `model.input` of the configuration. score: "probability" or "logit". layer: `grad_cam.layer` of the configuration.
    baseline: `integrated_gradients.baseline`.
    Raises ModelError for a model that does not fit the dataset, is no function of one image, or whose score cannot be had.
    """
    check_fit(model, record, dataset)
    sample = _sample(dataset)
    try:
        outputs = compile_outputs(model, dataset.shape)
        traced = symbolic_trace(Network(model, reading=Reading(shape=dataset.shape)))
        choice = choose_feed(model, traced, dataset, wanted, outputs, sample, trained_here=bool(record.training))
    except ValueError as error:
        raise ModelError(f"model {record.name}: {_first_sentence(error)}") from error
    except tf.errors.OpError as error:
        raise ModelError(
            f"model {record.name}: TensorFlow cannot compute it on images of {dataset.shape} ({type(error).__name__}); call the "
            "model on such images, and save it when that works"
        ) from error
    checks, wrong = check_function(outputs, model, choice.feed, sample.images)
    if wrong:
        raise ModelError(f"model {record.name} is no function of one image: {wrong}")
    kind = choice.evidence.kind
    if broken := breaks(kind, choice.trial.outputs):
        raise ModelError(f"model {record.name}: its outputs were taken for {KINDS[kind]}, and {broken}")
    reading = Reading(choice.feed, kind, dataset.shape)
    if wrong := check_gradients(
        Network(model, "probability", reading), sample.images, sample.labels, baseline=baseline
    ):
        raise ModelError(f"model {record.name}: {wrong}")
    logits, no_logits = _logits(model, reading, sample.images[:N_LOGIT_IMAGES])
    if no_logits and score == "logit":
        raise ModelError(f"model {record.name}: {no_logits}; explain the probability instead (explanation.score)")
    try:
        found = find_layer(Network(model, "probability", reading), layer, traced)
    except ValueError as error:
        raise ModelError(f"model {record.name}: {error}") from error
    return Contract(
        feed_name=choice.feed.name,
        mean=choice.feed.mean,
        scale=choice.feed.scale,
        bgr=choice.feed.bgr,
        chosen=choice.text,
        trials=choice.records(),
        output=kind,
        logits=logits,
        shape=dataset.shape,
        class_order=dataset.class_order,
        layer=found.label,
        layer_text=found.text,
        checks=(_kind_check(choice.evidence, choice.trial.outputs), *checks),
        warnings=choice.doubts,
    )


def _sample(dataset: Dataset) -> Sample:
    """Labelled training images, mixed: the rows of a dataset may be in the order of their classes."""
    pixels, labels = labelled_sample(dataset, SAMPLE_IMAGES)
    order = np.random.default_rng(0).permutation(len(labels))
    return Sample(pixels[order], labels[order])


def _kind_check(evidence: Evidence, outputs: NDArray[np.float32]) -> Check:
    low, high = float(outputs.min()), float(outputs.max())
    text = f"{KINDS[evidence.kind]}: from {low:.4g} to {high:.4g} on {len(outputs)} images"
    return Check(name="outputs", text=text)


def _logits(model: keras.Model, reading: Reading, images: NDArray[np.float32]) -> tuple[str, str]:
    """Where the model's logits come from, in words, or else why they cannot be had. Proved on images."""
    if reading.kind in ("logits", "logit"):
        return "its outputs", ""
    network = Network(model, "probability", reading)
    traced = network.trace(tf.constant(images))
    before = logits_of(traced, reading.kind)
    if before is None:
        return (
            "",
            f"its logits cannot be reached: its last layer {traced.last!r} is no Dense or Softmax whose input they are",
        )
    outputs = flat_outputs(traced.outputs[0])
    if reading.kind == "independent":
        again = tf.sigmoid(before)
    else:
        again = as_probabilities(before, "logits" if reading.kind == "probability" else "logit")
    said = as_probabilities(outputs, reading.kind)
    off = float(np.abs(np.asarray(again) - np.asarray(said)).max())
    if off > LOGIT_TOLERANCE:
        return (
            "",
            f"what goes into its last softmax or sigmoid gives other probabilities than its outputs, by up to {off:.2g}",
        )
    return f"what goes into the last softmax or sigmoid; probabilities made from them are off by {off:.1g}", ""


def check_fit(model: keras.Model, record: ModelRecord, dataset: Dataset) -> None:
    """Raises ModelError unless the model takes the dataset's images and tells its classes apart."""
    try:
        check_input(model)
        check_output(model)
        network = Network(model, reading=Reading(shape=dataset.shape))
    except ValueError as error:
        raise ModelError(
            f"model {record.name}: {error}; choose another model, or set dataset.transform and dataset.size"
        ) from error
    if network.n_classes != dataset.n_classes:
        raise ModelError(
            f"model {record.name} knows {network.n_classes} classes, the dataset has {dataset.n_classes}; "
            "choose another model, or train one with `--model train`"
        )


def _first_sentence(error: Exception) -> str:
    """The error's own words, of a library's the first sentence."""
    return " ".join(str(error).split("\n")[0].split()) or type(error).__name__
