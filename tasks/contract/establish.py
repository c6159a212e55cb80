"""Establish: finds how a model is fed and read, or takes what is set, and proves it on labelled images."""

from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.config import FeedConfig, ModelInput
from tasks.contract.candidates import STANDARDISED, Candidate, candidates, moments, standardised
from tasks.contract.class_order import is_above_chance
from tasks.contract.contract import Check, Contract, FeedTrial
from tasks.contract.evidence import Evidence, Outputs, Trial, clearly_worse, close_to, compile_outputs, gather
from tasks.contract.function import check_function
from tasks.datasets import Dataset, labelled_sample
from tasks.datasets.reading import batches
from tasks.numerics.feed import UNIT, Feed, named_feed
from tasks.numerics.grad_cam import find_layer, symbolic_trace
from tasks.numerics.outputs import KINDS, as_probabilities, breaks, flat_outputs, logits_of
from tasks.numerics.scores import Network, Reading, check_input, check_output
from tasks.registry import ModelError, ModelRecord
from tasks.result import NightWarning

__all__ = ["check_fit", "establish"]

SAMPLE_IMAGES = 512
LIMIT_S = 8.0  # for measuring feeds, beside what loading and tracing take
LOGIT_TOLERANCE = 1e-4
N_LOGIT_IMAGES = 32


def establish(
    model: keras.Model, record: ModelRecord, dataset: Dataset, wanted: ModelInput, *, score: str, layer: str
) -> Contract:
    """The contract of a model on a dataset.

    wanted: `model.input` of the configuration. score: "probability" or "logit". layer: `grad_cam.layer` of the configuration.
    Raises ModelError for a model that does not fit the dataset, is no function of one image, or whose score cannot be had.
    """
    check_fit(model, record, dataset)
    pixels, labels = labelled_sample(dataset, SAMPLE_IMAGES)
    order = np.random.default_rng(0).permutation(len(labels))  # rows of a dataset may be in the order of their classes
    pixels, labels = pixels[order], labels[order]
    images = pixels.astype(np.float32) / 255
    try:
        outputs = compile_outputs(model, dataset.shape)
        choice = _choose(model, record, dataset, wanted, outputs, pixels, labels)
    except (ValueError, tf.errors.OpError) as error:
        raise ModelError(f"model {record.name}: {_whole(error)}") from error
    found = choice.evidence
    checks, wrong = check_function(outputs, model, choice.feed, images)
    if wrong:
        raise ModelError(f"model {record.name} is no function of one image: {wrong}")
    chosen_outputs = next(t.outputs for t in found.trials if t.candidate.feed == choice.feed)
    if broken := breaks(found.kind, chosen_outputs):
        raise ModelError(f"model {record.name}: its outputs were taken for {KINDS[found.kind]}, and {broken}")
    reading = Reading(choice.feed, found.kind, dataset.shape)
    logits, logits_wrong = _logits(model, reading, images[:N_LOGIT_IMAGES])
    if logits_wrong and score == "logit":
        raise ModelError(f"model {record.name}: {logits_wrong}; explain the probability instead (explanation.score)")
    try:
        chosen_layer = find_layer(Network(model, "probability", reading), layer)
    except ValueError as error:
        raise ModelError(f"model {record.name}: {error}") from error
    return Contract(
        feed_name=choice.feed.name,
        mean=choice.feed.mean,
        scale=choice.feed.scale,
        bgr=choice.feed.bgr,
        chosen=choice.text,
        trials=_trials(choice),
        output=found.kind,
        logits=logits,
        shape=dataset.shape,
        class_order=dataset.class_order,
        layer=chosen_layer.label,
        layer_text=chosen_layer.text,
        checks=(_kind_check(found, chosen_outputs), *checks),
        warnings=tuple(choice.doubts),
    )


@dataclass(frozen=True)
class _Choice:
    feed: Feed
    text: str
    evidence: Evidence
    doubts: list[NightWarning]


def _choose(
    model: keras.Model,
    record: ModelRecord,
    dataset: Dataset,
    wanted: ModelInput,
    outputs: Outputs,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
) -> _Choice:
    images, n_channels = pixels.astype(np.float32) / 255, dataset.shape[-1]
    trained_here = bool(record.training)
    if trained_here and wanted == "auto":
        evidence = gather(outputs, [Candidate(UNIT)], images, labels, limit_s=LIMIT_S)
        return _Choice(
            UNIT, "by construction: nightlens trained it", evidence, _doubt_chance(evidence.trials[0], labels)
        )
    traced = symbolic_trace(Network(model, reading=Reading(shape=dataset.shape)))
    tried = candidates(traced, model, pixels)
    if wanted == "auto":
        evidence = gather(outputs, tried, images, labels, limit_s=LIMIT_S)
        return _automatic(evidence, dataset, outputs, images, labels)
    feed = _set_feed(wanted, n_channels)
    tried = [Candidate(feed, "set"), *(c for c in tried if not _same(c.feed, feed, n_channels))]
    evidence = gather(outputs, tried, images, labels, limit_s=LIMIT_S)
    if evidence.trials[0].candidate.feed != feed:
        raise ValueError(f"its outputs are not finite when it is fed {feed.name}; set model.input to auto, or another")
    return _Choice(feed, "set by model.input", evidence, _doubts_of_set(evidence, labels))


