"""Which feeds are tried on a given model, the likeliest first: what sits at its input, whose network it is, and what people use.

Convention: the order is a prior. It decides only between feeds that explain the labels equally well.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.numerics.network.feed import CAFFE, FEEDS, RAW, SIGNED, TORCH, UNIT, Feed
from tasks.numerics.network.graph import Trace

__all__ = ["Candidate", "candidates", "is_statistic", "moments", "neighbours", "standardised"]

SHIFT, STEEPER = 0.2, 1.5
STANDARDISED, CENTRED = "standardised", "centred"
# As countless scripts for CIFAR-10 have them; the deviations are those of single images, not of the training set.
CIFAR = Feed("cifar10", mean=(0.4914, 0.4822, 0.4465), scale=(0.2023, 0.1994, 0.2010))
CIFAR_SHAPE = (32, 32, 3)
# Ranges that people write by hand: 0..2, -.5...5, and white on black for black on white.
BY_HAND = (
    Feed("double", scale=(0.5,)),
    Feed("half", mean=(0.5,)),
    Feed("inverted", mean=(1.0,), scale=(-1.0,)),
)

# The names that networks of keras.applications have, and what their `preprocess_input` makes.
APPLICATIONS: tuple[tuple[str, Feed], ...] = (
    (r"resnet(50|101|152)v2", SIGNED),
    (r"resnet(50|101|152)", CAFFE),
    (r"vgg(16|19)", CAFFE),
    (r"densenet(121|169|201)", TORCH),
    (r"mobilenetv?3", RAW),
    (r"mobilenet", SIGNED),
    (r"inception|xception|nasnet", SIGNED),
    (r"efficientnet|convnext|regnet|resnet-?rs", RAW),
)
# Layers in front that leave the range of values as it is.
IN_FRONT = (
    keras.layers.Dropout
    | keras.layers.GaussianNoise
    | keras.layers.Resizing
    | keras.layers.ZeroPadding2D
    | keras.layers.Cropping2D
    | keras.layers.CenterCrop
    | keras.layers.Permute
    | keras.layers.Reshape
    | keras.layers.Flatten
    | keras.layers.Identity
)


@dataclass(frozen=True)
class Candidate:
    """A feed and what speaks for it before anything is measured; empty for one that is tried because people use it.

    is_rare: whether it takes clear evidence to believe it: most networks are fed one of the named feeds.
    """

    feed: Feed
    reason: str = ""
    is_rare: bool = False


def candidates(traced: Trace, model: keras.Model, images: NDArray[np.uint8]) -> list[Candidate]:
    """The feeds to try, the likeliest first, each once.

    traced: the model's calls. images: (row, y, x, channel), a sample of the training images.
    """
    n_channels = images.shape[-1]
    found = [*_from_layers(traced, images), *_from_applications(model)]
    found += [Candidate(feed) for feed in FEEDS.values()]
    rare = [*standardised(*moments([images])), *BY_HAND]
    if images.shape[1:] == CIFAR_SHAPE:
        rare.append(CIFAR)
    if n_channels == 3 and (images != images[..., :1]).any():
        rare += [replace(feed, name=f"{feed.name}-bgr", bgr=True) for feed in (UNIT, RAW, SIGNED)]
    found += [Candidate(feed, is_rare=True) for feed in rare]
    distinct: dict[tuple, Candidate] = {}
    for candidate in found:
        if candidate.feed.fits(n_channels):
            distinct.setdefault(_key(candidate.feed, n_channels), candidate)
    return list(distinct.values())


def _key(feed: Feed, n_channels: int) -> tuple:
    return tuple(np.round(np.concatenate(feed.coefficients(n_channels)), 6).tolist())


def standardised(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> list[Feed]:
    """Feeds by the statistics of images in 0..1: standardised a channel, standardised as a whole, and less their mean.

    mean, variance: (channel,). None for images without contrast.
    """
    overall = float((variance + mean**2).mean() - mean.mean() ** 2)
    if not variance.all():
        return []
    return [
        Feed(STANDARDISED, tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())),
        Feed(f"{STANDARDISED}-all", (float(mean.mean()),), (overall**0.5,)),
        Feed(CENTRED, tuple(mean.tolist())),
    ]


def neighbours(feed: Feed) -> list[Candidate]:
    """The feed a little darker, brighter, flatter and steeper: what labels should not prefer to the right one."""
    beside = [replace(feed, mean=tuple(m + shift for m in feed.mean)) for shift in (-SHIFT, SHIFT)]
    beside += [replace(feed, scale=tuple(s * factor for s in feed.scale)) for factor in (1 / STEEPER, STEEPER)]
    return [Candidate(replace(each, name=f"beside {feed.name}"), is_rare=True) for each in beside]


def is_statistic(feed: Feed) -> bool:
    """Whether it is one of `standardised`."""
    return feed.name.startswith((STANDARDISED, CENTRED))


def moments(batches: Iterable[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each channel of images in 0..1, both (channel,), by exact sums. batches: (row, y, x, channel)."""
    n, total, squares = 0, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for images in batches:
        values = images.reshape(-1, images.shape[-1]).astype(np.int64)
        n, total, squares = n + len(values), total + values.sum(axis=0), squares + (values**2).sum(axis=0)
    mean = total / n
    return mean / 255, (squares / n - mean**2) / 255**2


