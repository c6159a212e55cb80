"""What a network is fed for an image: an affine map a channel, perhaps with the channels in the other order.

    fed = (image - mean) / scale        image in 0..1 (uint8 / 255), channels red, green, blue; black is 0

and with `bgr` the channels of that reversed. It is part of the function that is explained, so images, baselines and
attributions stay in image space whatever a network expects. The named feeds are those of keras.applications and of Keras's
own guides:

    unit     image                      0..1
    raw      255 image                  0..255, as image_dataset_from_directory gives it
    signed   2 image - 1                -1..1, `preprocess_input` of MobileNet, Inception, Xception, ResNetV2, NASNet
    torch    (image - mean) / deviation of ImageNet's channels, `preprocess_input` of DenseNet, torchvision
    caffe    255 image less ImageNet's mean, blue first, `preprocess_input` of ResNet and VGG
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

__all__ = ["FEEDS", "UNIT", "Feed", "named_feed"]

Channels = tuple[float, ...]

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of 0..255, red, green, blue


@dataclass(frozen=True)
class Feed:
    """fed = (image - mean) / scale, then reversed channels if bgr. mean, scale: one number, or one a channel in image order."""

    name: str
    mean: Channels = (0.0,)
    scale: Channels = (1.0,)
    bgr: bool = False

    def __post_init__(self) -> None:
        if not all(np.isfinite((*self.mean, *self.scale))) or 0 in self.scale:
            raise ValueError(
                f"mean and scale of a feed must be finite numbers, scale not 0, got {self.mean} and {self.scale}"
            )

    @property
    def is_identity(self) -> bool:
        """Whether the network is fed the image as it is."""
        return not self.bgr and set(self.mean) == {0.0} and set(self.scale) == {1.0}

    def coefficients(self, n_channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """factor, offset and order, each (channel,), with which fed = image[..., order] * factor + offset."""
        mean, scale = (
            np.broadcast_to(np.asarray(values, np.float64), (n_channels,)) for values in (self.mean, self.scale)
        )
        order = np.arange(n_channels)[:: -1 if self.bgr else 1]
        return (1 / scale)[order].astype(np.float32), (-mean / scale)[order].astype(np.float32), order.astype(np.int32)

    def fits(self, n_channels: int) -> bool:
        """Whether it has numbers for images of so many channels, and an order to turn."""
        return {len(self.mean), len(self.scale)} <= {1, n_channels} and (n_channels == 3 or not self.bgr)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """images: (row, y, x, channel) in 0..1. Returns what the network is fed, of the same shape."""
        if self.is_identity:
            return images
        factor, offset, _ = self.coefficients(int(images.shape[-1]))
        return (images[..., ::-1] if self.bgr else images) * factor + offset


UNIT = Feed("unit")
RAW = Feed("raw", scale=(1 / 255,))
SIGNED = Feed("signed", mean=(0.5,), scale=(0.5,))
TORCH = Feed("torch", mean=IMAGENET_MEAN, scale=IMAGENET_DEVIATION)
CAFFE = Feed("caffe", mean=tuple(value / 255 for value in CAFFE_MEAN), scale=(1 / 255,), bgr=True)
FEEDS: dict[str, Feed] = {feed.name: feed for feed in (UNIT, RAW, SIGNED, TORCH, CAFFE)}


def named_feed(name: str, n_channels: int) -> Feed:
    """The named feed. Raises ValueError for one that images of so many channels cannot have, or that there is not."""
    if name not in FEEDS:
        raise ValueError(f"expected an input of {', '.join(FEEDS)}, got {name!r}")
    if not FEEDS[name].fits(n_channels):
        raise ValueError(f"input {name} is for images of 3 channels, got {n_channels}; set another, or mean and scale")
    return FEEDS[name]
