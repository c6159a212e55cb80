"""The methods that explain a row: what each computes and stores, what the nightly audit compares of it, and recomputation.

method                     the protocol, and what a method is given
integrated_gradients_rows  Integrated Gradients with its certificate
cam_rows                   Grad-CAM, HiResCAM, and whatever else is a map of a layer
comparison                 differences, and how large those of right answers may be
"""

from tasks.parts.methods.cam_rows import GRAD_CAM_ROWS, HIRES_CAM_ROWS
from tasks.parts.methods.comparison import Comparison
from tasks.parts.methods.integrated_gradients_rows import INTEGRATED_GRADIENTS_ROWS
from tasks.parts.methods.method import Audited, Method, Recomputed, Work

__all__ = ["METHODS", "Audited", "Comparison", "Method", "Recomputed", "Work", "methods_of"]

METHODS: tuple[Method, ...] = (INTEGRATED_GRADIENTS_ROWS, GRAD_CAM_ROWS, HIRES_CAM_ROWS)


def methods_of(*, maps: bool) -> tuple[Method, ...]:
    """The methods of a night. maps: whether its model has a layer with a map, and it is to be explained."""
    return tuple(method for method in METHODS if maps or not method.stored.is_map)
