"""Which feed it is: set and proved, by construction, or the one that explains the labels best; and what is doubtful about it."""

from dataclasses import dataclass, replace

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.config import FeedConfig
from tasks.config.model_section import ModelInput
from tasks.contract.candidates import Candidate, candidates, is_statistic, moments, neighbours, standardised
from tasks.contract.contract import FeedTrial
from tasks.contract.evidence import Evidence, Outputs, Trial, clearly_worse, close_to, far_better, gather, measure
from tasks.contract.output_order import LEAST_GAIN, doubt_class_order, is_above_chance, matched_accuracy
from tasks.datasets import Dataset
from tasks.datasets.prepared_rows import batches
from tasks.night.result import NightWarning
from tasks.numerics.batching import traced_bytes
from tasks.numerics.network.feed import UNIT, Feed, named_feed
from tasks.numerics.network.graph import Trace
from tasks.numerics.network.outputs import OutputKind

__all__ = ["Choice", "Sample", "choose_feed"]

LIMIT_S = 8.0  # for measuring feeds, beside what loading and tracing take
BYTES_A_SECOND = 3e9  # of layers' outputs, forward only, about, on two cores
RARE_HANDICAP = 0.1  # of accuracy, by which a rare feed must be better where the order of classes is not known either
LEAST_IMAGES = 8  # below which nothing is said of chance