def _automatic(
    evidence: Evidence, dataset: Dataset, outputs: Outputs, images: NDArray[np.float32], labels: NDArray[np.int64]
) -> _Choice:
    best = evidence.best
    if not _above_chance(best, labels):
        prior = evidence.trials[0]
        why = prior.candidate.reason or "no feed explains the labels, so the plain one is taken"
        doubt = NightWarning(
            kind="input-range",
            message=f"under no input range is the model better than chance on {prior.n_images} labelled images, so "
            f"{prior.candidate.feed.name} is a guess ({why}); set model.input to what the model was trained with",
            value=prior.accuracy,
        )
        return _Choice(prior.candidate.feed, f"auto: {why}", evidence, [doubt])
    text = f"auto: it explains the labels best, accuracy {best.accuracy:.4f} on {best.n_images} images"
    text += f"; {best.candidate.reason}" if best.candidate.reason else ""
    close = close_to(best, evidence.trials)
    doubts = []
    if close:
        named = ", ".join(f"{t.candidate.feed.name} ({t.accuracy:.4f})" for t in close)
        doubts.append(
            NightWarning(
                kind="input-range",
                message=f"the input range {best.candidate.feed.name} (accuracy {best.accuracy:.4f}) explains "
                f"{best.n_images} labels "
                f"best, but {named} nearly as well; set model.input to what the model was trained with",
                value=best.accuracy,
                threshold=close[0].accuracy,
            )
        )
    if best.candidate.feed.name.startswith((STANDARDISED, "centred")):
        best = _with_exact_statistics(best, dataset, outputs, images)
    return _Choice(best.candidate.feed, text, evidence, doubts)


def _with_exact_statistics(trial: Trial, dataset: Dataset, outputs: Outputs, images: NDArray[np.float32]) -> Trial:
    """The same feed by the statistics of all training images instead of a sample's, as its owner had them."""
    exact = standardised(*moments(pixels for pixels, _ in batches(dataset, "train")))
    feed = next(feed for feed in exact if feed.name == trial.candidate.feed.name)
    trial.candidate = replace(trial.candidate, feed=feed)
    trial.outputs = outputs(images[: trial.n_images], feed)
    return trial


def _doubts_of_set(evidence: Evidence, labels: NDArray[np.int64]) -> list[NightWarning]:
    own = evidence.trials[0]
    better = [t for t in evidence.trials[1:] if not t.same_as and clearly_worse(own, t)]
    if better:
        best = max(better, key=lambda t: t.log_likelihood)
        return [
            NightWarning(
                kind="input-range",
                message=f"model.input is {own.candidate.feed.name} (accuracy {own.accuracy:.4f} on {own.n_images} "
                "labelled images); "
                f"{best.candidate.feed.name} fits far better (accuracy {best.accuracy:.4f}): set model.input to it, or to auto",
                value=own.accuracy,
                threshold=best.accuracy,
            )
        ]
    return _doubt_chance(own, labels)


def _doubt_chance(trial: Trial, labels: NDArray[np.int64]) -> list[NightWarning]:
    if _above_chance(trial, labels) or trial.n_images < 8:
        return []
    message = f"accuracy {trial.accuracy:.4f} on {trial.n_images} labelled images is no better than chance"
    return [NightWarning(kind="chance", message=message, value=trial.accuracy)]


def _above_chance(trial: Trial, labels: NDArray[np.int64]) -> bool:
    truth, said = labels[: trial.n_images], trial.said
    n_classes = int(max(truth.max(), said.max())) + 1
    shares = [np.bincount(values, minlength=n_classes) / len(truth) for values in (truth, said)]
    return is_above_chance(int(trial.correct.sum()), trial.n_images, float(shares[0] @ shares[1]))


def _trials(choice: _Choice) -> tuple[FeedTrial, ...]:
    """The chosen feed first, then the others, the likeliest first; feeds whose outputs are not finite last."""
    chosen = [t for t in choice.evidence.trials if t.candidate.feed == choice.feed]
    others = sorted((t for t in choice.evidence.trials if t not in chosen), key=lambda t: -t.log_likelihood)
    return tuple(t.record() for t in (*chosen, *others))


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


def _set_feed(wanted: str | FeedConfig, n_channels: int) -> Feed:
    if isinstance(wanted, str):
        return named_feed(wanted, n_channels)
    feed = Feed("given", wanted.mean, wanted.scale, wanted.bgr)
    if not feed.fits(n_channels):
        raise ValueError(
            f"model.input: expected mean and scale of one number or {n_channels}, a number a channel, and bgr for "
            "3 channels only, "
            f"got {len(wanted.mean)} and {len(wanted.scale)} numbers for images of {n_channels} channels"
        )
    return feed


def _same(one: Feed, other: Feed, n_channels: int) -> bool:
    pairs = zip(one.coefficients(n_channels), other.coefficients(n_channels), strict=True)
    return one.fits(n_channels) and all(np.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)


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


def _whole(error: Exception) -> str:
    """The error's own words, of a library's the first sentence."""
    return " ".join(str(error).split("\n")[0].split()) or type(error).__name__