def _from_layers(traced: Trace, images: NDArray[np.uint8]) -> list[Candidate]:
    """The feed that the first layer with numbers of its own expects, if it says so."""
    for call in traced.on_the_way().values():
        layer = call.operation
        if isinstance(layer, keras.layers.Rescaling):
            return _from_rescaling(layer)
        if isinstance(layer, keras.layers.Normalization | keras.layers.BatchNormalization):
            mean, variance = (
                (layer.mean, layer.variance)
                if isinstance(layer, keras.layers.Normalization)
                else (layer.moving_mean, layer.moving_variance)
            )
            return _from_moments(np.asarray(mean).ravel(), np.asarray(variance).ravel(), call.label, images)
        if getattr(layer, "weights", ()) and not _augments(layer):
            return []
        if not (isinstance(layer, IN_FRONT) or _augments(layer) or type(layer).__name__ in ("Cast", "Transpose")):
            return []
    return []


def _augments(layer: keras.Operation) -> bool:
    """Whether it acts in training only: Keras calls such layers Random..., and they keep a generator as their only weight."""
    return type(layer).__name__.startswith(("Random", "Aug", "Mix", "CutMix")) or isinstance(
        layer, keras.layers.Dropout | keras.layers.GaussianNoise
    )


def _from_rescaling(layer: keras.layers.Rescaling) -> list[Candidate]:
    scale = np.ravel(layer.scale)
    if (scale < 0.05).all():  # 1/255, 1/127.5, or those over a deviation
        return [Candidate(RAW, f"layer {layer.name} rescales by {float(scale[0]):.4g}")]
    if (scale > 20).all():
        return [Candidate(UNIT, f"layer {layer.name} rescales by {float(scale[0]):.4g}")]
    return []


def _from_moments(mean: NDArray, variance: NDArray, label: str, images: NDArray[np.uint8]) -> list[Candidate]:
    """The named feed under which images have moments nearest to those that a layer at the input has kept."""
    n_channels = images.shape[-1]
    if mean.size not in (1, n_channels) or not np.isfinite([mean, variance]).all() or (variance <= 0).any():
        return []
    of_images, spread = moments([images])
    if not spread.all():
        return []

    def distance(feed: Feed) -> float:
        factor, offset, order = feed.coefficients(n_channels)
        fed_mean, fed_deviation = of_images[order] * factor + offset, np.sqrt(spread)[order] * np.abs(factor)
        deviation = np.sqrt(variance)
        apart = np.abs(fed_mean - mean) / np.maximum(fed_deviation, deviation)
        return float((apart + np.abs(np.log(fed_deviation / deviation))).mean())

    nearest = min((feed for feed in FEEDS.values() if feed.fits(n_channels)), key=distance)
    kept = f"the mean {float(mean.mean()):.3g} and the deviation {float(np.sqrt(variance).mean()):.3g}"
    text = f"layer {label} at the input keeps {kept}"
    return [Candidate(nearest, text)] if distance(nearest) < 1 else []


def _from_applications(model: keras.Model) -> list[Candidate]:
    """The feed of a network of keras.applications, by its name, also where it is nested."""
    for name in _model_names(model):
        for pattern, feed in APPLICATIONS:
            if re.match(pattern, name.lower()):
                return [Candidate(feed, f"{name} of keras.applications")]
    return []


def _model_names(model: keras.Model) -> list[str]:
    return [model.name, *(n for layer in model.layers if isinstance(layer, keras.Model) for n in _model_names(layer))]