@dataclass(frozen=True)
class Sample:
    """Labelled images in an order that means nothing. pixels: (row, y, x, channel) uint8. labels: (row,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def images(self) -> NDArray[np.float32]:
        """(row, y, x, channel) in 0..1."""
        return self.pixels.astype(np.float32) / 255


@dataclass(frozen=True)
class Choice:
    """feed: what the network is fed. text: why. evidence: what was measured. doubts: what is to be looked at."""

    feed: Feed
    text: str
    evidence: Evidence
    doubts: tuple[NightWarning, ...]

    @property
    def trial(self) -> Trial:
        """The measurement of the feed that was chosen."""
        return next(trial for trial in self.evidence.trials if trial.candidate.feed == self.feed)

    def records(self) -> tuple[FeedTrial, ...]:
        """What was measured of each feed: of the chosen one first, then of the others, the likeliest first."""
        others = [trial for trial in self.evidence.trials if trial is not self.trial]
        others.sort(key=lambda trial: -trial.log_likelihood)
        return tuple(trial.record() for trial in (self.trial, *others))


def choose_feed(
    model: keras.Model,
    traced: Trace,
    dataset: Dataset,
    wanted: ModelInput,
    outputs: Outputs,
    sample: Sample,
    *,
    trained_here: bool,
) -> Choice:
    """The feed of a model. traced: its calls. wanted: `model.input` of the configuration.

    Raises ValueError for a feed that does not fit the images, or under which outputs are not finite.
    """
    n_channels = dataset.shape[-1]
    tried = [Candidate(UNIT)] if trained_here and wanted == "auto" else candidates(traced, model, sample.pixels)
    if wanted != "auto":
        feed = _set_feed(wanted, n_channels)
        tried = [Candidate(feed, "set"), *(c for c in tried if not _same(c.feed, feed, n_channels))]
    # What LIMIT_S is enough for, by estimate: counted, so that a busy machine finds the same.
    n_passes = int(LIMIT_S * BYTES_A_SECOND / traced_bytes(traced, dataset.shape))
    evidence = gather(outputs, tried, sample.images, sample.labels, n_passes=n_passes)
    if wanted != "auto":
        return _as_set(evidence, tried[0].feed, dataset, sample)
    if trained_here:
        own = evidence.trials[0]
        return Choice(UNIT, "by construction: nightlens trained it", evidence, _doubts(own, dataset, sample))
    return _automatic(evidence, dataset, outputs, sample)


def _as_set(evidence: Evidence, feed: Feed, dataset: Dataset, sample: Sample) -> Choice:
    own = evidence.trials[0]
    if own.candidate.feed != feed:
        raise ValueError(f"its outputs are not finite when it is fed {feed.name}; set model.input to auto, or another")
    better = [trial for trial in evidence.trials[1:] if not trial.same_as and clearly_worse(own, trial)]
    doubts = _doubts(own, dataset, sample)
    if better:
        best = max(better, key=lambda trial: trial.log_likelihood)
        name, accuracy = best.candidate.feed.name, best.accuracy
        doubt = NightWarning(
            kind="input-range",
            message=f"model.input is {feed.name} (accuracy {own.accuracy:.4f} on {own.n_images} labelled images); "
            f"{name} fits far better (accuracy {accuracy:.4f}): set model.input to it, or to auto",
            value=own.accuracy,
            threshold=accuracy,
        )
        doubts = (*doubts, doubt)
    return Choice(feed, "set by model.input", evidence, doubts)


def _automatic(evidence: Evidence, dataset: Dataset, outputs: Outputs, sample: Sample) -> Choice:
    best = evidence.best
    if reordered := _in_another_order(evidence, best, dataset, sample):
        return reordered
    if not _above_chance(best, sample):
        return _guess(evidence)
    text = f"auto: it explains the labels best, accuracy {best.accuracy:.4f} on {best.n_images} images"
    text += f"; {best.candidate.reason}" if best.candidate.reason else ""
    doubts = (*_doubts_of_range(best, evidence, outputs, sample), *_doubts_of_unit(best, evidence.kind, sample))
    if close := close_to(best, evidence.trials):
        named = ", ".join(f"{trial.candidate.feed.name} ({trial.accuracy:.4f})" for trial in close)
        doubt = NightWarning(
            kind="input-range",
            message=f"the input range {best.candidate.feed.name} (accuracy {best.accuracy:.4f}) explains {best.n_images} "
            f"labels best, but {named} nearly as well; set model.input to what the model was trained with",
            value=best.accuracy,
            threshold=close[0].accuracy,
        )
        doubts = (*doubts, doubt)
    if is_statistic(best.candidate.feed):
        _take_exact_statistics(best, dataset, outputs, sample)
    return Choice(best.candidate.feed, text, evidence, doubts)


def _in_another_order(evidence: Evidence, best: Trial, dataset: Dataset, sample: Sample) -> Choice | None:
    """The feed under which outputs tell the classes apart, if in another order than the dataset's, far better than in it."""
    matched = [(matched_accuracy(_confusion(trial, dataset, sample)), trial) for trial in evidence.trials]
    accuracy, trial = max(matched, key=lambda pair: pair[0] - RARE_HANDICAP * pair[1].candidate.is_rare)
    doubts = _doubts(trial, dataset, sample, only="class-order")
    if not doubts or accuracy - best.accuracy <= LEAST_GAIN:
        return None
    text = f"auto: under it outputs tell the classes apart best, {accuracy:.4f} of {trial.n_images} images in another order"
    return Choice(trial.candidate.feed, text, evidence, doubts)


def _doubts_of_range(best: Trial, evidence: Evidence, outputs: Outputs, sample: Sample) -> tuple[NightWarning, ...]:
    """What speaks against the feed that was found: that it is a rare one, and that labels prefer one beside it."""
    feed, accuracy = best.candidate.feed, f"accuracy {best.accuracy:.4f} on {best.n_images} labelled images"
    numbers = f"{{mean: {[round(m, 4) for m in feed.mean]}, scale: {[round(s, 4) for s in feed.scale]}, bgr: {feed.bgr}}}".lower()
    beside = [
        measure(outputs, candidate, best, evidence.kind, sample.images, sample.labels) for candidate in neighbours(feed)
    ]
    better = [trial for trial in beside if np.isfinite(trial.outputs).all() and far_better(best, trial)]
    if better:
        message = (
            f"the input range {feed.name} ({accuracy}) explains labels best of those that were tried, and a range beside it "
            f"better (accuracy {max(trial.accuracy for trial in better):.4f}): the model is fed something else; set model.input"
        )
    elif best.candidate.is_rare:
        message = f"the model seems to be fed the rare input range {feed.name} ({accuracy}); "
        message += f"if that is so, set model.input to {numbers}"
    else:
        return ()
    return (NightWarning(kind="input-range", message=message, value=best.accuracy),)


