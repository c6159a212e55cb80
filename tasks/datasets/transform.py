"""How images reach the model's shape: decided once, when a dataset is prepared, and applied at every read.

Convention: grey becomes RGB first, or RGB grey, then the geometry; images stay uint8. The prepared directory keeps the
originals, so another transform needs no second conversion.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeGuard

from tasks.config import DatasetConfig
from tasks.datasets.dataset import Dataset, DatasetError

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Extent", "InputShape", "Transform", "apply", "follows_model", "plan"]

DEFAULT_SIDE = 32
PADDED_AT_MOST = 4
# Pillow's: red, green and blue in 65,536ths.
LUMA, LUMA_UNIT = (19595, 38470, 7471), 65_536


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
    rgb_to_grey: bool
    shape: tuple[int, int, int]
    text: str


InputShape = tuple[int | None, ...]
"""(y, x, channel) of what a given model takes; None where it takes any."""


def plan(config: DatasetConfig, extent: Extent, input_shape: InputShape | None = None) -> Transform:
    """The transform that `config.transform` and `config.size` mean for images of this extent.

    auto: grey to RGB; images of one size are padded along each axis shorter than 32, and kept where they are not; with
    `size` they are padded to it if they fit and resized if they do not; images that differ in size are resized. Where
    input_shape is given, `size` is not, and that is another shape: kept as stored if that is the model's shape, else
    brought to it, padded where at most 4 pixels are missing along each axis and resized otherwise; grey or RGB as it takes.
    pad, resize: grey to RGB, then to a square. none: as stored, grey stays grey.
    Raises DatasetError for images that differ in size under none, that do not fit under pad, for a size under none, and
    for a model that takes neither 1 nor 3 channels.
    """
    if config.transform == "none":
        return _keep(config, extent)
    geometry, y, x = _geometry(config, extent, config.size or DEFAULT_SIDE)
    if geometry == "pad" and (extent.y_max > y or extent.x_max > x):
        raise DatasetError(
            f"transform pad expects images of at most {y}x{x}, got {extent}; set a larger size, or transform resize"
        )
    usual = _transform(extent, geometry, (y, x, 3))
    if not follows_model(input_shape, config) or _fits(usual.shape, input_shape):
        return usual
    return _for_model(extent, input_shape, usual.shape)


def follows_model(input_shape: InputShape | None, config: DatasetConfig) -> TypeGuard[InputShape]:
    """Whether the transform depends on what the model takes."""
    return input_shape is not None and config.transform == "auto" and config.size is None


def _fits(shape: tuple[int | None, ...], input_shape: InputShape) -> bool:
    return all(taken in (None, side) for side, taken in zip(shape, input_shape, strict=True))


def _for_model(extent: Extent, input_shape: InputShape, usual: tuple[int, int, int]) -> Transform:
    sides = zip(input_shape, extent.shape, usual, strict=True)
    y, x, n_channels = (taken or stored or default for taken, stored, default in sides)
    if n_channels not in (1, 3):
        raise DatasetError(
            f"the model takes images of {n_channels} channels, expected 1 or 3; the images are {extent}: give another model"
        )
    missing = y - extent.y_min, x - extent.x_min
    pads = not extent.varies and min(missing) >= 0 and max(missing) <= PADDED_AT_MOST
    found = _transform(extent, "pad" if pads else "resize", (y, x, n_channels))
    return found._replace(text=f"{found.text}, as the model takes them") if found.text != "none" else found


def _transform(extent: Extent, geometry: Literal["none", "pad", "resize"], shape: tuple[int, int, int]) -> Transform:
    """The steps to `shape`, those that change nothing left out."""
    y, x, n_channels = shape
    if not extent.varies and (y, x) == (extent.y_max, extent.x_max):
        geometry = "none"
    grey_to_rgb, rgb_to_grey = extent.n_channels < n_channels, extent.n_channels > n_channels
    steps = ["grey to RGB"] if grey_to_rgb else ["RGB to grey (ITU-R 601)"] if rgb_to_grey else []
    size = f"{y}x{x}x{n_channels}"
    steps += {"none": [], "pad": [f"padded with black to {size}"], "resize": [f"resized to {size}"]}[geometry]
    return Transform(geometry, grey_to_rgb, rgb_to_grey, shape, f"{extent}: {', '.join(steps)}" if steps else "none")


def _keep(config: DatasetConfig, extent: Extent) -> Transform:
    if config.size is not None:
        raise DatasetError(
            f"transform none keeps the images as they are and takes no size, got {config.size}; leave size empty, or "
            "set transform pad or resize"
        )
    if extent.varies:
        raise DatasetError(f"transform none expects images of one size, got {extent}; set transform resize or pad")
    return Transform("none", False, False, (extent.y_max, extent.x_max, extent.n_channels), "none")


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


def apply(image: "tf.Tensor", dataset: Dataset) -> "tf.Tensor":
    """One stored image (y, x, channel) uint8, as the model sees it; a TensorFlow graph function, for tf.data."""
    import tensorflow as tf

    if dataset.grey_to_rgb:
        image = tf.repeat(image, 3, axis=-1)
    elif dataset.rgb_to_grey:
        weighted = tf.cast(image, tf.int32) * tf.constant(LUMA)
        image = tf.cast((tf.reduce_sum(weighted, axis=-1, keepdims=True) + LUMA_UNIT // 2) // LUMA_UNIT, tf.uint8)
    if dataset.geometry == "pad":
        missing = tf.constant(dataset.shape[:2]) - tf.shape(image)[:2]
        before = missing // 2
        image = tf.pad(image, [[before[0], missing[0] - before[0]], [before[1], missing[1] - before[1]], [0, 0]])
    elif dataset.geometry == "resize":
        # The antialiased bilinear kernel is positive and normalised: it cannot leave 0..255, so rounding is enough.
        image = tf.cast(tf.round(tf.image.resize(image, dataset.shape[:2], antialias=True)), tf.uint8)
    return tf.ensure_shape(image, dataset.shape)
