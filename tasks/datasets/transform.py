"""How images reach the model's shape: decided once, when a dataset is prepared, and applied at every read.

Convention: grey becomes RGB first, then the geometry; images stay uint8. The prepared directory keeps the originals, so
another transform needs no second conversion.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

from tasks.config import DatasetConfig
from tasks.datasets.dataset import DatasetError

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Extent", "Transform", "apply", "plan"]

DEFAULT_SIDE = 32


class Extent(NamedTuple):
    """The sizes of the stored images, in pixels."""

    y_min: int
    y_max: int
    x_min: int
    x_max: int
    n_channels: int

    @property
    def varies(self) -> bool:
        return self.y_min < self.y_max or self.x_min < self.x_max

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """(y, x, channel), None where the images differ."""
        y = self.y_max if self.y_min == self.y_max else None
        x = self.x_max if self.x_min == self.x_max else None
        return y, x, self.n_channels

    def __str__(self) -> str:
        if not self.varies:
            return f"{self.y_max}x{self.x_max}x{self.n_channels}"
        return f"{self.y_min}x{self.x_min} to {self.y_max}x{self.x_max} x{self.n_channels}"


class Transform(NamedTuple):
    """shape is (y, x, channel) afterwards; text says it for people."""

    geometry: Literal["none", "pad", "resize"]
    grey_to_rgb: bool
    shape: tuple[int, int, int]
    text: str


def plan(config: DatasetConfig, extent: Extent) -> Transform:
    """The transform that `config.transform` and `config.size` mean for images of this extent.

    auto: grey to RGB; images of one size are padded along each axis shorter than 32, and kept where they are not; with
    `size` they are padded to it if they fit and resized if they do not; images that differ in size are resized.
    pad, resize: grey to RGB, then to a square. none: as stored, grey stays grey.
    Raises DatasetError for images that differ in size under none, that do not fit under pad, or for a size under none.
    """
    side = config.size or DEFAULT_SIDE
    if config.transform == "none":
        return _keep(config, extent)
    geometry, y, x = _geometry(config, extent, side)
    if geometry == "pad" and (extent.y_max > y or extent.x_max > x):
        raise DatasetError(
            f"transform pad expects images of at most {y}x{x}, got {extent}; set a larger size, or transform resize"
        )
    if not extent.varies and (y, x) == (extent.y_max, extent.x_max):
        geometry = "none"
    grey_to_rgb = extent.n_channels == 1
    steps = ["grey to RGB"] if grey_to_rgb else []
    steps += {"none": [], "pad": [f"padded with black to {y}x{x}x3"], "resize": [f"resized to {y}x{x}x3"]}[geometry]
    return Transform(geometry, grey_to_rgb, (y, x, 3), f"{extent}: {', '.join(steps)}" if steps else "none")


def _keep(config: DatasetConfig, extent: Extent) -> Transform:
    if config.size is not None:
        raise DatasetError(
            f"transform none keeps the images as they are and takes no size, got {config.size}; leave size empty, or "
            "set transform pad or resize"
        )
    if extent.varies:
        raise DatasetError(f"transform none expects images of one size, got {extent}; set transform resize or pad")
    return Transform("none", False, (extent.y_max, extent.x_max, extent.n_channels), "none")


def _geometry(config: DatasetConfig, extent: Extent, side: int) -> tuple[Literal["none", "pad", "resize"], int, int]:
    """The geometry and the size (y, x) it leads to."""
    if config.transform == "pad" or config.transform == "resize":
        return config.transform, side, side
    if extent.varies:
        return "resize", side, side
    if config.size is None:
        return "pad", max(side, extent.y_max), max(side, extent.x_max)
    fits = extent.y_max <= side and extent.x_max <= side
    return ("pad" if fits else "resize"), side, side


def apply(
    image: "tf.Tensor", geometry: Literal["none", "pad", "resize"], grey_to_rgb: bool, shape: tuple[int, int, int]
) -> "tf.Tensor":
    """One stored image (y, x, channel) uint8, brought to `shape`; a TensorFlow graph function, for tf.data."""
    import tensorflow as tf

    if grey_to_rgb:
        image = tf.repeat(image, 3, axis=-1)
    if geometry == "pad":
        missing = tf.constant(shape[:2]) - tf.shape(image)[:2]
        before = missing // 2
        image = tf.pad(image, [[before[0], missing[0] - before[0]], [before[1], missing[1] - before[1]], [0, 0]])
    elif geometry == "resize":
        # The antialiased bilinear kernel is positive and normalised: it cannot leave 0..255, so rounding is enough.
        image = tf.cast(tf.round(tf.image.resize(image, shape[:2], antialias=True)), tf.uint8)
    return tf.ensure_shape(image, shape)