def _doubts_of_unit(best: Trial, kind: OutputKind, sample: Sample) -> tuple[NightWarning, ...]:
    """A doubt if one linear unit tells two classes apart at a half and not at zero: no logit, but a number between 0 and 1."""
    if kind != "logit":
        return ()
    at_half = float(np.mean((best.outputs[:, 0] > 0.5) == sample.labels[: best.n_images]))
    if at_half - best.accuracy <= LEAST_GAIN:
        return ()
    message = (
        f"its one output tells the classes apart better at .5 (accuracy {at_half:.4f}) than at 0 "
        f"({best.accuracy:.4f}), so it is no "
        "logit, as which it is read; end the model with a sigmoid"
    )
    return (NightWarning(kind="model", message=message, value=best.accuracy, threshold=at_half),)


def _guess(evidence: Evidence) -> Choice:
    prior = evidence.trials[0]
    why = prior.candidate.reason or "no feed explains the labels, so the plain one is taken"
    doubt = NightWarning(
        kind="input-range",
        message=f"under no input range is the model better than chance on {prior.n_images} labelled images, so "
        f"{prior.candidate.feed.name} is a guess ({why}); set model.input to what the model was trained with",
        value=prior.accuracy,
    )
    return Choice(prior.candidate.feed, f"auto: a guess, {why}", evidence, (doubt,))


def _take_exact_statistics(trial: Trial, dataset: Dataset, outputs: Outputs, sample: Sample) -> None:
    """Puts the statistics of all training images in the place of a sample's, as the model's owner had them."""
    exact = standardised(*moments(pixels for pixels, _ in batches(dataset, "train")))
    feed = next(feed for feed in exact if feed.name == trial.candidate.feed.name)
    trial.candidate = replace(trial.candidate, feed=feed)
    trial.outputs = outputs(sample.images[: trial.n_images], feed)


def _doubts(trial: Trial, dataset: Dataset, sample: Sample, only: str = "") -> tuple[NightWarning, ...]:
    """What the sample says against the model under this feed: classes in another order, accuracy at chance."""
    if trial.n_images < LEAST_IMAGES:
        return ()
    order = doubt_class_order(_confusion(trial, dataset, sample), dataset.class_names)
    if order is not None or only:
        return (order,) if order is not None else ()
    if _above_chance(trial, sample):
        return ()
    message = f"accuracy {trial.accuracy:.4f} on {trial.n_images} labelled images is no better than chance"
    return (NightWarning(kind="chance", message=message, value=trial.accuracy),)


def _confusion(trial: Trial, dataset: Dataset, sample: Sample) -> NDArray[np.int64]:
    """Images by (true class, predicted class)."""
    matrix = np.zeros((dataset.n_classes, dataset.n_classes), np.int64)
    np.add.at(matrix, (sample.labels[: trial.n_images], trial.said), 1)
    return matrix


def _above_chance(trial: Trial, sample: Sample) -> bool:
    truth = sample.labels[: trial.n_images]
    n_classes = int(max(truth.max(), trial.said.max())) + 1
    shares = [np.bincount(values, minlength=n_classes) / len(truth) for values in (truth, trial.said)]
    return is_above_chance(int(trial.correct.sum()), trial.n_images, float(shares[0] @ shares[1]))


def _set_feed(wanted: str | FeedConfig, n_channels: int) -> Feed:
    if isinstance(wanted, str):
        return named_feed(wanted, n_channels)
    feed = Feed("given", wanted.mean, wanted.scale, wanted.bgr)
    if not feed.fits(n_channels):
        raise ValueError(
            f"model.input: expected mean and scale of one number or {n_channels}, and bgr for 3 channels only, "
            f"got {len(wanted.mean)} and {len(wanted.scale)} numbers for images of {n_channels} channels"
        )
    return feed


def _same(one: Feed, other: Feed, n_channels: int) -> bool:
    pairs = zip(one.coefficients(n_channels), other.coefficients(n_channels), strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)
