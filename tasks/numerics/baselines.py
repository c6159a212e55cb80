"""The baseline x' of Integrated Gradients: the image that stands for 'nothing there'."""

import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["make_baselines"]

BLUR_FRACTION = 1 / 8  # standard deviation of the blur, as a fraction of the image's height


def make_baselines(kind: str, images: np.ndarray, mean_image: np.ndarray | None = None) -> np.ndarray:
    """One baseline a row, float32 (row, y, x, channel) in 0..1.

    kind: "black", "white", "mean" (needs mean_image, (y, x, channel) in 0..1) or "blur" (each image blurred by a Gaussian
    of an eighth of its height). images: float32 (row, y, x, channel).
    Raises ValueError for another kind, or if the mean image is missing.
    """
    if kind == "black":
        return np.zeros_like(images)
    if kind == "white":
        return np.ones_like(images)
    if kind == "blur":
        sigma = images.shape[1] * BLUR_FRACTION
        return gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    if kind == "mean" and mean_image is not None:
        return np.broadcast_to(mean_image.astype(np.float32), images.shape).copy()
    raise ValueError(f"baseline must be black, white, blur, or mean with its image, got {kind!r}")
