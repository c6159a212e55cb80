"""Which feed explains the labels of images best: each candidate's accuracy and log-likelihood, by rounds.

All candidates begin with a few images. After each round those that are clearly worse than the best are left, so that the rest get
more. The work ends with the images, or when as many have gone through the network as were allowed: counted, not timed, so that a
busy machine finds the same.

Two feeds are compared image by image, by the mean difference of ln p(label) over its standard error: first of probabilities
that a temperature has made as good as they get under either feed, since a network that is surer than it should be is often
likelier under a wrong feed that blurs it; where that does not tell, of the probabilities as they are, since a network
without normalisation names the same classes whatever the scale, and only its certainty says which scale it knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.special import log_softmax

from tasks.contract.candidates import Candidate
from tasks.contract.contract import FeedTrial
from tasks.numerics.network.feed import Feed
from tasks.numerics.network.outputs import OutputKind, as_probabilities, flat_outputs, kind_of
from tasks.numerics.network.scores import Network, Reading

__all__ = [
    "Evidence",
    "Trial",
    "best_of",
    "clearly_worse",
    "close_to",
    "compile_outputs",
    "far_better",
    "gather",
    "measure",
]

# Standard errors of a mean difference that is clear, that is close, and by which a likely feed is taken before an earlier one.
CLEAR, CLOSE, PREFERRED = 3.0, 2.0, 1.0
TEMPERATURES = np.geomspace(0.05, 50, 25)
# Nats an image below which nothing is clear. Where a network makes no mistake, to be surer is to be likelier, also under a feed
# that makes it surer than it is: only much is clear there.
LEAST_DIFFERENCES = {"tempered": 0.01, "log_likelihoods": 0.25}
LEAST_PROBABILITY = 1e-7  # float32 knows nothing smaller next to 1
FIRST_IMAGES, LEAST_IMAGES, LARGEST_BATCH = 64, 8, 128
LEAST_PASSES = 16  # a candidate
SAME_OUTPUTS = 1e-3
LEAST_GAIN = 0.05  # of accuracy, by which a rare feed must be better
MOST_WEIGHT = 10  # of an image, in that of one of a class that is as frequent as the others

Outputs = Callable[[NDArray[np.float32], Feed], NDArray[np.float32]]


@dataclass
class Trial:
    """A candidate and the model's outputs under it, (image, output), for the first images of the sample.

    weights: of each image, so that every class counts alike. log_likelihoods, tempered: ln p(label) of each image, as it is
    and at the best temperature. said: the classes it names. same_as: an earlier feed under which the model says the same.
    """

    candidate: Candidate
    outputs: NDArray[np.float32]
    weights: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    log_likelihoods: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    tempered: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    said: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    correct: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    same_as: str = ""

    @property
    def n_images(self) -> int:
        return len(self.log_likelihoods)

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def log_likelihood(self) -> float:
        return float(self.log_likelihoods.mean())

    def record(self) -> FeedTrial:
        note = f"the same outputs as {self.same_as}" if self.same_as else self.candidate.reason
        return FeedTrial(
            name=self.candidate.feed.name,
            accuracy=self.accuracy,
            log_likelihood=self.log_likelihood,
            n_images=self.n_images,
            note=note,
        )


@dataclass(frozen=True)
class Evidence:
    """kind: what the outputs are. trials: those with finite outputs, in the order of the candidates; broken: the others."""

    kind: OutputKind
    trials: list[Trial]
    broken: list[Candidate]

    @property
    def best(self) -> Trial:
        """The feed that explains the labels best; of feeds that cannot be told apart, the one that comes first."""
        return best_of(self.trials)


def compile_outputs(model: keras.Model, shape: tuple[int, int, int]) -> Outputs:
    """The model's own outputs, (row, output) float32, of images under any feed, by one compiled function for all feeds."""
    network = Network(model, reading=Reading(shape=shape))

    def outputs(images: tf.Tensor, factor: tf.Tensor, offset: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        fed = tf.gather(images, order, axis=-1) * factor + offset
        return tf.cast(flat_outputs(network.trace(tf.ensure_shape(fed, (None, *shape))).outputs[0]), tf.float32)

    numbers = tf.TensorSpec((shape[-1],), tf.float32)
    compiled = tf.function(
        outputs,
        input_signature=[
            tf.TensorSpec((None, *shape), tf.float32), numbers, numbers, tf.TensorSpec((shape[-1],), tf.int32)
        ],
        autograph=False,
    )  # fmt: skip

    def call(images: NDArray[np.float32], feed: Feed) -> NDArray[np.float32]:
        parts = [images[start : start + LARGEST_BATCH] for start in range(0, len(images), LARGEST_BATCH)]
        coefficients = feed.coefficients(shape[-1])
        return np.concatenate([compiled(part, *coefficients).numpy() for part in parts])

    return call


def gather(
    outputs: Outputs,
    wanted: Sequence[Candidate],
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    n_passes: int,
) -> Evidence:
    """What the labels say of each candidate.

    images: (row, y, x, channel) in 0..1, in an order that means nothing. n_passes: images that may go through the network,
    for all candidates together; where they are few, rare candidates are left out.
    Raises ValueError if no candidate gives finite outputs.
    """
    if n_passes < LEAST_PASSES * len(wanted):
        wanted = [candidate for candidate in wanted if not candidate.is_rare]
    n = min(max(n_passes // (2 * len(wanted)), LEAST_IMAGES), FIRST_IMAGES, len(images))
    trials, broken = [], []
    for candidate in wanted:
        found = outputs(images[:n], candidate.feed)
        if np.isfinite(found).all():
            trials.append(Trial(candidate, found))
        else:
            broken.append(candidate)
    if not trials:
        raise ValueError(
            f"the model's outputs are not finite under any of the feeds {', '.join(c.feed.name for c in wanted)}"
        )
    kind = kind_of(np.concatenate([trial.outputs for trial in trials]))
    _mark_same(trials, kind)
    alive = [trial for trial in trials if not trial.same_as]
    for trial in trials:
        _judge(trial, kind, labels)
    n_left = n_passes - n * len(wanted)
    while n < len(images):
        best = best_of(alive)
        alive = [trial for trial in alive if trial is best or not clearly_worse(trial, best)]
        more = min(2 * n, len(images))
        n_left -= (more - n) * len(alive)
        if n_left < 0:
            break
        for trial in alive:
            trial.outputs = np.concatenate([trial.outputs, outputs(images[n:more], trial.candidate.feed)])
            _judge(trial, kind, labels)
        n = more
    return Evidence(kind, trials, broken)


def _judge(trial: Trial, kind: OutputKind, labels: NDArray[np.int64]) -> None:
    probabilities = np.asarray(as_probabilities(tf.constant(trial.outputs), kind), np.float64)
    truth, rows = labels[: len(probabilities)], np.arange(len(probabilities))
    if kind == "independent":
        probabilities = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), LEAST_PROBABILITY)
    logs = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    trial.log_likelihoods = logs[rows, truth]
    at_temperatures = (log_softmax(logs / temperature, axis=1)[rows, truth] for temperature in TEMPERATURES)
    trial.weights = (len(truth) / np.bincount(truth)[truth]).clip(max=MOST_WEIGHT * len(np.unique(truth)))
    trial.tempered = max(at_temperatures, key=lambda values: float(trial.weights @ values))
    trial.said = probabilities.argmax(axis=1)
    trial.correct = trial.said == truth


def measure(
    outputs: Outputs, candidate: Candidate, like: Trial, kind: OutputKind, images: NDArray, labels: NDArray
) -> Trial:
    """A further candidate on the images that a trial has seen."""
    found = Trial(candidate, outputs(images[: like.n_images], candidate.feed))
    _judge(found, kind, labels)
    return found


def _mark_same(trials: Sequence[Trial], kind: OutputKind) -> None:
    """Marks feeds under which the model says what it says under an earlier one, as a model does that standardises each image."""
    seen: list[tuple[str, NDArray]] = []
    for trial in trials:
        said = np.asarray(as_probabilities(tf.constant(trial.outputs), kind))
        same = [name for name, other in seen if np.abs(said - other).max() <= SAME_OUTPUTS]
        if same:
            trial.same_as = same[0]
        else:
            seen.append((trial.candidate.feed.name, said))


def best_of(trials: Sequence[Trial]) -> Trial:
    """The feed that explains the labels best; of feeds that cannot be told apart, the one that comes first."""
    best = trials[0]
    for trial in trials[1:]:
        better = far_better if trial.candidate.is_rare else partial(clearly_worse, errors=PREFERRED)
        if better(best, trial):
            best = trial
    return best


def far_better(one: Trial, other: Trial) -> bool:
    """Whether the other feed is clearly better and right more often by LEAST_GAIN.

    Batch normalisations that were trained for a few steps only keep other moments than images have, and a feed that is a little
    brighter or steeper makes up for that.
    """
    n = min(one.n_images, other.n_images)
    gain = float(other.correct[:n].mean() - one.correct[:n].mean())
    return gain >= LEAST_GAIN and clearly_worse(one, other)


def close_to(best: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """The other feeds that the labels may well speak for: likely ones that are not worse, rare ones that are better."""
    return [
        trial
        for trial in trials
        if trial is not best
        and not trial.same_as
        and (
            clearly_worse(best, trial, errors=CLOSE)
            if trial.candidate.is_rare
            else not clearly_worse(trial, best, errors=CLOSE)
        )
    ]


def clearly_worse(one: Trial, other: Trial, errors: float = CLEAR) -> bool:
    """Whether the labels are likelier under the other feed, by so many standard errors, on the images that both have seen."""
    n = min(one.n_images, other.n_images)
    for name, least in LEAST_DIFFERENCES.items():
        differences = getattr(other, name)[:n] - getattr(one, name)[:n]
        mean, error = _mean(differences, np.broadcast_to(one.weights, len(one.log_likelihoods))[:n])
        if abs(mean) > max(errors * error, least):
            return mean > 0
    return False


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """The weighted mean and its standard error."""
    shares = weights / weights.sum()
    mean = float(shares @ values)
    n = 1 / float(shares @ shares)
    return mean, float(np.sqrt(shares**2 @ (values - mean) ** 2 * n / (n - 1))) if n > 1 else np.inf
