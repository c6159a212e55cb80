"""Maps from a layer's activations A and their gradients dF_t/dA, both (row, cam_y, cam_x, filter): (row, cam_y, cam_x).

Grad-CAM    ReLU(sum_k w_k A_k), w_k the mean of dF_t/dA_k over space    (Selvaraju et al. 2017, eq. 1 and 2)
    HiResCAM    ReLU(sum_k A_k dF_t/dA_k), cell by cell                      (Draelos & Carin 2020)

Where the gradient depends on the place, as behind Flatten and Dense, its mean over space loses what HiResCAM keeps.
Maps stay at the layer's resolution, raw and non-negative. A map that is zero everywhere is a fact (nothing at this layer speaks
for the target) and stays zero: nothing here divides by a maximum.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["CAMS", "grad_cam", "hires_cam"]


def grad_cam(activations: Any, gradients: Any) -> tf.Tensor:
    """Grad-CAM maps, not normalised."""
    return tf.nn.relu(tf.einsum("nyxk,nk->nyx", activations, tf.reduce_mean(gradients, axis=(1, 2))))


def hires_cam(activations: Any, gradients: Any) -> tf.Tensor:
    """HiResCAM maps, not normalised."""
    return tf.nn.relu(tf.reduce_sum(activations * gradients, axis=-1))


# By the name of the method's group in the store.
CAMS: dict[str, Callable[[Any, Any], tf.Tensor]] = {"grad_cam": grad_cam, "hires_cam": hires_cam}
